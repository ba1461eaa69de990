"""Softmax and cross-entropy for several labels at once: https://kexue.fm/archives/7359

With a threshold at 0, each positive is to score above it and each negative below:

    loss = log(1 + Σ_{i∈neg} e^{s_i}) + log(1 + Σ_{j∈pos} e^{−s_j}),     predict s > 0.

Done differently: classes are switched off by the lowest number of the type instead of 1e12, which
is no float16 and rounds logits away. The sparse form there subtracts the positives from the sum
over all classes, log(1 − e^{pos − all}), which is NaN or needs a clip that cuts the gradient; here
the positives are scattered into a mask as large as the logits themselves, so that dense and sparse
labels give one formula: equal, without clip, and a label given twice counts once.
"""

import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.imbalance.base import LogitsLoss, register
from bert_theseus.imbalance.labels import Labels


@register
class MultilabelCrossentropy(LogitsLoss):
    """The softmax loss for several labels; classes with a score above 0 are predicted.

    Optimises: log(1 + Σ_neg e^s) + log(1 + Σ_pos e^{−s}) for each example.
    Arguments: ignore_label, a value (say −1) in the labels that leaves a class out for that
               example; reduction, name.
    Reference: https://kexue.fm/archives/7359; https://arxiv.org/abs/2208.02955
    Accepts:   labels [..., classes] of 0 and 1, logits of the same shape.
    Relations: one positive per example and all others negative: log-sum-exp form of softmax
               cross-entropy with a threshold class; :class:`SparseMultilabelCrossentropy` takes
               indices; ``WeightedCrossentropy(labels="binary")`` treats classes independently.
    Raises:    InputError for labels other than 0 and 1.

    >>> loss = MultilabelCrossentropy()
    >>> round(float(loss([[1, 1, 0]], [[9.0, 9.0, -9.0]])), 4)
    0.0004
    """

    soft_labels = False

    def __init__(self, ignore_label: int | None = None, reduction: str = "auto",
                 name: str | None = None):
        super().__init__("binary", ignore_label, reduction, name)

    def _per_example(self, labels: Labels, logits):
        keep = tf.reduce_any(labels.keep, -1)
        values = threshold_loss(labels.y > 0, labels.keep, logits)
        fits = tf.reduce_all(labels.fits, -1)
        return tf.where(fits, values, tf.constant(float("nan"), values.dtype)), keep

    def get_config(self):
        """Every argument of the constructor."""
        config = super().get_config()
        del config["labels"]
        return config


@register
class SparseMultilabelCrossentropy(keras.losses.Loss):
    """:class:`MultilabelCrossentropy` for labels given as indices, padded to one length.

    Optimises: the same loss as the dense form, to the last bit.
    Arguments: padding, the index that fills the rows up (−1, or any number outside the classes; a
               class that serves as padding, as with bert4keras' mask_zero, is left out of the
               loss altogether); reduction, name.
    Reference: https://kexue.fm/archives/7359, archives/8888 for the sparse form
    Accepts:   labels [..., most labels] of integers in any order, logits [..., classes].
    Relations: see the dense form.
    Raises:    InputError for an index that is neither a class nor the padding.

    >>> loss = SparseMultilabelCrossentropy()
    >>> dense = MultilabelCrossentropy()
    >>> float(loss([[1, 0], [2, -1]], [[3.0, 2.0, -4.0], [0.0, -1.0, 5.0]])) == float(
    ...     dense([[1, 1, 0], [0, 0, 1]], [[3.0, 2.0, -4.0], [0.0, -1.0, 5.0]]))
    True
    """

    def __init__(self, padding: int = -1, reduction: str = "auto", name: str | None = None):
        super().__init__(reduction=reduction, name=name)
        self.padding = int(padding)
        self._dense = MultilabelCrossentropy(ignore_label=-1, reduction=reduction)

    def call(self, y_true, y_pred):
        """Losses [...], neither weighted nor reduced."""
        return self._dense.call(indicator(y_true, y_pred.shape[-1], self.padding), y_pred)

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The reduced loss; sample_weight: scalar, [batch] or the shape of the examples."""
        self._dense._allow_sum_over_batch_size = self._allow_sum_over_batch_size
        return self._dense(indicator(y_true, y_pred.shape[-1] if hasattr(y_pred, "shape") else
                                     tf.convert_to_tensor(y_pred).shape[-1], self.padding),
                           y_pred, sample_weight)

    def get_config(self):
        """Every argument of the constructor."""
        return {"padding": self.padding, **super().get_config()}


def indicator(indices, classes: int, padding: int = -1) -> tf.Tensor:
    """Indices [..., most labels] as 0 and 1 [..., classes]; −1 for a class that is padding.

    >>> indicator([[2, 0], [1, -1]], classes=3).numpy().tolist()
    [[1, 0, 1], [0, 1, 0]]
    """
    indices = tf.cast(tf.convert_to_tensor(indices), tf.int32)
    real = indices != padding
    fits = ~real | (indices >= 0) & (indices < classes)
    if tf.executing_eagerly() and not bool(tf.reduce_all(fits)):
        where = tf.where(~fits)[0].numpy()
        raise InputError(f"label {indices.numpy()[tuple(where)]} does not fit",
                         f"y_true{where.tolist()}",
                         f"indices are 0 … {classes - 1}, filled up with padding={padding}")
    # a row and a column that take what does not count: [..., classes + 1] → [..., classes]
    rows = tf.reshape(tf.where(real & fits, indices, classes), [-1, tf.shape(indices)[-1]])
    y = tf.math.unsorted_segment_max(
        tf.ones([tf.size(rows)], tf.int32),
        tf.reshape(rows + (classes + 1) * tf.range(tf.shape(rows)[0])[:, None], [-1]),
        tf.shape(rows)[0] * (classes + 1))
    y = tf.reshape(tf.maximum(y, 0), tf.concat([tf.shape(indices)[:-1], [classes + 1]], 0))
    y = tf.ensure_shape(y[..., :classes], [*indices.shape[:-1], classes])
    if 0 <= padding < classes:
        y = tf.where(tf.range(classes) == padding, -1, y)
    return _with_misfits(y, fits)


def _with_misfits(y, fits):
    """2, which no check lets pass, in the rows that hold an index outside the classes."""
    return tf.where(tf.reduce_all(fits, -1, keepdims=True), y, 2)


def threshold_loss(positive, counts, logits) -> tf.Tensor:
    """log(1 + Σ_neg e^s) + log(1 + Σ_pos e^{−s}); booleans and logits [..., classes] → [...]."""
    return (_log_one_plus_sum(logits, ~positive & counts)
            + _log_one_plus_sum(-logits, positive & counts))


def _log_one_plus_sum(scores, chosen):
    lowest = tf.constant(scores.dtype.min, scores.dtype)
    chosen = tf.where(chosen, scores, lowest)
    zero = tf.zeros_like(chosen[..., :1])
    return tf.reduce_logsumexp(tf.concat([chosen, zero], -1), -1)

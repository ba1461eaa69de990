"""What all losses of this room share: labels, masks, weights, reduction, configuration.

A subclass says what one example costs (``values``); everything around it is here, once:

* logits of any float type, labels as integers, one-hot or binary (:mod:`.labels`);
* what is masked by Keras or carries ``ignore_label`` counts neither in the sum nor in the mean,
  and a batch in which nothing counts costs 0 (Keras' own losses give NaN there);
* the mean is over what counts, not over the sum of the weights, as in Keras;
* ``get_config`` → ``from_config``, registered, so that a saved compiled model loads as it is.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.imbalance import closed_forms
from bert_theseus.imbalance.labels import KINDS, Labels, as_logits, fit_labels

register = keras.utils.register_keras_serializable("bert_theseus")


class LogitsLoss(keras.losses.Loss):
    """A loss on logits [..., classes]; base of the family, not for use by itself.

    labels:       "integer" [...], "one_hot" [..., classes], "binary" (independent tasks, the
                  shape of the logits) or "auto", which tells them apart by shape: a single logit
                  is binary, labels of the logits' shape are one-hot, all others integer.
    ignore_label: examples (for "binary": tasks of an example) with this label do not count.
    reduction:    "auto", "sum_over_batch_size", "sum" or "none" as in Keras.

    Raises InputError for labels, shapes or outputs that do not fit (see :mod:`.labels`).
    """

    soft_labels = True          # may y lie between 0 and 1?

    def __init__(self, labels: str = "auto", ignore_label: int | None = None,
                 reduction: str = "auto", name: str | None = None):
        super().__init__(reduction=reduction, name=name)
        if labels not in KINDS:
            raise InputError(f"unknown kind of labels {labels!r}", "labels", f"use one of {KINDS}")
        self.labels, self.ignore_label = labels, ignore_label

    def values(self, labels: Labels, logits: tf.Tensor) -> tf.Tensor:
        """What each example costs, [...]; for kind "binary" each task, [..., tasks]."""
        raise NotImplementedError

    def call(self, y_true, y_pred):
        """Losses [...], neither weighted nor reduced."""
        logits = as_logits(y_pred)
        return self._per_example(fit_labels(y_true, logits, self.labels, self.ignore_label,
                                            self.soft_labels), logits)[0]

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The reduced loss; sample_weight: scalar, [batch] or the shape of the examples."""
        logits = as_logits(y_pred)
        labels = fit_labels(y_true, logits, self.labels, self.ignore_label, self.soft_labels)
        values, keep = self._per_example(labels, logits)
        return self._reduce(values, and_mask(keep, y_pred), sample_weight)

    def _per_example(self, labels: Labels, logits):
        """Losses [...] and which of them count; labels that do not fit give NaN."""
        values = self.values(labels, logits)
        if labels.keep.shape.rank < logits.shape.rank:
            return _poison(values, labels.fits), labels.keep
        values = tf.where(labels.keep, _poison(values, labels.fits), 0)
        count = tf.reduce_sum(tf.cast(labels.keep, values.dtype), -1)
        mean = tf.math.divide_no_nan(tf.reduce_sum(values, -1), count)
        return mean, tf.reduce_any(labels.keep, -1)

    def _reduce(self, values, keep, sample_weight):
        values = tf.where(keep, values, 0)
        if sample_weight is not None:
            values *= example_weights(sample_weight, values)
        reduction = self._get_reduction()
        if reduction == keras.losses.Reduction.NONE:
            return values
        total = tf.reduce_sum(values)
        if reduction == keras.losses.Reduction.SUM:
            return total
        return tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(keep, values.dtype)))

    def get_config(self):
        """Every argument of the constructor."""
        return {"labels": self.labels, "ignore_label": self.ignore_label, **super().get_config()}


class OddsLoss(LogitsLoss):
    """A loss that depends on the target's log-odds x alone; base, see :mod:`.closed_forms`."""

    soft_labels = False

    def of_odds(self, x: tf.Tensor) -> tf.Tensor:
        """What an example with log-odds x of its own class costs."""
        raise NotImplementedError

    def values(self, labels, logits):
        """of_odds at the binary or multi-class log-odds."""
        return self.of_odds(self.odds(labels, logits))

    def odds(self, labels: Labels, logits) -> tf.Tensor:
        """Log-odds of the target, [...] or, for binary labels, [..., tasks]."""
        form = closed_forms.signed if labels.kind == "binary" else closed_forms.target_log_odds
        return form(labels.y, logits)


class CrossentropyLoss(LogitsLoss):
    """Cross-entropy on logits moved by ``adjust``; base of margins, priors and weights.

    label_smoothing: ε: labels (1 − ε) y + ε / classes (binary: + ε / 2).
    """

    def __init__(self, label_smoothing: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label smoothing {label_smoothing}", "label_smoothing",
                             "it lies in [0, 1)")
        self.label_smoothing = label_smoothing

    def adjust(self, labels: Labels, logits: tf.Tensor) -> tf.Tensor:
        """The logits the cross-entropy is taken of."""
        return logits

    def values(self, labels, logits):
        """Cross-entropy [...] or, for binary labels, [..., tasks]."""
        y, logits = self.smoothed(labels), self.adjust(labels, logits)
        if labels.kind == "binary":
            return closed_forms.binary_crossentropy(y, logits)
        return closed_forms.crossentropy(y, logits)

    def smoothed(self, labels: Labels) -> tf.Tensor:
        """The labels with smoothing."""
        classes = 2 if labels.kind == "binary" else labels.y.shape[-1]
        return (1 - self.label_smoothing) * labels.y + self.label_smoothing / classes

    def get_config(self):
        """Every argument of the constructor."""
        return {"label_smoothing": self.label_smoothing, **super().get_config()}


def example_weights(sample_weight, values) -> tf.Tensor:
    """sample_weight brought to the shape of the losses: [batch, 1] and [batch] are understood."""
    weight = tf.cast(tf.convert_to_tensor(sample_weight), values.dtype)
    if weight.shape.rank == values.shape.rank + 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    while 0 < weight.shape.rank < values.shape.rank:
        weight = weight[..., None]
    return weight


def per_class(vector, classes: int, what: str) -> np.ndarray:
    """A vector with one entry a class, or an InputError that names the lengths."""
    vector = np.asarray(vector, "float64")
    if vector.shape != (classes,):
        raise InputError(f"{vector.size} {what} for {classes} classes", what,
                         "give one number a class, two for binary labels: [negative, positive]")
    return vector


def number_of_classes(labels: Labels, logits) -> int:
    """Classes a per-class vector must cover: 2 for binary labels."""
    return 2 if labels.kind == "binary" else logits.shape[-1]


def finite_vector(vector: Sequence[float], what: str, least: float = -np.inf) -> list[float]:
    """A vector as a list of floats, checked: finite, one axis, nothing below ``least``."""
    array = np.asarray(vector, "float64")
    if array.ndim != 1 or not array.size:
        raise InputError(f"{what} of shape {array.shape}", what, "give one number a class")
    bad = np.flatnonzero(~np.isfinite(array) | (array < least))
    if bad.size:
        raise InputError(f"{array[bad[0]]} in {what}", f"{what}[{bad[0]}]",
                         "give finite numbers" + (f" of at least {least:g}" * (least > -np.inf)))
    return array.tolist()


def _poison(values, fits):
    return tf.where(fits, values, tf.constant(np.nan, values.dtype))


def and_mask(keep, y_pred):
    """``keep`` [...] without what the Keras mask of the outputs, if they carry one, hides."""
    mask = getattr(y_pred, "_keras_mask", None)
    if mask is None:
        return keep
    mask = tf.cast(mask, tf.bool)
    return keep & (mask if mask.shape.rank == keep.shape.rank else tf.reduce_all(mask, -1))

"""Smooth accuracy, smooth F1 and the cross-entropy it leads to: https://kexue.fm/archives/7708

    ACC~ = E[y p + (1 − y)(1 − p)],      F~ = 2 E[y p] / E[y + p],
    ∇(−F~) = −(2 / E[y + p]) E[(y − F~/2) ∇p].

∇p carries the factor p (1 − p), which vanishes where the model is badly wrong. The article's rule
"p → log p" mends it; F1-weighted cross-entropy is what it makes of F~:

    −E[ y (1 − F~/2) log p + (1 − y) (F~/2) log(1 − p) ]        with F~ held constant.

Done differently: F~ is an expectation over the data, which the article leaves to the implementer;
here it is the batch's, a running estimate, or that of a full pass (:class:`FullDataF1`). Several
classes have one F~ each (macro) or one in common (micro); the factor 2 / E[y + p], a global scale
for one class, differs between classes and can be kept (``leading_factor``).
"""

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.imbalance import closed_forms
from bert_theseus.imbalance.base import (LogitsLoss, OddsLoss, and_mask, example_weights,
                                         register)
from bert_theseus.imbalance.labels import as_logits, fit_labels

ESTIMATES = ("batch", "running", "full")
AVERAGES = ("macro", "micro")


@register
class SmoothAccuracyLoss(OddsLoss):
    """1 − smooth accuracy: the expected error when predictions are drawn from p.

    Optimises: 1 − p_t, the mean of y (1 − p) + (1 − y) p.
    Arguments: as in :class:`LogitsLoss`.
    Reference: https://kexue.fm/archives/7708
    Accepts:   integer, one-hot and binary labels; logits [..., classes].
    Relations: its gradient is that of cross-entropy times p_t, which is why it learns slowly
               where it is wrong; :class:`WeightedCrossentropy` is the article's repair.

    >>> float(SmoothAccuracyLoss()([[1], [0]], [[0.0], [0.0]]))
    0.5
    """

    def of_odds(self, x):
        """1 − p_t = σ(−x)."""
        return tf.nn.sigmoid(-x)


class SmoothF1Statistic:
    """E[y p] and E[y + p] of each class: of a batch, running, or set from outside.

    estimate: "batch", "running" (exponential mean with ``momentum``) or "full" (what
    :class:`FullDataF1` has set last). average: "macro" one F~ a class, "micro" one for all.
    """

    def __init__(self, estimate: str, momentum: float, average: str):
        if estimate not in ESTIMATES:
            raise InputError(f"unknown estimate {estimate!r}", "estimate",
                             f"use one of {ESTIMATES}")
        if average not in AVERAGES:
            raise InputError(f"unknown average {average!r}", "average", f"use one of {AVERAGES}")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum {momentum}", "momentum", "it lies in [0, 1)")
        self.estimate, self.momentum, self.average = estimate, momentum, average
        self._state = None

    def of_batch(self, y, p, weight):
        """E[y p] and E[y + p], [classes] each, from y and p [..., classes], weight [...]."""
        axes = list(range(y.shape.rank - 1))
        total = tf.reduce_sum(weight)
        weight = weight[..., None]
        both = [tf.math.divide_no_nan(tf.reduce_sum(weight * part, axes), total)
                for part in (y * p, y + p)]
        if self.average == "micro":
            both = [tf.reduce_mean(part, keepdims=True) for part in both]
        return both

    def current(self, y, p, weight):
        """F~ [classes] and E[y + p] [classes], constants for the gradient."""
        product, total = self.of_batch(y, p, weight)
        if self.estimate != "batch":
            state = self._variable(product.shape[0])
            if self.estimate == "running":
                new = tf.stack([product, total, tf.ones_like(total)])
                state.assign(self.momentum * state
                             + (1 - self.momentum) * tf.cast(tf.stop_gradient(new), state.dtype))
            norm = tf.maximum(state[2], 1e-30)
            product, total = (tf.cast(state[i] / norm, y.dtype) for i in (0, 1))
        return (tf.stop_gradient(smooth_f1(product, total)), tf.stop_gradient(total))

    def set(self, product, total) -> None:
        """Sets E[y p] and E[y + p] [classes] from outside."""
        product, total = np.atleast_1d(product), np.atleast_1d(total)
        self._variable(len(product)).assign(np.stack([product, total, np.ones_like(total)]))

    def reset(self) -> None:
        """Back to the state before the first batch, for the next model."""
        if self._state is not None:
            self._state.assign(self._start(self._state.shape[-1]))

    def value(self) -> np.ndarray:
        """F~ [classes] as it stands (running or full); empty before its first use."""
        if self._state is None:
            return np.zeros(0)
        return np.asarray(smooth_f1(self._state[0], self._state[1]))

    def _variable(self, classes: int):
        """[E[y p], E[y + p], weight of the running mean] × classes, made at first use.

        Before the first full pass F~ is 0 and E[y + p] is 1: positives alone train.
        """
        if self._state is None:
            with tf.init_scope():
                self._state = tf.Variable(self._start(classes), trainable=False, dtype=tf.float32)
        return self._state

    def _start(self, classes: int) -> np.ndarray:
        start = np.zeros([3, classes])
        if self.estimate == "full":
            start[1:] = 1
        return start


def smooth_f1(product, total):
    """F~ = 2 E[y p] / E[y + p]; 0 where there is neither a label nor any probability."""
    some = total > 0
    return tf.where(some, 2 * product / tf.where(some, total, 1), 0)


class F1Loss(LogitsLoss):
    """What the two F1 losses share: the statistic and its arguments."""

    def __init__(self, estimate: str = "batch", momentum: float = 0.99, average: str = "macro",
                 **kwargs):
        super().__init__(**kwargs)
        self.statistic = SmoothF1Statistic(estimate, momentum, average)

    def _weighed(self, y_true, y_pred, sample_weight):
        """Labels, logits, p [..., classes], what counts [...] and its weight [...]."""
        logits = as_logits(y_pred)
        labels = fit_labels(y_true, logits, self.labels, self.ignore_label, self.soft_labels)
        keep = labels.keep
        if labels.kind == "binary":
            if self.ignore_label is not None and logits.shape[-1] > 1:
                raise InputError("ignore_label with several binary tasks", "ignore_label",
                                 "give sample weights instead")
            keep, p = tf.reduce_all(keep, -1), tf.nn.sigmoid(logits)
        else:
            p = tf.nn.softmax(logits)
        keep = and_mask(keep, y_pred)
        weight = tf.cast(keep, logits.dtype)
        if sample_weight is not None:
            weight *= example_weights(sample_weight, weight)
        return labels, logits, p, keep, weight

    def get_config(self):
        """Every argument of the constructor."""
        statistic = self.statistic
        return {"estimate": statistic.estimate, "momentum": statistic.momentum,
                "average": statistic.average, **super().get_config()}


@register
class SmoothF1Loss(F1Loss):
    """1 − F~, a loss and not a score: the mean over classes (macro) or of all together (micro).

    Optimises: 1 − 2 E[y p] / E[y + p].
    Arguments: estimate "batch" (the expectation is the batch's), "running" (exponential mean with
               ``momentum``; validation batches enter it too) or "full" (set by
               :class:`FullDataF1`): the value is then 1 − the estimate, the gradient the
               article's identity at it; average; labels, ignore_label, name as in LogitsLoss.
    Reference: https://kexue.fm/archives/7708
    Data:      a batch should hold positives of every class, or take "running".
    Accepts:   integer, one-hot and binary labels; logits [..., classes].
    Relations: soft Dice over the batch, ``DiceLoss(over="batch", smooth=0)``, is the same number;
               micro over the classes of single labels is 1 − smooth accuracy;
               :class:`F1WeightedCrossentropy` is the repair of its vanishing gradient.

    >>> float(SmoothF1Loss()([[1], [0]], [[0.0], [0.0]]))      # F~ = 2 · 0.25 / 1
    0.5
    """

    def __init__(self, estimate: str = "batch", momentum: float = 0.99, average: str = "macro",
                 labels: str = "auto", ignore_label: int | None = None, name: str | None = None,
                 reduction: str = "auto"):
        if reduction == keras.losses.Reduction.NONE:
            raise InputError("no loss of single examples", "reduction", "F~ is one of the batch")
        super().__init__(estimate, momentum, average, labels=labels, ignore_label=ignore_label,
                         reduction=reduction, name=name)

    def call(self, y_true, y_pred):
        """The batch's loss (there is none of single examples)."""
        return self(y_true, y_pred)

    def __call__(self, y_true, y_pred, sample_weight=None):
        """1 − F~ of the weighted batch."""
        labels, _, p, _, weight = self._weighed(y_true, y_pred, sample_weight)
        if self.statistic.estimate == "batch":
            loss = 1 - tf.reduce_mean(smooth_f1(*self.statistic.of_batch(labels.y, p, weight)))
        else:
            f1, total = self.statistic.current(labels.y, p, weight)
            slope = tf.math.divide_no_nan(2 / tf.cast(tf.size(total), p.dtype), total)
            if self.statistic.average == "micro":
                slope /= p.shape[-1]
            batch = -tf.reduce_sum(weight[..., None] * slope * (labels.y - f1 / 2) * p)
            batch = tf.math.divide_no_nan(batch, tf.reduce_sum(weight))
            loss = 1 - tf.reduce_mean(f1) + batch - tf.stop_gradient(batch)
        return tf.where(tf.reduce_all(labels.fits), loss, tf.constant(np.nan, loss.dtype))


@register
class F1WeightedCrossentropy(F1Loss):
    """Cross-entropy with weight 1 − F~/2 on positives and F~/2 on negatives, moving with F~.

    Optimises: −[y (1 − F~/2) log p + (1 − y) (F~/2) log(1 − p)], for several classes the mean of
               it over the classes, each against the rest.
    Arguments: estimate, momentum, average as in :class:`SmoothF1Loss`; leading_factor = True
               keeps the 2 / E[y + p] that the article drops (for one class it is a global scale,
               for several it favours the rare ones); the rest as in :class:`LogitsLoss`.
    Reference: https://kexue.fm/archives/7708
    Accepts:   integer, one-hot and binary labels; logits [..., classes].
    Relations: F~ = 1 is half the cross-entropy; F~ = 0 trains on positives only.

    >>> loss = F1WeightedCrossentropy(reduction="none")
    >>> [round(x, 4) for x in loss([[1], [0]], [[0.0], [0.0]]).numpy().tolist()]  # F~ = 0.5
    [0.5199, 0.1733]
    """

    def __init__(self, estimate: str = "batch", momentum: float = 0.99, average: str = "macro",
                 leading_factor: bool = False, **kwargs):
        super().__init__(estimate, momentum, average, **kwargs)
        self.leading_factor = leading_factor

    def call(self, y_true, y_pred):
        """Losses [...], neither weighted nor reduced."""
        return self._values(y_true, y_pred, None)[0]

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The reduced loss; sample weights enter F~ as well."""
        values, keep = self._values(y_true, y_pred, sample_weight)
        return self._reduce(values, keep, sample_weight)

    def _values(self, y_true, y_pred, sample_weight):
        labels, logits, p, keep, weight = self._weighed(y_true, y_pred, sample_weight)
        f1, total = self.statistic.current(labels.y, p, weight)
        if labels.kind == "binary":
            positive, negative = tf.nn.softplus(-logits), tf.nn.softplus(logits)
        else:
            positive, negative = -tf.nn.log_softmax(logits), -closed_forms.log_not_softmax(logits)
        y = labels.y                                                   # [..., classes]
        values = y * (1 - f1 / 2) * positive + (1 - y) * (f1 / 2) * negative
        if self.leading_factor:
            values *= tf.math.divide_no_nan(tf.constant(2, total.dtype), total)
        values = tf.reduce_mean(values, -1)
        fits = tf.reduce_all(labels.fits, -1) if labels.kind == "binary" else labels.fits
        return tf.where(fits, values, tf.constant(np.nan, values.dtype)), keep

    def get_config(self):
        """Every argument of the constructor."""
        return {"leading_factor": self.leading_factor, **super().get_config()}


class FullDataF1(keras.callbacks.Callback):
    """Sets F~ of a loss with estimate="full" from a pass over the data before each epoch.

    loss: :class:`SmoothF1Loss` or :class:`F1WeightedCrossentropy`; x, y: the data (numpy, labels
    as the loss takes them); every: epochs between passes.

    >>> import numpy as np
    >>> from bert_theseus.backend import keras
    >>> x, y = np.eye(4, dtype="float32"), np.array([0, 1, 0, 1])
    >>> loss = F1WeightedCrossentropy(estimate="full")
    >>> model = keras.Sequential([keras.layers.Dense(2, input_shape=(4,))])
    >>> model.compile("sgd", loss)
    >>> _ = model.fit(x, y, callbacks=[FullDataF1(loss, x, y)], verbose=0)
    >>> bool((loss.statistic.value() > 0).all())        # F~ of both classes
    True
    """

    def __init__(self, loss, x, y, batch_size: int = 128, every: int = 1):
        super().__init__()
        if getattr(getattr(loss, "statistic", None), "estimate", None) != "full":
            raise InputError("a loss that keeps no full-data F1", "loss",
                             "give an F1 loss made with estimate='full'")
        self.loss, self.x, self.y = loss, x, y
        self.batch_size, self.every = batch_size, every

    def on_epoch_begin(self, epoch, logs=None):
        """The pass."""
        if epoch % self.every:
            return
        logits = as_logits(self.model.predict(self.x, batch_size=self.batch_size, verbose=0))
        labels, _, p, _, weight = self.loss._weighed(self.y, logits, None)
        self.loss.statistic.set(*(np.asarray(part) for part in
                                  self.loss.statistic.of_batch(labels.y, p, weight)))

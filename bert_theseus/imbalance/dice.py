"""Dice loss, plain and self-adjusting, for comparison with the F1 losses of 7708.

    example form   1 − (2 q y + s) / (q + y + s),     q = (1 − p)^α p
    batch form     1 − (2 E[q y] + s) / (E[q + y] + s)

α = 0 is plain Dice; α = 1 is the self-adjusting form of arXiv 1911.02855, which takes away the
weight of negatives that are right. The batch form with s = 0, α = 0 is 1 − F~ of 7708.
"""

import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.imbalance import closed_forms
from bert_theseus.imbalance.base import register
from bert_theseus.imbalance.f1 import F1Loss, smooth_f1


@register
class DiceLoss(F1Loss):
    """1 − Dice coefficient, of each example and class, or of each class over the batch.

    Optimises: see the module's head; the mean over the classes, each against the rest.
    Arguments: alpha ≥ 0 (0 plain, 1 self-adjusting); smooth s (> 0 in the example form, where it
               keeps negatives from giving no gradient); over = "example" or "batch"; the rest as
               in :class:`LogitsLoss`.
    Reference: https://arxiv.org/abs/1911.02855
    Accepts:   integer, one-hot and binary labels; logits [..., classes].
    Relations: over="batch", smooth=0, alpha=0 is :class:`SmoothF1Loss`.
    Raises:    InputError for a negative alpha, smooth ≤ 0 in the example form.

    >>> round(float(DiceLoss()([[1]], [[0.0]])), 4)            # 1 − (2 · 0.5 + 1) / 2.5
    0.2
    """

    def __init__(self, alpha: float = 0.0, smooth: float = 1.0, over: str = "example", **kwargs):
        super().__init__(**kwargs)
        if over not in ("example", "batch"):
            raise InputError(f"unknown form {over!r}", "over", "use example or batch")
        if alpha < 0 or smooth < 0 or (smooth == 0 and over == "example"):
            raise InputError(f"alpha {alpha}, smooth {smooth}", "alpha, smooth", "both are at "
                             "least 0, and smooth above 0 in the example form")
        if over == "batch" and self.reduction == "none":
            raise InputError("no loss of single examples", "reduction", "use over='example'")
        self.alpha, self.smooth, self.over = alpha, smooth, over

    def call(self, y_true, y_pred):
        """Losses [...], or the batch's in the batch form."""
        if self.over == "batch":
            return self(y_true, y_pred)
        return self._values(*self._weighed(y_true, y_pred, None)[:3])

    def __call__(self, y_true, y_pred, sample_weight=None):
        """The reduced loss."""
        labels, logits, p, keep, weight = self._weighed(y_true, y_pred, sample_weight)
        if self.over == "example":
            return self._reduce(self._values(labels, logits, p), keep, sample_weight)
        product, total = self.statistic.of_batch(labels.y, self._faded(labels, logits, p), weight)
        dice = smooth_f1(product + self.smooth / 2, total + self.smooth)
        loss = 1 - tf.reduce_mean(dice)
        return tf.where(tf.reduce_all(labels.fits), loss, tf.constant(float("nan"), loss.dtype))

    def _values(self, labels, logits, p):
        q = self._faded(labels, logits, p)
        dice = (2 * q * labels.y + self.smooth) / (q + labels.y + self.smooth)
        values = tf.reduce_mean(1 - dice, -1)
        fits = tf.reduce_all(labels.fits, -1) if labels.kind == "binary" else labels.fits
        return tf.where(fits, values, tf.constant(float("nan"), values.dtype))

    def _faded(self, labels, logits, p):
        """q = (1 − p)^α p."""
        if not self.alpha:
            return p
        binary = labels.kind == "binary"
        log_not_p = -tf.nn.softplus(logits) if binary else closed_forms.log_not_softmax(logits)
        return tf.exp(self.alpha * log_not_p) * p

    def get_config(self):
        """Every argument of the constructor."""
        config = super().get_config()
        for unused in ("estimate", "momentum"):
            del config[unused]
        return {"alpha": self.alpha, "smooth": self.smooth, "over": self.over, **config}

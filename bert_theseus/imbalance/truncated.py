"""From hard truncation to focal loss: https://kexue.fm/archives/4733

With x the target's log-odds (binary: x for y = 1, −x for y = 0) and p = sigmoid(x):

    hard truncation   −θ(−x) log σ(x)            examples with p > 0.5 no longer train
    soft truncation   −σ(−Kx) log σ(x)           the step θ made smooth
    focal loss        −(1 − p)^γ log p           the same for K = γ = 1

Done differently: everything is a function of x = z_t − logsumexp of the other logits, so that
integer, one-hot and binary labels share one formula, and (1 − p)^γ is exp(−γ softplus(x)), finite
with finite gradients at any logit and any γ.
"""

import math

import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.imbalance.base import (OddsLoss, finite_vector, number_of_classes, per_class,
                                         register)


@register
class HardTruncatedCrossentropy(OddsLoss):
    """Cross-entropy of the examples that are not yet right; the others cost nothing.

    Optimises: −log p_t where p_t ≤ threshold, else 0 (no gradient).
    Arguments: threshold in (0, 1), the article's is 0.5; the rest as in :class:`LogitsLoss`.
    Reference: https://kexue.fm/archives/4733
    Accepts:   integer, one-hot and binary labels; logits [..., classes].
    Relations: K → ∞ of :class:`SoftTruncatedCrossentropy`. As the article says, nothing keeps p_t
               above the threshold, so that training oscillates around it.
    Raises:    InputError for a threshold outside (0, 1).

    >>> float(HardTruncatedCrossentropy()([0, 1], [[2.0, 0.0], [3.0, 3.0]]))   # first is right
    0.3465735912322998
    """

    def __init__(self, threshold: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        if not 0 < threshold < 1:
            raise InputError(f"threshold {threshold}", "threshold", "it lies between 0 and 1")
        self.threshold = threshold

    def of_odds(self, x):
        """softplus(−x) up to the threshold's log-odds."""
        edge = math.log(self.threshold / (1 - self.threshold))
        return tf.where(x > edge, tf.zeros_like(x), tf.nn.softplus(-x))

    def get_config(self):
        """Every argument of the constructor."""
        return {"threshold": self.threshold, **super().get_config()}


@register
class SoftTruncatedCrossentropy(OddsLoss):
    """Cross-entropy with the truncation made smooth: the article's own loss L**.

    Optimises: binary −σ(−Kx) log σ(x); multi-class −softmax(−K z)_t log softmax(z)_t.
    Arguments: k ≥ 0, the steepness; multiclass = "softmax" (the article's form) or "odds", the
               binary form at the multi-class log-odds; the rest as in :class:`LogitsLoss`.
    Reference: https://kexue.fm/archives/4733
    Accepts:   integer, one-hot and binary labels; logits [..., classes].
    Relations: k = 1 is :class:`FocalCrossentropy` with gamma = 1 for binary labels, for two
               classes, and with multiclass="odds" for any number; the "softmax" form differs from
               it beyond two classes. k → 0 is cross-entropy times 1/2 (times 1/classes in the
               "softmax" form).
    Raises:    InputError for k < 0 or an unknown form.

    >>> float(SoftTruncatedCrossentropy(k=1.0)([[1]], [[0.0]]))        # log(2) / 2
    0.3465735912322998
    """

    def __init__(self, k: float = 1.0, multiclass: str = "softmax", **kwargs):
        super().__init__(**kwargs)
        if not 0 <= k < math.inf:
            raise InputError(f"steepness {k}", "k", "it is a finite number of at least 0")
        if multiclass not in ("softmax", "odds"):
            raise InputError(f"unknown form {multiclass!r}", "multiclass", "use softmax or odds")
        self.k, self.multiclass = k, multiclass

    def of_odds(self, x):
        """σ(−Kx) softplus(−x)."""
        return tf.nn.sigmoid(-self.k * x) * tf.nn.softplus(-x)

    def values(self, labels, logits):
        """The binary form, or softmax(−K z)_t in its place."""
        if labels.kind == "binary" or self.multiclass == "odds":
            return super().values(labels, logits)
        weight = tf.reduce_sum(labels.y * tf.nn.softmax(-self.k * logits), -1)
        return weight * tf.nn.softplus(-self.odds(labels, logits))

    def get_config(self):
        """Every argument of the constructor."""
        return {"k": self.k, "multiclass": self.multiclass, **super().get_config()}


@register
class FocalCrossentropy(OddsLoss):
    """Focal loss: cross-entropy that fades out on examples that are right.

    Optimises: −α_t (1 − p_t)^γ log p_t.
    Arguments: gamma ≥ 0; alpha None, a number (the weight of the positives, 1 − alpha that of the
               negatives; binary only) or one weight a class; the rest as in :class:`LogitsLoss`.
    Reference: https://arxiv.org/abs/1708.02002, derived in https://kexue.fm/archives/4733, which
               advises alpha 0.5 where there is no time for a search (the paper: 0.25, gamma 2).
    Accepts:   integer, one-hot and binary labels; logits [..., classes].
    Relations: gamma = 0 is (weighted) cross-entropy; gamma = 1 is
               :class:`SoftTruncatedCrossentropy` with k = 1.
    Raises:    InputError for a negative gamma or an alpha that does not fit the classes.

    >>> float(FocalCrossentropy(gamma=2.0)([0, 1], [[0.0, 0.0], [0.0, 0.0]]))   # log(2) / 4
    0.1732867956161499
    """

    def __init__(self, gamma: float = 2.0, alpha=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= gamma < math.inf:
            raise InputError(f"gamma {gamma}", "gamma", "it is a finite number of at least 0")
        self.gamma = gamma
        if alpha is None or not hasattr(alpha, "__len__"):
            if alpha is not None and not 0 <= alpha <= 1:
                raise InputError(f"alpha {alpha}", "alpha", "as a number it lies in [0, 1]")
            self.alpha = alpha
        else:
            self.alpha = finite_vector(alpha, "alpha", least=0)

    def of_odds(self, x):
        """(1 − p)^γ = exp(−γ softplus(x)), times softplus(−x)."""
        return tf.exp(-self.gamma * tf.nn.softplus(x)) * tf.nn.softplus(-x)

    def values(self, labels, logits):
        """With alpha of the example's class in front."""
        values = super().values(labels, logits)
        return values if self.alpha is None else values * self._alpha_of(labels, logits)

    def _alpha_of(self, labels, logits):
        if labels.kind != "binary" and not isinstance(self.alpha, list):
            raise InputError("a single alpha for several classes", "alpha",
                             "give one weight a class; a number is for binary labels")
        alpha = self.alpha if isinstance(self.alpha, list) else [1 - self.alpha, self.alpha]
        alpha = per_class(alpha, number_of_classes(labels, logits), "alpha")
        if labels.kind == "binary":
            return alpha[0] + (alpha[1] - alpha[0]) * labels.y
        return tf.linalg.matvec(labels.y, tf.constant(alpha, labels.y.dtype))

    def get_config(self):
        """Every argument of the constructor."""
        return {"gamma": self.gamma, "alpha": self.alpha, **super().get_config()}

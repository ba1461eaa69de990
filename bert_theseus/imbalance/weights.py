"""Weights outside the logarithm, for comparison: plain class weights and the effective number.

    loss = −Σ_y w_y y log p_y

7708 closes with it: ordinary weighting acts outside the logarithm, logit adjustment inside. The
effective number of n examples is (1 − β^n) / (1 − β): between 1 (β = 0) and n (β → 1).
"""

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.imbalance import closed_forms
from bert_theseus.imbalance.base import (CrossentropyLoss, finite_vector, number_of_classes,
                                         per_class, register)


@register
class WeightedCrossentropy(CrossentropyLoss):
    """Cross-entropy with a weight for each class; without weights the plain cross-entropy.

    Optimises: −Σ_y w_y y log p_y, label smoothing included.
    Arguments: class_weights, one a class ([negative, positive] for binary labels) or None; the
               rest as in :class:`CrossentropyLoss`.
    Accepts:   integer, one-hot (also soft) and binary labels; logits [..., classes].
    Relations: w_y = 1 / p(y), see :func:`inverse_frequency_weights`, is the usual cure for
               imbalance; :class:`LogitAdjustedCrossentropy` moves it inside the logarithm.
    Raises:    InputError for weights that are negative or do not fit the classes.

    >>> float(WeightedCrossentropy([1.0, 3.0])([1], [[0.0, 0.0]]))     # 3 log(2)
    2.079441547393799
    """

    def __init__(self, class_weights=None, **kwargs):
        super().__init__(**kwargs)
        self.class_weights = (None if class_weights is None
                              else finite_vector(class_weights, "class_weights", least=0))

    def values(self, labels, logits):
        """Each class's share of the cross-entropy times its weight."""
        if self.class_weights is None:
            return super().values(labels, logits)
        weights = per_class(self.class_weights, number_of_classes(labels, logits), "class_weights")
        y = self.smoothed(labels)
        if labels.kind == "binary":
            return (weights[1] * y * tf.nn.softplus(-logits)
                    + weights[0] * (1 - y) * tf.nn.softplus(logits))
        return closed_forms.crossentropy(y * tf.constant(weights, y.dtype), logits)

    def get_config(self):
        """Every argument of the constructor."""
        return {"class_weights": self.class_weights, **super().get_config()}


@register
class ClassBalancedCrossentropy(WeightedCrossentropy):
    """Cross-entropy weighted by the inverse effective number of each class's examples.

    Optimises: −w_y log p_y with w_y ∝ (1 − β) / (1 − β^{n_y}), scaled to mean 1.
    Arguments: counts n_y ≥ 1, one a class; beta in [0, 1); the rest as in
               :class:`CrossentropyLoss`.
    Reference: https://arxiv.org/abs/1901.05555
    Accepts:   integer, one-hot (also soft) and binary labels; logits [..., classes].
    Relations: beta = 0 is plain cross-entropy, beta → 1 weights 1 / n_y.
    Raises:    InputError for counts below 1 or beta outside [0, 1).

    >>> float(ClassBalancedCrossentropy([9, 9], beta=0.9)([1], [[0.0, 0.0]]))    # equal counts
    0.6931471824645996
    """

    def __init__(self, counts, beta: float = 0.999, **kwargs):
        super().__init__(effective_number_weights(counts, beta), **kwargs)
        self.counts, self.beta = finite_vector(counts, "counts", least=1), beta

    def get_config(self):
        """Every argument of the constructor."""
        config = super().get_config()
        del config["class_weights"]
        return {"counts": self.counts, "beta": self.beta, **config}


def effective_number_weights(counts, beta: float) -> np.ndarray:
    """(1 − β) / (1 − β^n) for each class, scaled to mean 1; accurate for β close to 1.

    >>> effective_number_weights([10, 1000], beta=0.0).tolist()
    [1.0, 1.0]
    """
    counts = np.array(finite_vector(counts, "counts", least=1))
    if not 0 <= beta < 1:
        raise InputError(f"beta {beta}", "beta", "it lies in [0, 1); 1 − 1 / examples is usual")
    weights = 1 / -np.expm1(counts * np.log(beta)) if beta > 0 else np.ones_like(counts)
    return weights / weights.mean()


def inverse_frequency_weights(counts, power: float = 1.0) -> np.ndarray:
    """n_y^−power for each class, scaled so that the mean weight of an example is 1.

    >>> inverse_frequency_weights([30, 10]).round(3).tolist()
    [0.667, 2.0]
    """
    counts = np.array(finite_vector(counts, "counts", least=1))
    weights = counts ** -power
    return weights * counts.sum() / (weights * counts).sum()

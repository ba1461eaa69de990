"""Margins for rare classes, the geometric half of https://kexue.fm/archives/7708

Each sample of class y is to hold a ball of radius r_y around its encoding f. Requiring the worst
target similarity in the ball above the best other one gives, with margins m_i = r_i ‖u_i‖,

    −log [ e^{z_y − m_y} / ( e^{z_y − m_y} + Σ_{i≠y} e^{z_i + m_i} ) ],   z_i = <f, u_i>.

With the same m everywhere and unit vectors it is AM-softmax; with m_y = C n_y^{−1/4} on the
target alone it is LDAM; with m_y = −τ log p(y) the rare classes get the larger balls. Margins
mean nothing where logits may grow without bound (they are outgrown): use normalised features and
``scale``, or weight decay.
"""

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.imbalance.base import (CrossentropyLoss, finite_vector, number_of_classes,
                                         per_class, register)
from bert_theseus.imbalance.priors import checked_prior


@register
class MarginCrossentropy(CrossentropyLoss):
    """Cross-entropy that asks a margin of the target, a larger one of rare classes.

    Optimises: cross-entropy of s (z − m_y on the target [, + m_i on the others]).
    Arguments: margins, a number or one a class ([negative, positive] for binary labels), in
               units of the logits; others = False: the target alone pays (AM-softmax, LDAM),
               True: both sides, the article's ball; scale s > 0 multiplies afterwards; the rest
               as in :class:`CrossentropyLoss`.
    Reference: https://kexue.fm/archives/7708; AM-softmax 1801.05599; LDAM 1906.07413
    Accepts:   integer, one-hot and binary labels; logits [..., classes].
    Relations: zero margins are plain cross-entropy; :func:`prior_margins`, :func:`ldam_margins`
               make the vectors; :class:`LogitAdjustedCrossentropy` is the pairwise margin
               τ log(p(i) / p(y)) between target y and class i.
    Raises:    InputError for margins that do not fit the classes, or scale ≤ 0.

    >>> loss = MarginCrossentropy([0.0, 1.0])
    >>> float(loss([1], [[0.0, 1.0]]))                        # the margin eats the lead
    0.6931471824645996
    """

    def __init__(self, margins=0.0, others: bool = False, scale: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        single = not hasattr(margins, "__len__")
        vector = finite_vector([margins] if single else margins, "margins")
        self.margins = vector[0] if single else vector
        if not 0 < scale < np.inf:
            raise InputError(f"scale {scale}", "scale", "it is a finite number above 0")
        self.others, self.scale = others, scale

    def adjust(self, labels, logits):
        """s (z − m on the target, + m on the others if they pay)."""
        classes = number_of_classes(labels, logits)
        margins = self.margins if isinstance(self.margins, list) else [self.margins] * classes
        margins = per_class(margins, classes, "margins")
        if labels.kind == "binary":      # x = z_1 − z_0: y = 1 pays m_1 (+ m_0), y = 0 pays m_0
            positive = margins[1] + self.others * margins[0]
            negative = margins[0] + self.others * margins[1]
            return self.scale * (logits - labels.y * positive + (1 - labels.y) * negative)
        margins = tf.constant(margins, logits.dtype)
        moved = logits - labels.y * margins
        if self.others:
            moved += (1 - labels.y) * margins
        return self.scale * moved

    def get_config(self):
        """Every argument of the constructor."""
        return {"margins": self.margins, "others": self.others, "scale": self.scale,
                **super().get_config()}


def prior_margins(prior, tau: float = 1.0) -> np.ndarray:
    """The article's choice m_y = −τ log p(y): the rarer, the larger.

    >>> prior_margins([0.5, 0.5]).round(4).tolist()
    [0.6931, 0.6931]
    """
    return -tau * np.log(checked_prior(prior))


def ldam_margins(counts, largest: float = 0.5) -> np.ndarray:
    """LDAM's m_y = C n_y^{−1/4}, scaled so that the rarest class gets ``largest``.

    >>> ldam_margins([16, 1]).tolist()
    [0.25, 0.5]
    """
    margins = np.array(finite_vector(counts, "counts", least=1)) ** -0.25
    return largest * margins / margins.max()

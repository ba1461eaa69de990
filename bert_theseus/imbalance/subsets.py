"""Softmax over all subsets of k classes, the first half of https://kexue.fm/archives/7359

    loss = log Z_k − Σ_{targets} s_i,     Z_k = Σ_{|S| = k} Π_{i∈S} e^{s_i}

Z_k is the elementary symmetric polynomial of e^{s_i}. Up to k labels, a padding class of score 0
fills up: Z̄_k = Σ_{j≤k} Z_j. Done differently: the article computes Z_k by Newton's identities,
whose alternating signs cancel catastrophically; here Z_k is the k-th coefficient of
Π (1 + t e^{s_i}), multiplied out pairwise in log space: only additions of positive numbers,
log₂(classes) steps.
"""

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.imbalance.base import LogitsLoss, register

NEVER = -1e30          # log of an impossible term: far below any logit, yet finite


@register
class SubsetCrossentropy(LogitsLoss):
    """Cross-entropy over all subsets of k classes (or of at most k).

    Optimises: log Z_k − Σ targets; at_most: log Z̄_k − Σ targets.
    Arguments: k, the number of labels an example has; at_most = True where it may have fewer;
               reduction, name.
    Reference: https://kexue.fm/archives/7359
    Accepts:   labels [..., classes] of 0 and 1 with k (at most k) ones, logits of the same shape.
    Relations: k = 1 is softmax cross-entropy; :class:`MultilabelCrossentropy` needs no k and costs
               less (this one: classes · k² / 2).
    Raises:    InputError for k outside 1 … classes or rows with another number of ones.

    >>> loss = SubsetCrossentropy(k=2)
    >>> round(float(loss([[1, 1, 0]], [[0.0, 0.0, 0.0]])), 5)      # log 3: three subsets of two
    1.09861
    """

    soft_labels = False

    def __init__(self, k: int, at_most: bool = False, reduction: str = "auto",
                 name: str | None = None):
        super().__init__("binary", None, reduction, name)
        if k < 1:
            raise InputError(f"subsets of {k} classes", "k", "it is at least 1")
        self.k, self.at_most = int(k), at_most

    def _per_example(self, labels, logits):
        if self.k > logits.shape[-1]:
            raise InputError(f"subsets of {self.k} among {logits.shape[-1]} classes", "k",
                             "it is at most the number of classes")
        count = tf.reduce_sum(labels.y, -1)
        fits = (count <= self.k) if self.at_most else tf.equal(count, self.k)
        if tf.executing_eagerly() and not bool(tf.reduce_all(fits)):
            where = np.argwhere(~fits.numpy())[0]
            raise InputError(f"{int(count.numpy()[tuple(where)])} labels",
                             f"y_true{where.tolist()}",
                             f"each row has {'at most ' * self.at_most}{self.k} ones")
        log_z = log_symmetric_polynomials(logits, self.k)
        log_z = tf.reduce_logsumexp(log_z, -1) if self.at_most else log_z[..., self.k]
        values = log_z - tf.reduce_sum(tf.math.multiply_no_nan(logits, labels.y), -1)
        fits &= tf.reduce_all(labels.fits, -1)
        return tf.where(fits, values, tf.constant(np.nan, values.dtype)), tf.ones_like(fits)

    def get_config(self):
        """Every argument of the constructor."""
        config = super().get_config()
        del config["labels"], config["ignore_label"]
        return {"k": self.k, "at_most": self.at_most, **config}


def log_symmetric_polynomials(scores: tf.Tensor, k: int) -> tf.Tensor:
    """log Z_0 … log Z_k of e^scores: [..., classes] → [..., k + 1].

    >>> import numpy as np
    >>> np.exp(log_symmetric_polynomials(tf.zeros([4]), 4)).round(3).tolist()    # binomials
    [1.0, 4.0, 6.0, 4.0, 1.0]
    """
    # one factor 1 + t e^s a class: coefficients [..., factors, 2]
    factors = tf.stack([tf.zeros_like(scores), scores], -1)
    while factors.shape[-2] > 1:
        if factors.shape[-2] % 2:
            one = tf.concat([tf.zeros_like(factors[..., :1, :1]),
                             tf.fill(tf.shape(factors[..., :1, 1:]),
                                     tf.constant(NEVER, scores.dtype))], -1)
            factors = tf.concat([factors, one], -2)
        factors = _product(factors[..., ::2, :], factors[..., 1::2, :], k)
    result = factors[..., 0, :]
    missing = k + 1 - result.shape[-1]
    return tf.concat([result] + missing * [tf.fill(tf.shape(result[..., :1]), tf.constant(
        NEVER, scores.dtype))], -1)


def _product(a, b, k: int):
    """Coefficients 0 … k of the product of two polynomials, all in log space."""
    degrees = min(a.shape[-1] + b.shape[-1] - 2, k)
    terms = []
    for degree in range(degrees + 1):
        low, high = max(0, degree - b.shape[-1] + 1), min(degree, a.shape[-1] - 1)
        pairs = a[..., low:high + 1] + tf.reverse(b[..., degree - high:degree - low + 1], [-1])
        terms.append(tf.reduce_logsumexp(pairs, -1))
    return tf.stack(terms, -1)

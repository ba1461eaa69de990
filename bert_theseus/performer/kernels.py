"""Feature maps φ and ϕ with sim(q, k) = φ(q)·ϕ(k): FAVOR+ and its alternatives.

    favor           e^{ω·x − |x|²/2}                      positive random features (7921)
    trigonometric   e^{|x|²/2} [cos ω·x, sin ω·x]         the real part of the Fourier form (7921)
    relu            relu(ω·x) + 10⁻³                      the paper's generalised attention
    elu             elu(x) + 1                            Linear Transformer (7546)
    one_plus_cos    [1, x/|x|]: sim = 1 + cos(q, k)       the article's own form (7546)
    double_softmax  softmax over features of q, over length of k (7546; arXiv 1812.01243)

A feature is kept as ``factor · e^log``. Exponents of keys are lowered by a *shift* per feature,
the same for all keys of a row, and the shift is given back inside the exponents of the query.
Every shift cancels in the ratio; with the largest exponent as shift the largest feature of the
query meets a normaliser of at least 1, so that nothing overflows and nothing divides by zero,
whatever the norms. Usual code shifts by one number for all features and adds a small constant.

Queries of ``favor`` pass through a softmax over their features: −|q|²/2 and every other constant
of a row cancel in the ratio, and the softmax is the fastest stable exponential there is.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

MASKED = -1e9      # exponent of a padded key; below every exponent of norms up to 1e4
_TINY = 1e-3       # arXiv 2009.14794, generalised attention: keeps a row of zeros divisible


class Features(NamedTuple):
    """``factor · e^log`` on [..., length, features]; None where a kernel has no such part."""

    log: tf.Tensor | None
    factor: tf.Tensor | None


class Kernel(NamedTuple):
    """A feature map and what may be done with it.

    query, key:  (x [..., length, head_size], projection [m, head_size], scale, mask) → Features;
                 ``mask`` [..., length, 1] is 1 for real positions, and only keys look at it.
    random:      needs a projection. softmax: approximates exact softmax attention.
    signed:      similarities may be negative or cancel, so that the normaliser is bounded away
                 from 0. per_feature: each feature is normalised over the length by itself.
    size:        (num_features, head_size) → number of features.
    """

    query: Callable
    key: Callable
    size: Callable
    random: bool = False
    softmax: bool = False
    signed: bool = False
    per_feature: bool = False


def _project(x, projection):
    """[..., n, d] × [m, d] → [..., n, m] as one plain matrix product."""
    flat = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), projection, transpose_b=True)
    return tf.reshape(flat, tf.concat([tf.shape(x)[:-1], [tf.shape(projection)[0]]], 0))


def _half_square(x, scale):
    return 0.5 * scale**2 * tf.reduce_sum(tf.square(x), axis=-1, keepdims=True)  # [..., n, 1]


def _favor_query(x, projection, scale, mask=None):
    return Features(_project(x, projection * scale), None)


def _favor_key(x, projection, scale, mask):
    # −|x|²/2 and the mask ride along as one more input dimension: one product, no further pass
    bias = tf.where(mask > 0, -_half_square(x, scale), MASKED)                   # [..., n, 1]
    weights = tf.concat([projection * scale, tf.ones_like(projection[:, :1])], axis=1)
    return Features(_project(tf.concat([x, bias], axis=-1), weights), None)


def _waves(x, projection, scale):
    angles = _project(x, projection * scale)
    return tf.concat([tf.cos(angles), tf.sin(angles)], axis=-1)                  # [..., n, 2m]


def _trigonometric_query(x, projection, scale, mask=None):
    return Features(None, _waves(x, projection, scale))


def _trigonometric_key(x, projection, scale, mask):
    log = tf.where(mask > 0, _half_square(x, scale), MASKED)
    return Features(log, _waves(x, projection, scale))


def _relu(x, projection, scale, mask=None):
    return Features(None, tf.nn.relu(_project(x, projection * scale)) + _TINY)


def _elu(x, projection, scale, mask=None):
    return Features(None, tf.nn.elu(x) + 1)


def _one_plus_cos(x, projection, scale, mask=None):
    direction = tf.nn.l2_normalize(x, axis=-1, epsilon=1e-12)
    return Features(None, tf.concat([tf.ones_like(x[..., :1]), direction], axis=-1))


def _softmax_query(x, projection, scale, mask=None):
    return Features(None, tf.nn.softmax(x, axis=-1))


def _softmax_key(x, projection, scale, mask):
    return Features(tf.where(mask > 0, x, MASKED), None)


def _m(m, d):
    return m


def _d(m, d):
    return d


KERNELS: dict[str, Kernel] = {
    "favor": Kernel(_favor_query, _favor_key, _m, random=True, softmax=True),
    "trigonometric": Kernel(_trigonometric_query, _trigonometric_key, lambda m, d: 2 * m,
                            random=True, softmax=True, signed=True),
    "relu": Kernel(_relu, _relu, _m, random=True),
    "elu": Kernel(_elu, _elu, _d),
    "one_plus_cos": Kernel(_one_plus_cos, _one_plus_cos, lambda m, d: d + 1, signed=True),
    "double_softmax": Kernel(_softmax_query, _softmax_key, _d, per_feature=True),
}

"""bert4keras' layers with the same weights and values, in fewer passes over memory.

A small model on a CPU spends half of a step outside of its matrix products, in element by
element operations that TensorFlow runs one after the other, each reading and writing the whole
tensor. What is done about it, beside bert4keras:

    attention    two batched products on [batch, heads, length, ·] instead of two einsums; the
                 scale goes to the queries, and padding adds −∞ by one broadcast sum
    gelu         x Φ(x), by erf as ever, compiled into one loop for the value and one for the
                 derivative Φ(x) + x φ(x); without a compiler the same formulas, step by step
    Norm         the closed gradient r (g − mean g − x̂ mean(g x̂)), g = γ dy, instead of one that
                 walks back through each operation

Whatever a layer is asked beyond that (dropout, relative positions, gates, conditions) goes to
bert4keras' own code.
"""

import logging
import math
from functools import cache

import numpy as np
import tensorflow as tf

import bert_theseus.backend  # noqa: F401  (repairs bert4keras before it is imported)
from bert4keras.backend import gelu_erf
from bert4keras.layers import FeedForward, LayerNormalization, MultiHeadAttention

log = logging.getLogger(__name__)


class LeanAttention(MultiHeadAttention):
    """``MultiHeadAttention``: softmax(q kᵀ / √d + mask) v, heads first."""

    def pay_attention_to(self, inputs, mask=None, **kwargs):
        """o [batch, length, heads, head size] and the masked scores."""
        if (kwargs.get("p_bias") or self.attention_dropout or self.return_attention_scores
                or self.normalization != "softmax"):
            return super().pay_attention_to(inputs, mask, **kwargs)
        q, k, v = (tf.transpose(x, [0, 2, 1, 3]) for x in inputs[:3])  # [batch, heads, length, ·]
        if self.attention_scale:
            q = q * self.key_size ** -0.5
        scores = tf.matmul(q, k, transpose_b=True)  # [batch, heads, length, length]
        for offset in _offsets(mask[1], inputs[3] if kwargs.get("a_bias") else None, q.dtype):
            scores += offset
        o = tf.matmul(tf.nn.softmax(scores), v)
        return tf.transpose(o, [0, 2, 1, 3]), scores


def _offsets(padding, bias, dtype) -> list[tf.Tensor]:
    """What the scores get added: [batch, 1, 1, length] and [length, length] or [batch, 1, …]."""
    offsets = [] if padding is None else [_minus_infinity(padding, dtype)[:, None, None]]
    if bias is not None:
        bias = _minus_infinity(bias, dtype) if bias.dtype == tf.bool else bias
        offsets.append(bias[:, None] if len(bias.shape) == 3 else bias)
    return offsets


def _minus_infinity(kept, dtype):
    return tf.where(tf.cast(kept, tf.bool), tf.zeros([], dtype), tf.constant(-np.inf, dtype))


class LeanFeedForward(FeedForward):
    """``FeedForward`` with :func:`gelu` where it has gelu by erf."""

    def __init__(self, units, activation="relu", **kwargs):
        super().__init__(units, activation, **kwargs)
        self.activation = [gelu if one is gelu_erf else one for one in self.activation]


@tf.custom_gradient
def gelu(x):
    """x Φ(x), Φ the distribution of N(0, 1): what bert4keras calls "gelu".

    Compiled for [batch, length, ·], sizes that come again; positions picked from a batch,
    [chosen, ·], are another number at each step, and each would be compiled anew.

    >>> [f"{y:.4f}" for y in gelu(tf.constant([-1.0, 0.0, 1.0])).numpy()]
    ['-0.1587', '0.0000', '0.8413']
    """
    value, derivative = _loops(len(x.shape) == 3 and can_compile())
    return value(x), lambda dy: derivative(x, dy)


@cache
def _loops(compiled: bool) -> tuple:
    def below(x):
        return 0.5 + 0.5 * tf.math.erf(x * math.sqrt(0.5))  # Φ(x)

    def slope(x, dy):
        density = tf.exp(-0.5 * tf.square(x)) / math.sqrt(2 * math.pi)
        return dy * (below(x) + x * density)

    return (tf.function(lambda x: x * below(x), jit_compile=compiled, reduce_retracing=True),
            tf.function(slope, jit_compile=compiled, reduce_retracing=True))


@cache
def can_compile() -> bool:
    """Whether TensorFlow compiles functions (XLA) here; on a GPU it is not asked to, since there
    a compiler needs files of CUDA's that are often missing."""
    if tf.config.list_physical_devices("GPU"):
        return False
    try:
        with tf.init_scope():
            tf.function(tf.math.erf, jit_compile=True)(tf.zeros([1]))
    except (tf.errors.OpError, ValueError) as error:
        log.warning("gelu runs uncompiled, a few per cent slower: %s", str(error)[:200])
        return False
    return True


class LeanNorm(LayerNormalization):
    """``LayerNormalization`` over the last axis: γ (x − mean) / √(variance + ε) + β."""

    def call(self, inputs):
        """[…, hidden] → […, hidden]."""
        if (self.conditional or not (self.zero_mean and self.unit_variance)
                or self.scale is not True or self.offset is not True):
            return super().call(inputs)
        return _norm(inputs, tf.identity(self.gamma), tf.identity(self.beta),
                     tf.constant(self.epsilon, inputs.dtype))


@tf.custom_gradient
def _norm(x, gamma, beta, epsilon):
    x = x - tf.reduce_mean(x, -1, keepdims=True)
    r = tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + epsilon)
    x = x * r

    def gradient(dy):
        g, all_but_last = dy * gamma, list(range(len(x.shape) - 1))
        dx = r * (g - tf.reduce_mean(g, -1, keepdims=True)
                  - x * tf.reduce_mean(g * x, -1, keepdims=True))
        return dx, tf.reduce_sum(dy * x, all_but_last), tf.reduce_sum(dy, all_but_last), None

    return x * gamma + beta, gradient


LEAN = {MultiHeadAttention: LeanAttention, FeedForward: LeanFeedForward,
        LayerNormalization: LeanNorm}


@cache
def lean(model: type) -> type:
    """The same bert4keras model (BERT, NEZHA, …) with the layers of this file.

    >>> from bert4keras.models import BERT
    >>> bert = lean(BERT)(vocab_size=5, hidden_size=4, num_hidden_layers=1, max_position=8,
    ...                   num_attention_heads=1, intermediate_size=8, hidden_act="gelu")
    >>> bert.build()
    >>> bert.layers["Embedding-Norm"].__class__.__name__
    'LeanNorm'
    """
    class Lean(model):
        def apply(self, inputs=None, layer=None, arguments=None, **kwargs):
            if not self.residual_attention_scores:
                layer = LEAN.get(layer, layer)
            return super().apply(inputs, layer, arguments, **kwargs)

    return Lean

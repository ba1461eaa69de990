"""What a transformer block costs with exact and with linear attention: counted and measured.

    exact:   n · (12 H² + 2 n H)  multiply-adds forward, H hidden size, n length
    linear:  n · (12 H² + 4 m H)  with m features; backward is twice forward

The article (7921) estimates that linear attention pays from a length of about 5000. Counting gives
n = 2 m; what a machine says is for the clock, whole block, forward and backward.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from bert4keras.layers import FeedForward, LayerNormalization, MultiHeadAttention

from bert_theseus.backend import K, keras
from bert_theseus.performer.layer import PerformerAttention


def multiply_adds(length: int, hidden: int, num_features: int | None, block: bool = True) -> int:
    """Multiply-adds of one forward pass; ``num_features`` None is exact attention.

    block: with the four projections and the feed-forward layer (12 H² a position), or only the
           attention between them.

    >>> multiply_adds(512, 768, 256) == multiply_adds(512, 768, None)      # at n = 2 m
    True
    """
    pairs = 2 * length if num_features is None else 4 * num_features
    return length * hidden * (pairs + (12 * hidden if block else 0))


def encoder_block(hidden: int, num_features: int | None, head_size: int = 64, **options):
    """A BERT block on [batch, length, hidden] and a mask [batch, length]; None: exact attention.

    >>> block = encoder_block(32, num_features=16, head_size=8)
    >>> block([tf.ones([1, 5, 32]), tf.ones([1, 5])]).shape
    TensorShape([1, 5, 32])
    """
    x_in, mask_in = keras.Input((None, hidden)), keras.Input((None,))
    size = dict(heads=hidden // head_size, head_size=head_size)
    attention = (MultiHeadAttention(**size) if num_features is None
                 else PerformerAttention(num_features=num_features, **size, **options))
    mask = keras.layers.Lambda(lambda x: K.cast(x, "bool"))(mask_in)
    x = attention([x_in, x_in, x_in], mask=[mask, mask, mask])
    x = LayerNormalization()(keras.layers.Add()([x_in, x]))
    y = FeedForward(units=4 * hidden, activation="gelu")(x)
    return keras.Model([x_in, mask_in], LayerNormalization()(keras.layers.Add()([x, y])))


def attention_only(hidden: int, num_features: int | None, head_size: int = 64, **options):
    """What lies between the projections: (x [b, n, hidden], mask) → [b, n, heads, head_size]."""
    size = dict(heads=hidden // head_size, head_size=head_size)
    layer = (MultiHeadAttention(**size) if num_features is None
             else PerformerAttention(num_features=num_features, **size, **options))
    layer.build([(None, None, hidden)] * 3)

    def run(inputs):
        x, mask = inputs
        heads = tf.reshape(x, [tf.shape(x)[0], -1, hidden // head_size, head_size])
        return layer.pay_attention_to([heads] * 3, [None, tf.cast(mask, tf.bool)])[0]
    return run


def step(model, hidden: int, backward: bool = True) -> Callable[[int], object]:
    """length → a compiled call on random input of one sequence; traced once for all lengths.

    backward: with the gradients of all weights and of the input.
    """
    @tf.function(input_signature=[tf.TensorSpec([1, None, hidden])])
    def run(x):
        """Hands back sums alone, so that no gradient has to be copied out."""
        inputs = [x, tf.ones(tf.shape(x)[:2])]
        if not backward:
            return tf.reduce_sum(model(inputs))
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(model(inputs)**2)
        weights = getattr(model, "trainable_weights", [])
        return [tf.reduce_sum(g) for g in tape.gradient(loss, [x, *weights])]

    def call(length):
        """A run on random input of this length, which is drawn now."""
        x = tf.random.stateless_normal([1, length, hidden], seed=[0, length])
        return lambda: [y.numpy() for y in tf.nest.flatten(run(x))]
    return call


def seconds(runs: Sequence[Callable], repeats: int = 5, limit: float = 4.0) -> list[float]:
    """Median time of each run, all run in turn; fewer repeats once ``limit`` seconds are spent."""
    for run in runs:
        run()                                   # traces, and warms up
    times, start = [[] for _ in runs], time.perf_counter()
    for _ in range(repeats):
        for run, taken in zip(runs, times):
            before = time.perf_counter()
            run()
            taken.append(time.perf_counter() - before)
        if time.perf_counter() - start > limit:
            break
    return [float(np.median(taken)) for taken in times]


def crossover(lengths: Sequence[int], linear: Sequence[float], exact: Sequence[float]):
    """The length from which linear is faster for good, between two lengths by logarithms.

    None where it never is; the first length where it always is.

    >>> round(crossover([128, 256, 512], linear=[2, 2, 2], exact=[1, 2, 4]), 6)
    256.0
    """
    gain = np.log(np.asarray(exact, float) / np.asarray(linear, float))
    slower = np.flatnonzero(gain < 0)
    if len(slower) == 0:
        return float(lengths[0])
    last = slower[-1]
    if last + 1 == len(lengths):
        return None
    share = gain[last] / (gain[last] - gain[last + 1])
    low, high = np.log(lengths[last]), np.log(lengths[last + 1])
    return float(np.exp(low + share * (high - low)))


def growth(lengths: Sequence[int], times: Sequence[float]) -> float:
    """Slope of log time over log length: 1 is linear, 2 quadratic.

    >>> round(growth([10, 100, 1000], [2, 20, 200]), 6)
    1.0
    """
    return float(np.polyfit(np.log(lengths), np.log(times), 1)[0])

"""Σ_j ϕ(k_j) [v_j, 1] in every order attention asks for, and its reading by a query.

    all keys:   S = ϕ(K)ᵀ [V, 1],            output_i = φ(q_i)ᵀ S, divided by its last column
    a prefix:   S_i = S_{i−1} + ϕ(k_i) [v_i, 1]
                in chunks: what lies before the chunk through S, what lies inside it as a small
                triangle of pairs, so that time and memory grow linearly with the length
    one key:    the same with a chunk of one, for generation

The article's causal form keeps an S for every position (length · m · d numbers); here there is
one per chunk. The mask multiplies the columns [v_j, 1], which is masking the key *features* in
numerator and normaliser at once, at the price of the small tensor. Padded outputs of other codes
shrink because they mask v_j only.

All tensors are [..., length, size]; shifts (see kernels.py) are [..., 1, features].
"""

from typing import NamedTuple

import tensorflow as tf

from bert_theseus.performer.kernels import MASKED, Features, Kernel

_FLOOR = -60.0          # inside a chunk all rows share one shift; e^−60 is the least a key weighs
_LEAST_SHIFT = MASKED / 10      # so that a row without any key gives e^{MASKED − shift} = 0
_LEAST_NORMALISER = 1e-6        # for kernels whose similarities can cancel


class State(NamedTuple):
    """What is known of all keys seen so far; its size does not depend on their number.

    sums:  [..., features, head_size + 1], Σ_j ϕ(k_j) [v_j, 1] times e^−shift
    shift: [..., 1, features or 1], or None for a kernel without exponents
    """

    sums: tf.Tensor
    shift: tf.Tensor | None


class Keys(NamedTuple):
    """Keys ready to be summed: features, values [v, 1] · mask, angles for rotary positions."""

    features: Features
    columns: tf.Tensor                      # [..., length, head_size + 1]
    angles: tuple | None = None


def absorb(keys: Keys, state: State | None = None) -> State:
    """The state after ``keys``, all of which may be seen together."""
    shift = _largest(keys)
    if state is None or shift is None:
        sums = _sum(expand_key(keys.features, shift), keys.columns, keys.angles)
        return State(sums if state is None else state.sums + sums, shift)
    shift = tf.maximum(state.shift, shift)
    sums = _sum(expand_key(keys.features, shift), keys.columns, keys.angles)
    return State(_decay(state.shift, shift) * state.sums + sums, shift)


def read(state: State, query: Features, kernel: Kernel, angles: tuple | None = None) -> tf.Tensor:
    """[..., length, head_size]: each query's weighted mean of the values in ``state``."""
    if kernel.per_feature:
        means = tf.math.divide_no_nan(state.sums[..., :-1], state.sums[..., -1:])
        return tf.matmul(query.factor, means)
    return divide(_weigh(expand_query(query, state.shift), state.sums, angles), kernel)


def read_prefixes(query: Features, keys: Keys, kernel: Kernel, state: State | None = None,
                  query_angles: tuple | None = None) -> tf.Tensor:
    """Causal attention on chunks [..., chunks, chunk length, size], after the keys of ``state``."""
    shift = _running(_largest(keys), state)
    features = expand_key(keys.features, shift, _FLOOR)
    queries = expand_query(query, shift)
    before = _exclusive(_sum(features, keys.columns, keys.angles), shift, state)
    inside = _triangle(queries, features, keys, query_angles)
    return divide(_weigh(queries, before, query_angles) + inside, kernel)


def divide(weighted: tf.Tensor, kernel: Kernel) -> tf.Tensor:
    """[..., d + 1] → [..., d]: values over normaliser; no key at all gives zeros."""
    values, normaliser = weighted[..., :-1], weighted[..., -1:]
    if kernel.signed:
        least = tf.where(normaliser < 0, -_LEAST_NORMALISER, _LEAST_NORMALISER)
        normaliser = tf.where(tf.abs(normaliser) < _LEAST_NORMALISER,
                              tf.cast(least, normaliser.dtype), normaliser)
    return tf.math.divide_no_nan(values, normaliser)


def expand_key(features: Features, shift: tf.Tensor | None, floor: float | None = None):
    """factor · e^{log − shift} of keys."""
    if features.log is None:
        return features.factor
    exponent = features.log - shift
    if floor is not None:
        exponent = tf.maximum(exponent, floor)
    exponential = tf.exp(exponent)
    return exponential if features.factor is None else exponential * features.factor


def expand_query(features: Features, shift: tf.Tensor | None):
    """Features of queries, up to a constant per row; the shift of the keys is given back."""
    if features.log is None:
        return features.factor
    return tf.nn.softmax(features.log + shift, axis=-1)


def rotate(features: tf.Tensor, angles: tuple | None) -> tf.Tensor:
    """Turns each pair of features (2i, 2i + 1) by its position's angle; ``angles``: (cos, sin)."""
    if angles is None:
        return features
    cos, sin = angles
    turned = tf.stack([-features[..., 1::2], features[..., ::2]], axis=-1)
    return features * cos + tf.reshape(turned, tf.shape(features)) * sin


def _largest(keys: Keys):
    """The largest exponent of each feature over the keys; pairs that rotate together share it."""
    if keys.features.log is None:
        return None
    shift = tf.reduce_max(tf.stop_gradient(keys.features.log), axis=-2, keepdims=True)
    if keys.angles is not None and keys.features.factor is None:
        pairs = tf.reshape(shift, tf.concat([tf.shape(shift)[:-1], [-1, 2]], 0))
        shift = tf.repeat(tf.reduce_max(pairs, axis=-1), 2, axis=-1)
    return tf.maximum(shift, tf.cast(_LEAST_SHIFT, shift.dtype))


def _running(shift, state: State | None):
    """The shift up to and with each chunk: log-sum-exp is a running maximum, log(chunks) off."""
    if shift is None:
        return None
    if state is not None:
        first = tf.maximum(shift[..., :1, :, :], tf.expand_dims(state.shift, -3))
        shift = tf.concat([first, shift[..., 1:, :, :]], axis=-3)
    return tf.math.cumulative_logsumexp(shift, axis=-3)


def _sum(features, columns, angles):
    """[..., n, m] and [..., n, d + 1] → [..., m, d + 1]; only the values see the rotation."""
    if angles is None:
        return tf.matmul(features, columns, transpose_a=True)
    return tf.concat([tf.matmul(rotate(features, angles), columns[..., :-1], transpose_a=True),
                      tf.matmul(features, columns[..., -1:], transpose_a=True)], axis=-1)


def _weigh(queries, sums, angles):
    """[..., n, m] and [..., m, d + 1] → [..., n, d + 1]."""
    if angles is None:
        return tf.matmul(queries, sums)
    return tf.concat([tf.matmul(rotate(queries, angles), sums[..., :-1]),
                      tf.matmul(queries, sums[..., -1:])], axis=-1)


def _triangle(queries, features, keys: Keys, query_angles):
    """Pairs inside a chunk, each query with the keys up to its own position."""
    def pairs(q, k):
        return tf.linalg.band_part(tf.matmul(q, k, transpose_b=True), -1, 0)
    if query_angles is None:
        return tf.matmul(pairs(queries, features), keys.columns)
    turned = pairs(rotate(queries, query_angles), rotate(features, keys.angles))
    return tf.concat([tf.matmul(turned, keys.columns[..., :-1]),
                      tf.matmul(pairs(queries, features), keys.columns[..., -1:])], axis=-1)


def _exclusive(sums, shift, state: State | None):
    """The state before each chunk, in its shift: S_c = decay_c · (S_{c−1} + sums_{c−1})."""
    start = tf.zeros_like(sums[..., 0, :, :]) if state is None else state.sums
    if shift is None:
        return tf.cumsum(sums, axis=-3, exclusive=True) + tf.expand_dims(start, -3)
    first = shift[..., 0, :, :] if state is None else state.shift
    earlier = tf.concat([tf.expand_dims(first, -3), shift[..., :-1, :, :]], axis=-3)
    decay = _chunks_first(_decay(earlier, shift))
    added = _chunks_first(tf.concat([tf.expand_dims(start, -3), sums[..., :-1, :, :]], axis=-3))
    states = tf.scan(lambda total, x: x[0] * (total + x[1]), (decay, added),
                     initializer=tf.zeros_like(start))
    return _chunks_last(states)


def _decay(old, new):
    """[..., 1, m] → [..., m, 1]: what a sum in the old shift is worth in the new one."""
    return tf.linalg.matrix_transpose(tf.exp(old - new))


def _chunks_first(x):
    return tf.transpose(x, [2, 0, 1, 3, 4])


def _chunks_last(x):
    return tf.transpose(x, [1, 2, 0, 3, 4])

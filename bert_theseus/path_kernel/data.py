"""Training examples and queries as arrays, checked against the model, and the order of batches.

>>> [batch.tolist() for batch in batches(5, epochs=1, batch_size=2, shuffle=False, seed=0)]
[[0, 1], [2, 3], [4]]
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError


def as_inputs(x, model: keras.Model, where: str):
    """``x`` (an array, or a list, tuple or dict of arrays) in the model's dtypes.

    Raises :class:`InputError` if the arrays' number, shapes or lengths do not fit the model.
    """
    arrays = tf.nest.map_structure(np.asarray, x if isinstance(x, (list, tuple, dict))
                                   and _many(model, x) else np.asarray(x))
    flat, wanted = tf.nest.flatten(arrays), _wanted(model, arrays, where)
    if len(flat) != len(wanted):
        raise InputError(f"{len(flat)} arrays for a model with {len(wanted)} inputs", where,
                         "give one array for every input")
    if len({len(a) if a.ndim else 0 for a in flat}) != 1 or not flat[0].ndim or not len(flat[0]):
        raise InputError("arrays are empty or of different lengths", where,
                         "give every input the same number of rows, at least one")
    cast = [_fitting(a, symbol, where) for a, symbol in zip(flat, wanted)]
    return tf.nest.pack_sequence_as(arrays, cast)


def _many(model, x):
    return isinstance(x, dict) or len(model.inputs or x) > 1


def _wanted(model, arrays, where):
    if not model.inputs:                                     # a subclassed model: its call knows
        return [None] * len(tf.nest.flatten(arrays))
    if isinstance(arrays, dict):
        symbols = dict(zip(model.input_names, model.inputs))
        if set(arrays) != set(symbols):
            raise InputError(f"inputs {sorted(arrays)} for a model with inputs {sorted(symbols)}",
                             where, "give one array for every input, by its name")
        return [symbols[name] for name in sorted(arrays)]
    return model.inputs


def _fitting(array, symbol, where):
    if symbol is None:
        return array
    shape = tuple(symbol.shape)
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape[1:], array.shape[1:]))
    if not fits:
        raise InputError(f"shape {array.shape} does not fit the model's input {shape}", where,
                         "reshape it, one row an example")
    return array.astype(symbol.dtype.as_numpy_dtype)


def take(x, index):
    """Rows of a nest of arrays."""
    return tf.nest.map_structure(lambda array: array[index], x)


def length(x) -> int:
    """Number of rows of a nest of arrays."""
    return len(tf.nest.flatten(x)[0])


def batches(count: int, epochs: int, batch_size: int | None, shuffle: bool,
            seed: int) -> Iterator[np.ndarray]:
    """Indices of one batch after another; ``batch_size`` None is the full batch, in order.

    The order of an epoch depends on ``seed`` and the epoch alone.
    """
    size = batch_size or count
    for epoch in range(epochs):
        order = np.arange(count)
        if shuffle and size < count:
            np.random.default_rng((seed, epoch)).shuffle(order)
        yield from (order[start:start + size] for start in range(0, count, size))


def chunks(index: np.ndarray, size: int) -> list[np.ndarray]:
    """``index`` in pieces of at most ``size``, as even as can be.

    >>> [len(piece) for piece in chunks(np.arange(5), 4)]
    [3, 2]
    """
    return np.array_split(index, -(-len(index) // max(1, size)))

"""Watching a model's forward pass: what enters a layer, what leaves it, and fixed dropout masks.

For a dense layer z = h W + b the gradient of one example is h ⊗ ∂f/∂z, summed over positions:
two short vectors in place of a matrix. Keras does not show h and z, so for the length of one
trace the layers' ``call`` is replaced by one that notes them down.

Dropout is drawn in Keras from a global stream, so that the same example gets another mask in
another chunk. Here a mask is a hash of (seed of the example at this step, number of the dropout
call, element): whatever the chunk, the method of differentiation or a second visit to the step,
the mask is the same.

>>> layer = keras.layers.Dense(2); _ = layer.build((None, 3))
>>> with recorded([layer], seeds=None) as calls:
...     z = layer(tf.ones([1, 3]))
>>> calls[0].inputs.shape, bool(tf.reduce_all(calls[0].outputs == z))
(TensorShape([1, 3]), True)
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import bert4keras.layers
import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras


@dataclass(frozen=True)
class Call:
    """One call of a layer: its inputs, and its outputs before the activation."""

    layer: keras.layers.Layer
    inputs: tf.Tensor
    outputs: tf.Tensor


@contextlib.contextmanager
def recorded(layers: Sequence[keras.layers.Layer],
             seeds: tf.Tensor | None) -> Iterator[list[Call]]:
    """Within it, calls of ``layers`` are noted and dropout masks come from ``seeds`` [batch].

    The list that is yielded fills in the order of the calls. Everything is put back on leaving.
    """
    calls, masks = [], _Masks(seeds)
    original = keras.layers.Dropout.call
    try:
        keras.layers.Dropout.call = lambda self, x, training=None: masks(self, x, training)
        for layer in layers:
            layer.call = _noting(layer, calls)
        yield calls
    finally:
        keras.layers.Dropout.call = original
        for layer in layers:
            layer.__dict__.pop("call", None)


def is_dense(layer: keras.layers.Layer) -> bool:
    """A Keras Dense layer with Keras' own forward pass."""
    return isinstance(layer, keras.layers.Dense) and type(layer).call is keras.layers.Dense.call


def is_embedding(layer: keras.layers.Layer) -> bool:
    """A Keras or bert4keras Embedding layer (the latter can also run as a dense layer)."""
    return type(layer) in (keras.layers.Embedding, bert4keras.layers.Embedding)


def example_seeds(seed: int, step: int, index: np.ndarray) -> np.ndarray:
    """One dropout seed for each training example of a step, [batch] uint32.

    >>> example_seeds(0, 1, np.array([5])) == example_seeds(0, 1, np.array([4, 5]))[1:]
    array([ True])
    """
    mixed = np.random.SeedSequence((seed, step)).generate_state(1, np.uint32)[0]
    return (index.astype(np.uint64) * 2654435761 + int(mixed)).astype(np.uint32)


def _noting(layer, calls):
    note = _noting_dense if is_dense(layer) else _noting_embedding
    return tf.autograph.experimental.do_not_convert(note(layer, calls))


def _noting_dense(layer, calls):
    def call(inputs):
        inputs = tf.cast(inputs, layer.compute_dtype)
        outputs = tf.tensordot(inputs, layer.kernel, 1)
        outputs = outputs + layer.bias if layer.use_bias else outputs
        calls.append(Call(layer, inputs, outputs))
        return layer.activation(outputs)
    return call


def _noting_embedding(layer, calls):
    original = layer.call

    def call(inputs, mode="embedding"):
        if mode != "embedding":                      # bert4keras: the same table as a dense layer
            return original(inputs, mode=mode)
        ids = tf.cast(inputs, tf.int32)
        outputs = tf.gather(tf.convert_to_tensor(layer.embeddings), ids)
        calls.append(Call(layer, ids, outputs))
        return outputs
    return call


class _Masks:
    """Dropout from per-example seeds; counts the dropout calls of one forward pass."""

    def __init__(self, seeds):
        self.seeds, self.count = seeds, 0

    def __call__(self, layer, inputs, training):
        if not training or layer.rate == 0:
            return tf.identity(inputs)
        self.count += 1
        uniform = self._uniform(tf.shape(inputs), layer._get_noise_shape(inputs))
        kept = tf.cast(uniform >= layer.rate, inputs.dtype)
        return inputs * kept / (1.0 - layer.rate)

    def _uniform(self, shape, noise_shape):
        tf.debugging.assert_equal(shape[0], tf.size(self.seeds), "dropout needs the batch first")
        shape = shape if noise_shape is None else tf.stack(list(noise_shape))
        element = tf.cast(tf.range(tf.reduce_prod(shape[1:])), tf.uint32)
        seeds = _mix(self.seeds + tf.constant(self.count * 0x9E3779B9 % 2**32, tf.uint32))
        bits = _mix(seeds[:, None] + _mix(element)[None])                   # [batch, elements]
        return tf.reshape(tf.cast(bits, tf.float32) / 2.0**32, shape)


def _mix(x: tf.Tensor) -> tf.Tensor:
    """A mixing of 32 bits (xor-shift and multiply, twice) after which neighbours look random."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        shifted = tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32))
        x = tf.bitwise.bitwise_xor(x, shifted) * tf.constant(factor, tf.uint32)
    return x

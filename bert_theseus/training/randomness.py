"""Dropout masks as a function of (seed, step), so that a resumed run draws the same ones.

Keras' ``Dropout`` draws from TensorFlow's stateful random operations. Their counters live inside
the kernels and can neither be read nor set: after a restart they begin anew. While a training step
is traced under :func:`draws_by_step`, every draw of Keras' layers becomes a stateless one instead,

    mask = f(key, step),   key = hash(seed, number of the draw within the step),

with the same distribution. Draws outside Keras' ``RandomGenerator`` (``tf.random.uniform`` in a
layer's own code) stay as they are; :func:`unrepeatable_operations` finds them.
"""

import contextlib
import hashlib
import itertools
from collections.abc import Iterator

import tensorflow as tf
from tf_keras.src.backend import RandomGenerator

_STATEFUL = {"RandomUniform", "RandomStandardNormal", "TruncatedNormal", "RandomUniformInt",
             "RandomGamma", "RandomPoissonV2", "Multinomial", "RandomShuffle",
             "ParameterizedTruncatedNormal"}


@contextlib.contextmanager
def draws_by_step(seed: int, step: tf.Variable) -> Iterator[None]:
    """Within it, Keras' random draws depend on ``seed``, ``step`` and their order alone.

    >>> step, dropout = tf.Variable(3, dtype="int64"), RandomGenerator(1)
    >>> def mask():
    ...     with draws_by_step(7, step):
    ...         return dropout.dropout(tf.ones([100]), 0.5).numpy().tolist()
    >>> first = mask(); _ = step.assign(4); second = mask(); _ = step.assign(3)
    >>> first != second and first == mask()
    True
    """
    numbers = itertools.count()

    def key() -> tf.Tensor:
        """[2] int64, the seed of the next draw."""
        digest = hashlib.sha256(f"{seed}/{next(numbers)}".encode()).digest()
        constant = int.from_bytes(digest[:8], "little", signed=True)
        return tf.stack([tf.constant(constant, "int64"), tf.cast(step, "int64")])

    def dropout(self, inputs, rate, noise_shape=None):
        return tf.nn.experimental.stateless_dropout(inputs, rate, seed=key(),
                                                    noise_shape=noise_shape)

    def uniform(self, shape, minval=0.0, maxval=None, dtype=None, nonce=None):
        return tf.random.stateless_uniform(shape, key(), minval, maxval, dtype or "float32")

    def normal(self, shape, mean=0.0, stddev=1.0, dtype=None, nonce=None):
        return tf.random.stateless_normal(shape, key(), mean, stddev, dtype or "float32")

    def truncated(self, shape, mean=0.0, stddev=1.0, dtype=None, nonce=None):
        return tf.random.stateless_truncated_normal(shape, key(), mean, stddev,
                                                    dtype or "float32")

    replaced = {"dropout": dropout, "random_uniform": uniform, "random_normal": normal,
                "truncated_normal": truncated}
    kept = {name: getattr(RandomGenerator, name) for name in replaced}
    for name, function in replaced.items():
        setattr(RandomGenerator, name, function)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(RandomGenerator, name, function)


def unrepeatable_operations(concrete_function) -> list[str]:
    """Names of random operations whose state a snapshot cannot hold, nested functions included."""
    definition = concrete_function.graph.as_graph_def()
    nodes = itertools.chain(definition.node,
                            *(function.node_def for function in definition.library.function))
    return sorted({f"{node.op} ({node.name})" for node in nodes if node.op in _STATEFUL})

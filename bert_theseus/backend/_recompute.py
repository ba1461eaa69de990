"""RECOMPUTE=1: activations are computed again in the backward pass instead of kept.

Source: https://arxiv.org/abs/1604.06174
"""

import contextlib
import functools
import inspect
import threading

import tensorflow as tf
from tf_keras.src import backend as source_backend
from tf_keras.src.engine.base_layer_utils import call_context


def repair(backend) -> None:
    """Replaces ``bert4keras.backend.recompute_grad``; does nothing unless RECOMPUTE=1."""
    backend.recompute_grad = recompute_grad if backend.do_recompute else backend.recompute_grad
    if backend.do_recompute:
        repeat_dropout()


def recompute_grad(call):
    """Decorator of a layer's ``call``: its inner activations are not kept.

    bert4keras' own uses ``tape.record_operation``, which TensorFlow no longer has there; it also
    recomputes with dropout off and gives up on layers with several outputs. Here forward and
    backward pass see the same dropout.
    """
    accepted = inspect.signature(call).parameters

    @functools.wraps(call)
    def inner(self, inputs, **kwargs):
        kwargs = {key: value for key, value in kwargs.items()
                  if key in accepted or key not in ("mask", "training")}
        flat = tf.nest.flatten(inputs)
        moving = [i for i, x in enumerate(flat) if x.dtype.is_floating]
        again = _SameCircumstances(self, flat)

        def forward(*values):
            """The layer as a function of its floating inputs: the others have no gradient."""
            parts = list(flat)
            for i, value in zip(moving, values):
                parts[i] = value
            with again():
                return call(self, tf.nest.pack_sequence_as(inputs, parts), **kwargs)

        return tf.recompute_grad(forward)(*(flat[i] for i in moving))

    return inner


class _SameCircumstances:
    """Re-entered for the backward pass: the layer's training flag and its dropout masks."""

    active = threading.local()

    def __init__(self, layer, inputs):
        self.layer, self.inputs = layer, inputs
        self.arguments = dict(call_context().call_context_args)
        self.seed, self.count = None, 0

    @contextlib.contextmanager
    def __call__(self):
        outer = getattr(self.active, "now", None)
        self.active.now, self.count = self, 0
        try:
            with call_context().enter(self.layer, self.inputs, not tf.executing_eagerly(),
                                      call_context_args=self.arguments):
                yield
        finally:
            self.active.now = outer

    def next_seed(self) -> tf.Tensor:
        """[2], the same for the n-th dropout of the layer in both passes."""
        if self.seed is None:
            self.seed = tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32)
        self.count += 1
        return self.seed + [0, self.count]


def repeat_dropout() -> None:
    """Keras' dropout draws anew when it is run again; inside a recomputed layer it must not."""
    original = source_backend.RandomGenerator.dropout

    def dropout(self, inputs, rate, noise_shape=None):
        circumstances = getattr(_SameCircumstances.active, "now", None)
        if circumstances is None:
            return original(self, inputs, rate, noise_shape)
        return tf.nn.experimental.stateless_dropout(
            inputs, rate=rate, seed=circumstances.next_seed(), noise_shape=noise_shape)

    source_backend.RandomGenerator.dropout = dropout

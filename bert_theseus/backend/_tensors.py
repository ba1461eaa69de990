"""Repairs of bert4keras' tensor functions: fewer operations, same values, exportable."""

import math
from numbers import Integral

import tensorflow as tf

K = None    # keras.backend, set by repair()


def repair(backend) -> None:
    """Puts the functions of this file in the places of bert4keras' own."""
    global K
    K = backend.K
    for function in (where, reshape, flatten):
        setattr(backend, function.__name__, function)
        setattr(K, function.__name__, function)
    backend.align = align


def where(cond, x, y):
    """``tf.where`` broadcasts by itself since TensorFlow 2.

    bert4keras broadcasts all three by hand to a shape computed at run time, which costs time and
    stops ONNX and TFLite export (``BroadcastArgs``). Its rules for types stay: what has no type
    of its own (numbers, lists, numpy arrays) takes the other's, or floatx; ``cond`` may be of
    any type.

    >>> where(tf.constant([True, False]), tf.constant([1., 2.]), -float("inf")).numpy().tolist()
    [1.0, -inf]
    """
    x_dtype, y_dtype = _dtype(x), _dtype(y)
    if x_dtype is None:
        x = K.constant(x, dtype=y_dtype or K.floatx())
    if y_dtype is None:
        y = K.constant(y, dtype=x_dtype or K.floatx())
    return tf.where(cond if _dtype(cond) == "bool" else K.cast(cond, "bool"), x, y)


def align(tensor, axes, ndim=None):
    """Axis i of ``tensor`` becomes axis ``axes[i]`` of a tensor with ``ndim`` axes.

    bert4keras indexes with a list of ``None`` and slices, a strided slice that TFLite refuses;
    inserting axes is a reshape.

    >>> align(tf.zeros([2, 5]), [0, -1], 4).shape.as_list()
    [2, 1, 1, 5]
    """
    assert len(axes) == K.ndim(tensor)
    assert ndim or min(axes) >= 0
    ndim = ndim or max(axes) + 1
    kept = {axis % ndim for axis in axes}
    for axis in range(ndim):
        if axis not in kept:
            tensor = tf.expand_dims(tensor, axis)
    return tensor


def reshape(tensor, *args):
    """``reshape(x, shape1, axis1, …)`` turns each axis into the axes of its shape.

    bert4keras reads every axis whose size it does not see as a number from the shape at run
    time; here sizes that are known stay numbers and a single unknown one is left to ``-1``.

    >>> reshape(tf.zeros([2, 5, 6]), (3, -1), -1).shape.as_list()
    [2, 5, 3, 2]
    """
    if len(args) == 1:
        return tf.reshape(tensor, args[0])
    assert len(args) % 2 == 0
    size = _sizes(tensor)
    parts = [[s] for s in size]
    for shape, axis in zip(args[::2], args[1::2]):
        parts[axis] = _without_minus_one(list(shape), size[axis])
    return tf.reshape(tensor, _leave_one_open([s for part in parts for s in part]))


def flatten(tensor, start=None, end=None):
    """Joins the axes ``start`` … ``end - 1`` into one; known sizes as in ``reshape``.

    >>> flatten(tf.zeros([2, 3, 4, 5]), 1, 3).shape.as_list()
    [2, 12, 5]
    """
    start, end = start or 0, end or K.ndim(tensor)
    size = _sizes(tensor)
    return tf.reshape(tensor, _leave_one_open(
        size[:start] + [math.prod(size[start:end])] + size[end:]))


def _sizes(tensor) -> list:
    """The size of each axis: a number where it is known, else read at run time."""
    static = K.int_shape(tensor)
    dynamic = None if None not in static else K.shape(tensor)
    return [dynamic[i] if s is None else s for i, s in enumerate(static)]


def _without_minus_one(shape: list, size) -> list:
    """``shape`` with its -1, if it has one, replaced so that the product is ``size``."""
    open_axes = [i for i, s in enumerate(shape) if isinstance(s, Integral) and s == -1]
    assert len(open_axes) <= 1
    for i in open_axes:
        shape[i] = size // math.prod(shape[:i] + shape[i + 1:])
    return shape


def _leave_one_open(shape: list) -> list:
    """A shape whose only unknown size is left to tf.reshape, which needs no run-time shape."""
    unknown = [i for i, s in enumerate(shape) if not isinstance(s, Integral)]
    if len(unknown) == 1 and all(s > 0 for i, s in enumerate(shape) if i not in unknown):
        shape[unknown[0]] = -1
    return shape


def _dtype(x) -> str | None:
    """The type of a tensor or variable; None for numbers, lists and numpy arrays."""
    return K.dtype(x) if hasattr(getattr(x, "dtype", None), "base_dtype") else None

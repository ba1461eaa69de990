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
    size = K.int_shape(tensor)                  # None: not known before run time
    parts = [[s] for s in size]
    for shape, axis in zip(args[::2], args[1::2]):
        parts[axis] = _without_minus_one(list(shape), size[axis])

    def read(dynamic):
        """All sizes, from the shape at run time."""
        return [_rest(dynamic[i], part) if s is None else s
                for i, part in enumerate(parts) for s in part]

    return tf.reshape(tensor, _shape(tensor, [s for part in parts for s in part], read))


def flatten(tensor, start=None, end=None):
    """Joins the axes ``start`` … ``end - 1`` into one; known sizes as in ``reshape``.

    >>> flatten(tf.zeros([2, 3, 4, 5]), 1, 3).shape.as_list()
    [2, 12, 5]
    """
    axes, size = list(range(K.ndim(tensor))), K.int_shape(tensor)
    start, end = start or 0, end or len(axes)
    groups = [[i] for i in axes[:start]] + [axes[start:end]] + [[i] for i in axes[end:]]
    known = [None if any(size[i] is None for i in group) else math.prod(size[i] for i in group)
             for group in groups]

    def read(dynamic):
        """All sizes, from the shape at run time."""
        return [math.prod(dynamic[i] if size[i] is None else size[i] for i in group)
                for group in groups]

    return tf.reshape(tensor, _shape(tensor, known, read))


def _without_minus_one(shape: list, size: int | None) -> list:
    """``shape`` with the number its -1, if it has one, stands for; None where that is unknown."""
    open_axes = [i for i, s in enumerate(shape) if isinstance(s, Integral) and s == -1]
    assert len(open_axes) <= 1
    for i in open_axes:
        shape[i] = None if size is None else size // math.prod(shape[:i] + shape[i + 1:])
    return shape


def _rest(size, part: list):
    """What remains of ``size`` for the one unknown factor of a part."""
    return size // math.prod(s for s in part if s is not None)


def _shape(tensor, sizes: list, read) -> list:
    """The shape to reshape to; ``read(run-time shape)`` is asked only where it has to be."""
    unknown = sum(s is None for s in sizes)
    if unknown == 1 and all(isinstance(s, Integral) and s > 0 for s in sizes if s is not None):
        return [-1 if s is None else s for s in sizes]
    return read(K.shape(tensor)) if unknown else sizes


def _dtype(x) -> str | None:
    """The type of a tensor or variable; None for numbers, lists and numpy arrays."""
    return K.dtype(x) if hasattr(getattr(x, "dtype", None), "base_dtype") else None

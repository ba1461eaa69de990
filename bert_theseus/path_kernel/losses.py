"""Any Keras loss as losses of single examples, and how they are summed up.

The article's L(θ) = Σ_i l(y_i, f(x_i)) is a sum; Keras trains on the mean of the batch. Both are
the same kernel machine with a weight on each example: 1 (sum) or 1 / batch (mean).

>>> loss, reduction = as_loss("mse")
>>> loss(tf.constant([1.0]), tf.constant([[3.0]])).numpy(), reduction
(array([4.], dtype=float32), 'mean')
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def as_loss(loss, reduction: str | None = None) -> tuple[Loss, str]:
    """(function (y, f) → losses [batch], "mean" or "sum").

    loss: a Keras name, a ``keras.losses.Loss`` (its own reduction counts unless given) or a
    function of (y, f); further axes of a loss (positions) are averaged.
    """
    if reduction not in (None, "mean", "sum"):
        raise InputError(f"unknown reduction {reduction!r}", "reduction", "use 'mean' or 'sum'")
    function = _function(loss)
    summed = getattr(loss, "reduction", None) == keras.losses.Reduction.SUM
    return _per_example(function), reduction or ("sum" if summed else "mean")


def _function(loss):
    if isinstance(loss, keras.losses.Loss):
        return loss.call
    try:
        function = keras.losses.get(loss) if isinstance(loss, str) else loss
    except ValueError:
        raise InputError(f"unknown loss {loss!r}", "loss", "use a name known to Keras") from None
    if not callable(function):
        raise InputError(f"{loss!r} is no loss", "loss", "give a Keras loss or a function (y, f)")
    return function


def _per_example(function):
    def losses(y, f):
        if f.shape.rank == y.shape.rank + 1 and f.shape[-1] == 1:
            y = y[..., None]                                  # [batch] beside [batch, 1]
        values = function(y, f)
        if values.shape.rank == 0:
            raise InputError("the loss gives one number for the whole batch", "loss",
                             "let it return one loss an example, [batch]")
        return tf.reduce_mean(tf.reshape(values, [tf.shape(f)[0], -1]), axis=1)
    return losses


def example_weights(index: np.ndarray, reduction: str,
                    sample_weight: np.ndarray | None) -> np.ndarray:
    """Weight of each example of a batch in its loss: 1 or 1 / batch, times its own weight.

    >>> example_weights(np.array([3, 1]), "mean", None)
    array([0.5, 0.5])
    """
    weights = np.full(len(index), 1.0 / len(index) if reduction == "mean" else 1.0)
    return weights if sample_weight is None else weights * sample_weight[index]

"""Labels brought into one form and checked: integer, one-hot and binary labels for logits.

Every loss of this room works on logits [..., classes] and on one form of labels, the indicator
[..., classes] (or [..., tasks] for independent binary tasks). A label that does not fit is an
error that names label, position and fix: an ``InputError`` in eager code, an
``InvalidArgumentError`` with the same text inside ``tf.function``; compiled XLA code, which drops
assertions, gets NaN instead of a silently wrong loss.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError

KINDS = ("auto", "integer", "one_hot", "binary")


class Labels(NamedTuple):
    """Labels as the losses use them.

    y:    indicator [..., classes] in the type of the logits (soft where the loss allows it).
    keep: what counts, boolean: [...] examples, or [..., tasks] for the kind "binary".
    fits: boolean like ``keep``, False where a label is outside its range.
    kind: "integer", "one_hot" or "binary".
    """

    y: tf.Tensor
    keep: tf.Tensor
    fits: tf.Tensor
    kind: str


def as_logits(outputs) -> tf.Tensor:
    """The model's outputs as logits of at least float32; refuses probabilities.

    outputs: [..., classes]. Half-precision logits are computed on in float32; their gradient
    comes back in their own type. Raises InputError where the outputs are known to be
    probabilities: they come from Keras' softmax or sigmoid, or (eager) their rows lie in [0, 1]
    and sum to 1.
    """
    tensor = tf.convert_to_tensor(outputs)
    op = None if tf.executing_eagerly() else getattr(tensor, "op", None)
    if hasattr(outputs, "_keras_logits") or (op is not None and op.type in ("Softmax", "Sigmoid")):
        _refuse_probabilities("the model ends in softmax or sigmoid")
    if not tensor.dtype.is_floating:
        raise InputError(f"logits of type {tensor.dtype.name}", "y_pred", "give real numbers")
    if tensor.shape.rank is None or tensor.shape.rank < 2 or tensor.shape[-1] is None:
        raise InputError(f"logits of shape {tensor.shape}", "y_pred",
                         "give [batch, …, classes], or [batch, …, 1] for one binary task")
    if tf.executing_eagerly():
        _check_rows_are_not_distributions(tensor)
    if tensor.dtype == tf.bfloat16:
        return _summable(tf.cast(tensor, tf.float32))
    return tf.cast(tensor, tf.float32) if tensor.dtype.size < 4 else tf.identity(tensor)


def _summable(logits):
    """bfloat16 reaches as far as float32, so that the sum of two such logits overflows: values
    beyond ±1e25 count as ±1e25; their gradient goes through uncut."""
    near = tf.clip_by_value(logits, -1e25, 1e25)
    finite = tf.where(tf.math.is_finite(logits), logits, near)
    return tf.stop_gradient(near) + (finite - tf.stop_gradient(finite))


def _check_rows_are_not_distributions(tensor):
    rows = np.asarray(tf.cast(tensor, tf.float64)).reshape(-1, tensor.shape[-1])
    if rows.shape[0] and rows.shape[1] > 1 and rows.min() >= 0 and rows.max() <= 1:
        tolerance = 1e-5 if tensor.dtype.size >= 4 else 1e-2
        between = ((rows > 0) & (rows < 1)).any()       # rows of bare 0 and 1 may be logits
        if between and np.abs(rows.sum(-1) - 1).max() < tolerance:
            _refuse_probabilities("every row lies in [0, 1] and sums to 1")


def _refuse_probabilities(why: str):
    raise InputError(f"probabilities where logits are due ({why})", "y_pred",
                     "take the last activation away; these losses apply it in closed form")


def fit_labels(labels, logits: tf.Tensor, kind: str = "auto", ignore_label: int | None = None,
               soft: bool = True) -> Labels:
    """Labels [...], [..., 1] or [..., classes] as the indicator [..., classes], checked.

    kind: "integer", "one_hot" or "binary" (independent tasks, one logit each); "auto" tells them
    apart by shape: one logit is binary, the shape of the logits is one-hot, else integer.
    ignore_label: what carries this label does not count. soft: probabilities as one-hot or binary
    labels are allowed. Raises InputError (see the module's head).

    >>> import tensorflow as tf
    >>> fit_labels([2, 0], tf.zeros([2, 3])).y.numpy().tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    labels = tf.convert_to_tensor(labels)
    kind = _kind(kind, labels, logits)
    if kind == "integer":
        return _integer(labels, logits, ignore_label)
    if labels.shape.rank == logits.shape.rank - 1:      # one binary task: [...] for [..., 1]
        labels = labels[..., None]
    y = tf.cast(labels, logits.dtype)
    keep = tf.ones_like(y, tf.bool) if ignore_label is None else y != ignore_label
    fits = (y >= 0) & (y <= 1) if soft else (y == 0) | (y == 1)
    if kind == "one_hot":
        keep = tf.reduce_any(keep, -1)
        fits = tf.reduce_all(fits, -1) & (tf.abs(tf.reduce_sum(y, -1) - 1) < 1e-3)
        hint = "each row needs a single 1 (integers need labels='integer')"
        if soft:
            hint = "each row needs to be a distribution (several 1s need labels='binary')"
    else:
        hint = "binary labels are 0 and 1" + ("" if soft else ", without numbers between")
    return _checked(tf.where(_like(keep, y), y, 0), keep, fits, kind, labels, hint)


def _kind(kind: str, labels: tf.Tensor, logits: tf.Tensor) -> str:
    """Tells the kind by shape, or checks that the shape allows the kind asked for."""
    if kind not in KINDS:
        raise InputError(f"unknown kind of labels {kind!r}", "labels", f"use one of {KINDS}")
    if labels.shape.rank is None:
        raise InputError("labels of unknown shape", "y_true", "give them a static rank")
    classes, rank = logits.shape[-1], logits.shape.rank
    integer = labels.shape.rank == rank - 1 or (labels.shape.rank == rank and labels.shape[-1] == 1)
    same = labels.shape.rank == rank and labels.shape[-1] in (classes, None)
    allowed = {"integer": integer and classes > 1, "one_hot": same and classes > 1,
               "binary": same or (integer and classes == 1)}
    if kind != "auto" and allowed[kind]:
        return kind
    found = [name for name in ("integer", "one_hot", "binary") if allowed[name]]
    if not found or kind != "auto":
        instead = f"; this shape fits labels={found[0]!r}" if found else ""
        wanted = "" if kind == "auto" else f" as {kind} labels"
        raise InputError(f"labels of shape {labels.shape}{wanted} do not fit logits of shape "
                         f"{logits.shape}", "y_true", "integers are [batch, …], one-hot and "
                         f"binary labels have the shape of the logits{instead}")
    return found[0]


def _integer(labels, logits, ignore_label) -> Labels:
    classes = logits.shape[-1]
    if labels.shape.rank == logits.shape.rank:
        labels = labels[..., 0]
    index = tf.cast(labels, tf.int32)
    integral = tf.cast(index, labels.dtype) == labels
    keep = tf.ones_like(index, tf.bool) if ignore_label is None else index != ignore_label
    fits = (index >= 0) & (index < classes) & integral
    hint = f"integer labels are 0 … {classes - 1} (subtract 1 if they start at 1)"
    y = tf.one_hot(tf.where(keep, index, 0), classes, dtype=logits.dtype)
    return _checked(y, keep, fits, "integer", labels, hint)


def _checked(y, keep, fits, kind, labels, hint) -> Labels:
    """Raises (eager) or asserts (graph) that every label that counts fits."""
    bad = tf.reshape(keep & ~fits, [-1])
    if tf.executing_eagerly():
        if bool(tf.reduce_any(bad)):
            where = np.argwhere(np.asarray(keep & ~fits))[0]
            value = np.asarray(labels)[tuple(where)]
            raise InputError(f"label {value} does not fit", f"y_true{where.tolist()}", hint)
    else:
        first = tf.argmax(tf.cast(bad, tf.int32))
        shown = tf.reshape(labels, [tf.size(bad), -1])[first]
        check = tf.debugging.Assert(~tf.reduce_any(bad), [
            "label", shown, "does not fit, y_true, flat position", first, ",", hint])
        with tf.control_dependencies([check] if check is not None else []):
            y = tf.identity(y)
    return Labels(y, keep, fits | ~keep, kind)


def _like(mask, y):
    return mask if mask.shape.rank == y.shape.rank else mask[..., None]

"""Class counts and priors in one pass, from labels in memory or from any CLUE file.

A CLUE file holds one JSON object a line; ``.gz`` is read as it is. Counting never holds more than
one line. A prior of zero is refused where a logarithm is taken of it (the article adds 1e-8 and
goes on): ``smoothing`` is the documented way to give unseen classes some mass.
"""

import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bert_theseus.clue import read_rows
from bert_theseus.errors import InputError


def class_counts(labels, num_classes: int | None = None, names: Sequence | None = None,
                 field: str = "label", left_out: Sequence = ()) -> np.ndarray:
    """How often each class occurs, [num_classes], integers.

    labels: an iterable of integer labels 0 … num_classes − 1, of labels listed in ``names``, or
    the path of a CLUE file (one JSON object a line, ``.gz`` allowed) whose ``field`` holds the
    label. A row may have several labels, as a list or as CLUENER's {type: entities}: each counts
    once. Without names, a file's labels are read as integers; with names, labels are compared as
    text. left_out: labels that do not count (OCNLI's "-"). Raises InputError with the position of
    the first label that does not fit.

    >>> class_counts([0, 2, 2], num_classes=3).tolist()
    [1, 0, 2]
    >>> labels = ["news", "sport", "news", "-"]
    >>> class_counts(labels, names=["sport", "news"], left_out=["-"]).tolist()
    [1, 2]
    """
    if num_classes is None:
        num_classes = _number_of_names(names)
    index = {str(name): i for i, name in enumerate(names)} if names is not None else None
    if index is not None and len(index) != num_classes:
        raise InputError(f"{len(index)} names for {num_classes} classes", "names", "give one each")
    counts = np.zeros(num_classes, "int64")
    for where, several in _with_positions(labels, field):
        for label in set(several) if isinstance(several, (list, tuple, set, dict)) else [several]:
            if label not in left_out:
                counts[_class_of(label, where, index, num_classes)] += 1
    return counts


def class_prior(labels, num_classes: int | None = None, names: Sequence | None = None,
                field: str = "label", left_out: Sequence = (), smoothing: float = 0.0
                ) -> np.ndarray:
    """How frequent each class is, [num_classes], summing to 1.

    Arguments as for :func:`class_counts`; ``smoothing`` is added to every count. Raises
    InputError for a class that never occurs while smoothing is 0: its log prior is −∞.

    >>> class_prior([0, 1, 1, 1], num_classes=2).tolist()
    [0.25, 0.75]
    """
    if smoothing < 0:
        raise InputError(f"smoothing {smoothing}", "smoothing", "it is at least 0")
    counts = class_counts(labels, num_classes, names, field, left_out) + smoothing
    absent = np.flatnonzero(counts == 0)
    if absent.size:
        name = absent[0] if names is None else names[absent[0]]
        raise InputError(f"class {name} never occurs", f"prior[{absent[0]}]",
                         "leave the class out, or give it mass with smoothing=1")
    return counts / counts.sum()


def checked_prior(prior) -> np.ndarray:
    """A prior as an array, or an InputError: one axis, positive, summing to 1."""
    prior = np.asarray(prior, "float64")
    if prior.ndim != 1 or prior.size < 2:
        raise InputError(f"a prior of shape {prior.shape}", "prior", "give one number a class, "
                         "[negative, positive] for binary labels")
    bad = np.flatnonzero(~(prior > 0))
    if bad.size:
        raise InputError(f"class {bad[0]} has prior {prior[bad[0]]:g}", f"prior[{bad[0]}]",
                         "its logarithm is not finite; smooth the counts "
                         "(class_prior(…, smoothing=1)) or leave the class out")
    if not abs(prior.sum() - 1) < 1e-4:
        raise InputError(f"a prior that sums to {prior.sum():g}", "prior",
                         "divide the counts by their sum (class_prior does)")
    return prior


def _number_of_names(names) -> int:
    if names is None:
        raise InputError("the number of classes is not known", "num_classes",
                         "give num_classes or names")
    return len(names)


def _class_of(label, where, index, num_classes) -> int:
    if index is not None:
        if str(label) not in index:
            raise InputError(f"unknown label {label!r}", where,
                             f"use one of {', '.join(list(index)[:20])}")
        return index[str(label)]
    try:
        number = int(label)
        integral = number == float(label)
    except (TypeError, ValueError):
        raise InputError(f"label {label!r} is no integer", where,
                         "give the labels' order with names=[…]") from None
    if not (integral and 0 <= number < num_classes):
        raise InputError(f"label {label} does not fit", where, f"labels are 0 … {num_classes - 1}"
                         " (subtract 1 if they start at 1)")
    return number


def _with_positions(labels, field) -> Iterator[tuple[str, object]]:
    if not isinstance(labels, (str, os.PathLike)):
        return ((f"labels[{i}]", label) for i, label in enumerate(_flat(labels)))
    return ((f"{labels}:{line}", _field(row, field, f"{labels}:{line}"))
            for line, row in read_rows(labels))


def _flat(labels) -> Iterable:
    return np.asarray(labels).ravel().tolist() if hasattr(labels, "shape") else labels


def _field(row: dict, field: str, where: str):
    if field not in row:
        raise InputError(f"no field {field!r}", where, f"the row has {', '.join(row) or 'none'}; "
                         "name its field with field=")
    return row[field]

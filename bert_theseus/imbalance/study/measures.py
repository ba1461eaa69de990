"""What a long-tailed classifier is measured by, choice of settings on dev, and a paired test.

dev and test are balanced. What needs the training set's class frequencies (overall accuracy, F1
as it would be in the field) comes from the same balanced set by weighting each true class with
its prior; this is the expectation over test sets drawn with the training prior.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

MEASURES = ("accuracy", "balanced accuracy", "macro F1", "macro F1, balanced test",
            "worst recall", "calibration error")
LOWER_IS_BETTER = ("calibration error",)


def confusion(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of each true class predicted as each class, rows sum to 1, [classes, classes]."""
    classes = logits.shape[-1]
    table = np.zeros((classes, classes))
    np.add.at(table, (y, logits.argmax(-1)), 1)
    return table / np.maximum(table.sum(-1, keepdims=True), 1)


def measure(logits: np.ndarray, y: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """MEASURES, in their order, from logits [rows, classes], true classes [rows], prior [classes].

    accuracy, macro F1: under the training prior; for two classes F1 is that of class 1 (the rare
    one) alone. calibration error: see :func:`calibration_error`, every class weighing the same.
    """
    table = confusion(logits, y)
    recall = np.diag(table)
    uniform = np.full(len(prior), 1 / len(prior))
    return np.array([(prior * recall).sum(), recall.mean(), macro_f1(table, prior),
                     macro_f1(table, uniform), recall.min(), calibration_error(logits, y)])


def macro_f1(table: np.ndarray, prior: np.ndarray) -> float:
    """Mean F1 over the classes (of class 1 for two) when the true classes follow ``prior``.

    >>> float(macro_f1(np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([0.5, 0.5])).round(4))
    0.6667
    """
    joint = prior[:, None] * table
    right = np.diag(joint)
    f1 = 2 * right / np.maximum(joint.sum(0) + joint.sum(1), 1e-12)
    return f1[1] if len(f1) == 2 else f1.mean()


def calibration_error(logits: np.ndarray, y: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: mean |confidence − accuracy| over bins of the confidence."""
    logits = logits.astype("float64") - logits.max(-1, keepdims=True)
    p = np.exp(logits)
    confidence = p.max(-1) / p.sum(-1)
    right = logits.argmax(-1) == y
    weight = 1 / np.bincount(y, minlength=logits.shape[-1])[y]
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(which, weight * (confidence - right), bins)
    return float(np.abs(gap).sum() / weight.sum())


def thirds(table: np.ndarray) -> np.ndarray:
    """A confusion by rank of class gathered to head, middle and tail, [3, 3], rows sum to 1."""
    parts = np.array_split(np.arange(len(table)), 3)
    return np.array([[table[np.ix_(a, b)].sum(1).mean() for b in parts] for a in parts])


def best(dev: np.ndarray, lower: bool = False) -> tuple[int, int]:
    """(setting, snapshot) with the best mean over seeds; dev [seeds, settings, snapshots]."""
    mean = dev.mean(0)
    flat = (mean.argmin if lower else mean.argmax)()
    return tuple(int(i) for i in np.unravel_index(flat, mean.shape))


def paired_test(a: Sequence[float], b: Sequence[float]) -> dict:
    """Paired t-test over seeds of a against b: mean difference, its 95 % interval, p.

    Differences below 1e-6 count as 0. Fewer than two pairs, or differences that are all the same,
    have no test: p is 1 where the difference is 0, else None.

    >>> paired_test([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])["p"]
    1.0
    """
    difference = np.asarray(a, "float64") - np.asarray(b, "float64")
    difference[np.abs(difference) < 1e-6] = 0
    mean = float(difference.mean())
    if len(difference) < 2 or np.ptp(difference) < 1e-12:
        return {"difference": mean, "interval": None, "p": 1.0 if abs(mean) < 1e-12 else None}
    test = stats.ttest_1samp(difference, 0)
    low, high = test.confidence_interval(0.95)
    return {"difference": mean, "interval": [float(low), float(high)], "p": float(test.pvalue)}


def verdict(test: dict, level: float = 0.05) -> str:
    """"better", "worse", "within noise" for a paired test; "no test" where it has none."""
    if test["p"] is None:
        return "no test"
    if test["p"] >= level:
        return "within noise"
    return "better" if test["difference"] > 0 else "worse"


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979): family-wise error as each alone.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    steps = np.asarray(p_values, "float64")[order] * np.arange(len(order), 0, -1)
    result = np.empty(len(order))
    result[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return result.tolist()

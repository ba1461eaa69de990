"""Long-tailed tasks cut from balanced or larger real data, with balanced dev and test sets.

    n_i = head · imbalance^{−i / (classes − 1)},   i = 0 … classes − 1

Which class gets which rank is drawn with the seed; classes are then renumbered by rank, so that
class 0 is the head and the counts are the same for every seed. The texts of train, dev and test
never overlap. The number of classes is what the data can fill: a class that has too few rows for
a place at the head is left out of the task.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert_theseus.clue import find_file, read_rows
from bert_theseus.clue.files import find_folder
from bert_theseus.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Which files of a task serve as train, dev and test, and how large the head class is.

    share: where a single file serves several splits, its share for (train, dev, test).
    """

    name: str
    folder: str
    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    head: int
    least_dev: int
    least_test: int
    share: tuple[float, float, float] | None = None


SOURCES = {source.name: source for source in (
    Source("tnews", "tnews", ("train",), ("dev",), ("test",), 900, 200, 80),
    Source("iflytek", "iflytek", ("train", "dataclue_dev"), ("dev",), ("test",), 30, 8, 10),
    Source("thucnews", "thucnews", ("dev",), ("test",), ("test",), 950, 150, 450,
           (0.0, 0.25, 0.75)),
    Source("binary", "shopping", ("all",), ("all",), ("all",), 10000, 2000, 5000,
           (0.6, 0.12, 0.28)),
)}
"""binary: the sentiment of shopping reviews, its second label ("1") the rare one."""


@dataclass
class Corpus:
    """Texts and labels of three splits; ``features`` [rows, dimensions] once they are made."""

    name: str
    head: int
    classes: list
    texts: dict
    labels: dict
    features: dict


def load_corpus(data_dir: str | os.PathLike, name: str) -> Corpus:
    """Reads a task of SOURCES, or any folder in CLUE's layout with train, dev and test.

    A folder of its own is given by its name; its head is as large as keeps the most rows, classes
    with fewer rows than that are left out, which is logged. Raises InputError where files, labels
    or classes are missing.
    """
    source = SOURCES.get(name) or Source(name, name, ("train",), ("dev",), ("test",), 0, 1, 1)
    folder = find_folder(data_dir, (source.folder,))
    rows = {split: _rows(folder, getattr(source, split)) for split in ("train", "dev", "test")}
    rows = _disjoint(rows, source.share)
    counts = {split: _counts(part) for split, part in rows.items()}
    head = source.head or _head_that_keeps_most(list(counts["train"].values()))
    least = {"train": head, "dev": source.least_dev, "test": source.least_test}
    classes = sorted(c for c in counts["train"]
                     if all(counts[s].get(c, 0) >= n for s, n in least.items()))
    if len(classes) < 2:
        raise InputError(f"{len(classes)} usable classes", str(folder), "two are needed, each with "
                         f"rows in train, dev and test (at least {least})")
    logger.info("%s: %d of %d classes, at most %d rows each to train on", name, len(classes),
                len(counts["train"]), head)
    index = {c: i for i, c in enumerate(classes)}
    kept = {s: [(t, index[c]) for t, c in part if c in index] for s, part in rows.items()}
    return Corpus(name, head, classes, {s: [t for t, _ in part] for s, part in kept.items()},
                  {s: np.array([c for _, c in part]) for s, part in kept.items()}, {})


def _head_that_keeps_most(counts: Sequence[int]) -> int:
    """The h for which h · (classes with at least h rows) is largest; at least 2."""
    return max((max(h, 2) for h in counts), key=lambda h: h * sum(n >= h for n in counts))


def _rows(folder, stems: Sequence[str]) -> list[tuple[str, str]]:
    rows = []
    for path in (find_file(folder, (stem,)) for stem in stems):
        for line, row in read_rows(path):
            if not isinstance(row.get("sentence"), str) or "label" not in row:
                raise InputError("no fields 'sentence' and 'label'", f"{path}:{line}",
                                 "each row of a classification task has both")
            rows.append((row["sentence"], str(row["label"])))
    return rows


def _disjoint(rows: dict, share) -> dict:
    """Each text in one split; a file that serves several is dealt out with a fixed seed."""
    if share is None:
        seen, result = set(), {}
        for split in ("test", "dev", "train"):
            result[split] = _once(rows[split], seen)
        return result
    result = {"train": rows["train"]} if share[0] == 0 else {}
    pool = _once(rows["test"], set())
    order = np.random.default_rng(0).permutation(len(pool))
    edges = np.round(np.cumsum((0, *share)) * len(pool)).astype(int)
    for split, low, high in zip(("train", "dev", "test"), edges, edges[1:]):
        if high > low:
            result[split] = [pool[i] for i in order[low:high]]
    seen = {text for split in ("dev", "test") for text, _ in result[split]}
    return {**result, "train": _once(result["train"], seen)}


def _once(rows, seen: set) -> list:
    """Rows whose text is not in ``seen``, the first of each; adds them to it."""
    kept = []
    for text, label in rows:
        if text not in seen:
            seen.add(text)
            kept.append((text, label))
    return kept


def _counts(rows) -> dict:
    counts = {}
    for _, label in rows:
        counts[label] = counts.get(label, 0) + 1
    return counts


def long_tail_counts(classes: int, imbalance: float, head: int) -> np.ndarray:
    """n_i for each rank, [classes]; the last is head / imbalance. InputError if that is below 1.

    >>> long_tail_counts(3, imbalance=100, head=1000).tolist()
    [1000, 100, 10]
    """
    if imbalance < 1 or head / imbalance < 0.9:
        raise InputError(f"imbalance {imbalance:g} with {head} examples in the largest class",
                         "imbalance", f"it lies between 1 and {head}")
    ranks = np.arange(classes) / max(classes - 1, 1)
    return np.maximum(np.round(head * float(imbalance) ** -ranks), 1).astype("int64")


def possible(imbalances: Sequence[float], corpus: Corpus | None) -> list[float]:
    """The imbalances a task can have: none above its largest class, which takes their place.

    >>> possible([1, 10, 100], Corpus("few", 30, [0, 1], {}, {}, {}))
    [1, 10, 30]
    """
    return [1] if corpus is None else sorted({min(r, corpus.head) for r in imbalances})


@dataclass
class Cut:
    """One long-tailed task: indices into the splits' rows, labels renumbered by rank.

    rows: split → indices; labels: split → ranks; prior: of the cut training set.
    """

    rows: dict
    labels: dict
    prior: np.ndarray


def cut(labels: dict, counts: np.ndarray, seed: int, fixed_order: bool = False) -> Cut:
    """Cuts a training set with these counts by rank, and balanced dev and test sets.

    labels: split → class of each row. fixed_order keeps rank = class (of two classes the
    positive one, 1, is the rare one); otherwise ranks are drawn.
    """
    rng = np.random.default_rng(seed)
    classes = len(counts)
    ranked = np.arange(classes) if fixed_order else rng.permutation(classes)
    rank_of = np.argsort(ranked)
    rows = {}
    for split, y in labels.items():
        each = np.bincount(y, minlength=classes).min()
        wanted = counts if split == "train" else np.full(classes, each)
        picks = rng if split == "train" else np.random.default_rng(0)     # dev and test stay
        rows[split] = np.concatenate(
            [picks.permutation(np.flatnonzero(y == c))[:wanted[rank_of[c]]]
             for c in range(classes)])
    new = {split: rank_of[labels[split][rows[split]]] for split in labels}
    return Cut(rows, new, counts / counts.sum())

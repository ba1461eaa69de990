"""Distinct strings of one field as a sorted table of token sequences, and the subjects' trie.

Strings with the same ids (two rare characters are both [UNK]; letters differ in case) share one
row, a *group*; which string it was is kept beside, so no string is lost in another.
"""

from dataclasses import dataclass

import numpy as np

@dataclass
class Sequences:
    """Ragged token rows: row i is ``ids[starts[i]:starts[i] + lengths[i]]``."""

    ids: np.ndarray
    lengths: np.ndarray

    def __post_init__(self):
        self.lengths = np.asarray(self.lengths, "int64")
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.pack = 8 // self.ids.itemsize      # tokens in a 64-bit sort key

    def packed(self, rows: np.ndarray, column: int) -> np.ndarray:
        """Tokens ``pack·column`` … of the rows as one integer that sorts like them."""
        key = np.zeros(len(rows), "uint64")
        starts, lengths = self.starts[rows], self.lengths[rows]
        for offset in range(self.pack * column, self.pack * (column + 1)):
            inside = offset < lengths
            token = self.ids[np.where(inside, starts + offset, 0)].astype("uint64")
            key = (key << np.uint64(64 // self.pack)) | np.where(inside, token, np.uint64(0))
        return key

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The ids of the rows, one row after the other."""
        return self.ids[ragged(self.starts[rows], self.lengths[rows])]

    def rows(self, rows: np.ndarray) -> "Sequences":
        """These rows in this order."""
        return Sequences(self.take(rows), self.lengths[rows])

    def holding(self, token: int) -> int:
        """How many rows hold a token."""
        return len(np.unique(np.searchsorted(
            self.starts, np.flatnonzero(self.ids == token), "right")))

    def common(self, one: int, two: int) -> int:
        """Tokens that two rows begin with together."""
        one, two = (self.ids[start:start + length] for start, length in (
            (self.starts[row], self.lengths[row]) for row in (one, two)))
        size = min(len(one), len(two))
        return int(np.argmin(np.append(one[:size] == two[:size], False)))


def ragged(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indices ``start … start + length − 1`` of all rows in one array.

    >>> ragged(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def sort_sequences(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Stable order of the rows, and per place in that order whether a new sequence begins.

    Sorted by the first few tokens; only rows that still tie are looked at further.
    """
    rows = np.arange(len(sequences.lengths))
    key = sequences.packed(rows, 0)
    order = np.argsort(key, kind="stable")
    fresh = _changes(key[order])
    column = 1
    while True:
        tied = ~fresh
        tied[:-1] |= ~fresh[1:]
        places = np.flatnonzero(tied & (sequences.lengths[order] > sequences.pack * column))
        if not len(places):
            return order, fresh
        group = np.cumsum(fresh)[places]
        key = sequences.packed(order[places], column)
        inner = np.lexsort((key, group))
        order[places] = order[places[inner]]
        fresh[places] = _changes(group[inner]) | _changes(key[inner])
        column += 1


def _changes(values: np.ndarray) -> np.ndarray:
    """True where a value differs from the one before; the first is True."""
    changed = np.ones(len(values), bool)
    changed[1:] = values[1:] != values[:-1]
    return changed


def common_prefixes(sequences: Sequences) -> np.ndarray:
    """Tokens that each row of a sorted table shares with the row before it; [rows], first 0."""
    count = len(sequences.lengths)
    shared = np.zeros(count, "int32")
    rows, depth = np.arange(1, count), 0
    while len(rows):
        here = sequences.starts[rows] + depth
        before = sequences.starts[rows - 1] + depth
        inside = np.minimum(sequences.lengths[rows], sequences.lengths[rows - 1]) > depth
        rows, here, before = rows[inside], here[inside], before[inside]
        rows = rows[sequences.ids[here] == sequences.ids[before]]
        depth += 1
        shared[rows] = depth
    return shared


def branching_nodes(sequences: Sequences, shared: np.ndarray) -> dict[str, np.ndarray]:
    """The trie over a sorted table, down to where a single row is left, level by level.

    shared: [rows], from :func:`common_prefixes`.
    Returns per node its ``token``, its first ``row``, its first ``child`` (one entry more than
    nodes); the children of node n are ``child[n] … child[n + 1] − 1``. Node 0 is the root.
    """
    shared = np.append(shared, -1)
    tokens, rows = [np.zeros(1, "uint32")], [np.zeros(1, "int64")]
    parents, depth, counts = rows[0], 0, []
    candidates = np.arange(len(shared) - 1)
    while len(parents):
        candidates = candidates[(shared[candidates] >= depth) | (shared[candidates + 1] >= depth)]
        starts = candidates[shared[candidates] <= depth]
        bounds = np.searchsorted(starts, np.append(parents, len(shared)))
        counts.append(np.diff(bounds))
        if not len(starts):
            break
        tokens.append(sequences.ids[sequences.starts[starts] + depth])
        rows.append(starts)
        parents, depth = starts, depth + 1
    child = 1 + np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return {"token": np.concatenate(tokens), "row": np.concatenate(rows), "child": child}

"""The article's look-ahead: continuations that can still cover more of the question weigh more.

    p_k ← p_k^(1 / (D_k + 1)),   D_k = max over keys through k of LCS(key, Q) − LCS(prefix, Q)

LCS is the longest common subsequence of token ids. Its row over the question is carried along
with each hypothesis and moved on by one token in one vector operation:

    row[j] ← max_{i ≤ j} max(row[i], row[i−1] + (token = Q_i))
"""

import numpy as np


def first_row(question: np.ndarray) -> np.ndarray:
    """The row of an empty prefix: [length + 1] zeros."""
    return np.zeros(len(question) + 1, "int32")


def next_row(rows: np.ndarray, tokens: np.ndarray, question: np.ndarray) -> np.ndarray:
    """Rows [n, length + 1] after one more token each [n]; ``row[-1]`` is the LCS.

    >>> row = first_row(np.array([5, 6, 7]))
    >>> for token in (7, 5, 6):
    ...     row = next_row(row[None], np.array([token]), np.array([5, 6, 7]))[0]
    >>> int(row[-1])
    2
    """
    longer = rows[:, :-1] + (tokens[:, None] == question)
    return np.maximum.accumulate(
        np.concatenate([rows[:, :1], np.maximum(rows[:, 1:], longer)], 1), axis=1)


def path_gains(row: np.ndarray, paths: np.ndarray, question: np.ndarray) -> np.ndarray:
    """What each path adds to the LCS [n].

    paths: [n, length] tokens to the end of the key (or of its part), padded by −1. As in the
    article the last end token is not counted.
    """
    rows = np.repeat(row[None], len(paths), axis=0)
    last = (paths >= 0).sum(1) - 1
    for column in range(paths.shape[1]):
        going = np.flatnonzero(column < last)
        rows[going] = next_row(rows[going], paths[going, column], question)
    return rows[:, -1] - row[-1]


def gains(row: np.ndarray, paths: np.ndarray, question: np.ndarray) -> dict[int, int]:
    """First token of each path → the most its paths add to the LCS."""
    best: dict[int, int] = {}
    for token, gain in zip(paths[:, 0].tolist(), path_gains(row, paths, question).tolist()):
        best[token] = max(gain, best.get(token, 0))
    return best

"""A start for small models: embeddings that know which tokens keep company.

Masked language models from scratch spend their first thousands of steps on what counting tells
at once: how frequent a token is, and which tokens stand near which. So count. With n(a, b) the
number of times a stands at most ``window`` places from b,

    PPMI(a, b) = max(0, log n(a, b) n / (n(a) n(b)))  ≈  U Σ Uᵀ,     embedding = U √Σ, scaled,

and the head's bias starts as the logarithm of the frequencies. (Levy and Goldberg 2014 show that
word2vec factorises the same matrix.)
"""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np


def cooccurrence_start(batches: Iterable[np.ndarray], vocab_size: int, size: int,
                       window: int = 4, deviation: float = 0.05,
                       seed: int = 42) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [vocab_size, size] of the given deviation and log frequencies [vocab_size].

    batches: arrays [batch, length] of ids, 0 for padding; they are streamed, once.

    >>> embeddings, bias = cooccurrence_start([np.array([[1, 2, 1, 2], [3, 4, 3, 4]])], 5, 2)
    >>> bool(embeddings[1] @ embeddings[2] > embeddings[1] @ embeddings[3])
    True
    """
    from scipy import sparse

    pairs = sparse.csr_matrix((vocab_size, vocab_size))
    counts = np.zeros(vocab_size)
    for ids in batches:
        ids = np.asarray(ids)
        counts += np.bincount(ids[ids > 0], minlength=vocab_size)
        pairs = pairs + _pairs(ids, window, vocab_size)
    embeddings = _factors(_ppmi(pairs + pairs.T), size, seed)
    spread = embeddings[counts > 0].std() or 1.0
    return ((deviation / spread * embeddings).astype("float32"),
            np.log((counts + 1) / (counts + 1).sum()).astype("float32"))


def _pairs(ids: np.ndarray, window: int, vocab_size: int):
    from scipy import sparse

    left = [ids[:, :-step].ravel() for step in range(1, min(window, ids.shape[1] - 1) + 1)]
    right = [ids[:, step:].ravel() for step in range(1, min(window, ids.shape[1] - 1) + 1)]
    rows, columns = np.concatenate(left), np.concatenate(right)
    real = (rows > 0) & (columns > 0)
    ones = np.ones(real.sum())
    return sparse.csr_matrix((ones, (rows[real], columns[real])), (vocab_size, vocab_size))


def _ppmi(pairs):
    pairs = pairs.tocoo()
    sums = np.asarray(pairs.sum(axis=1)).ravel()
    pairs.data = np.maximum(0, np.log(pairs.data * sums.sum() / sums[pairs.row]
                                      / sums[pairs.col]))
    return pairs.tocsr()


def _factors(matrix, size: int, seed: int) -> np.ndarray:
    """U √Σ of the leading ``size`` singular vectors, filled up with 0 where there are fewer."""
    from sklearn.utils.extmath import randomized_svd

    rank = min(size, matrix.shape[0])
    u, s, _ = randomized_svd(matrix, rank, random_state=seed)
    return np.pad(u * np.sqrt(s), ((0, 0), (0, size - rank)))


def of_records(folder: str | Path, vocab_size: int, size: int, maxlen: int,
               sequences: int = 140_000) -> tuple[np.ndarray, np.ndarray]:
    """:func:`cooccurrence_start` of the first ``sequences`` of a folder of records."""
    from bert_theseus.wobert.records import batches, read_index

    count = min(sequences, read_index(folder)["train"]["sequences"])
    batch = min(2048, count)
    rows = islice(batches(folder, batch, maxlen, seed=0), count // batch)
    return cooccurrence_start((np.abs(row.numpy()) for row in rows), vocab_size, size)

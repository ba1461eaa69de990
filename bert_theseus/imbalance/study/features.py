"""Fixed features of texts, so that a study of losses trains only the last layer.

"ngrams": characters and pairs of them, tf-idf, projected on the leading singular vectors of the
training texts (latent semantic analysis by a randomised range finder). "bert": the mean of the
last hidden states of a published BERT. Both are standardised with the training texts' statistics.
"""

import zlib

import numpy as np
from bert4keras.tokenizers import Tokenizer
from scipy import sparse
from tqdm import tqdm

from bert_theseus.checkpoint import bert_folder, load_bert

BUCKETS = 2 ** 16


def text_features(texts: dict, kind: str, size: int = 256, bert_dir: str | None = None,
                  maxlen: int = 64) -> dict:
    """split → features [rows, size], float32; texts: split → list of strings.

    kind: "ngrams", or "bert" with the folder of a published model (size is then its own).
    """
    if kind == "bert":
        features = {split: bert_features(part, bert_dir, maxlen) for split, part in texts.items()}
    else:
        features = ngram_features(texts, size)
    mean, std = features["train"].mean(0), features["train"].std(0)
    return {split: ((part - mean) / (std + 1e-6)).astype("float32")
            for split, part in features.items()}


def ngram_features(texts: dict, size: int) -> dict:
    """Latent semantic analysis of character unigrams and bigrams, fitted to the split "train"."""
    counts = {split: ngram_counts(part) for split, part in texts.items()}
    seen = np.asarray((counts["train"] > 0).sum(0)).ravel()
    idf = (np.log((1 + len(texts["train"])) / (1 + seen)) * (seen > 1)).astype("float32")
    weighted = {split: _unit_rows(_sublinear(part) @ sparse.diags(idf))
                for split, part in counts.items()}
    basis = leading_directions(weighted["train"], size)               # [buckets, size]
    return {split: part @ basis for split, part in weighted.items()}


def ngram_counts(texts) -> sparse.csr_matrix:
    """Hashed counts of characters and neighbouring pairs, [texts, buckets]."""
    columns, ends = [], [0]
    for text in texts:
        grams = [*text, *(a + b for a, b in zip(text, text[1:]))]
        columns += [zlib.crc32(gram.encode()) % BUCKETS for gram in grams]
        ends.append(len(columns))
    matrix = sparse.csr_matrix((np.ones(len(columns), "float32"), columns, ends),
                               (len(ends) - 1, BUCKETS))
    matrix.sum_duplicates()
    return matrix


def leading_directions(matrix, size: int, rounds: int = 2) -> np.ndarray:
    """The leading right singular vectors [columns, size], by randomised subspace iteration."""
    size = min(size, min(matrix.shape) - 1)
    start = np.random.default_rng(0).normal(size=(matrix.shape[0], size + 20))
    found = matrix.T @ start.astype(matrix.dtype)
    for _ in range(rounds):
        found = matrix.T @ (matrix @ np.linalg.qr(found)[0])
    basis = np.linalg.qr(found)[0]
    seen = matrix @ basis
    _, rotation = np.linalg.eigh((seen.T @ seen).astype("float64"))    # ascending
    return (basis @ rotation[:, ::-1][:, :size]).astype("float32")


def _sublinear(counts):
    counts = counts.copy()
    counts.data = 1 + np.log(counts.data)
    return counts


def _unit_rows(matrix):
    matrix = matrix.tocsr()
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
    return sparse.diags(1 / np.maximum(norms, 1e-9)) @ matrix


def bert_features(texts, bert_dir: str, maxlen: int, batch_size: int = 64) -> np.ndarray:
    """Mean of the last hidden states over the tokens, [texts, hidden], texts sorted by length."""
    model = load_bert(bert_dir).model
    tokenizer = Tokenizer(bert_folder(bert_dir).dict_path, do_lower_case=True)
    ids = [tokenizer.encode(text, maxlen=maxlen)[0] for text in texts]
    order = np.argsort([len(row) for row in ids])
    result = np.zeros((len(ids), model.output_shape[-1]), "float32")
    for start in tqdm(range(0, len(ids), batch_size), "hidden states", delay=3, leave=False):
        rows = order[start:start + batch_size]
        tokens = np.zeros((len(rows), max(len(ids[i]) for i in rows)), "int32")
        for row, i in zip(tokens, rows):
            row[:len(ids[i])] = ids[i]
        hidden = model.predict_on_batch([tokens, np.zeros_like(tokens)])
        some = (tokens > 0)[..., None]
        result[rows] = (hidden * some).sum(1) / some.sum(1)
    return result

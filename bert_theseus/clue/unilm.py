"""Batches and loss of a Seq2Seq model that is one BERT under a UniLM mask.

    [CLS] question [SEP] answer [SEP]        segments 0 … 0 1 … 1

``build_transformer_model(application="unilm", with_mlm="linear")`` lets the first segment see
itself and the second one all before it; only tokens of the second are predicted.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bert_theseus.clue.batches import NumpyBatches


def unilm_batches(rows: Sequence[tuple[list[int], int]], batch_size: int = 32, seed: int = 0,
                  identity: bytes = b"") -> NumpyBatches:
    """Batches ([token ids, segment ids], targets), all [batch, length].

    rows: token ids of a whole example, and where its answer begins.
    targets[:, t] is the token after position t where that is part of the answer, 0 elsewhere.

    >>> (tokens, segments), targets = next(unilm_batches([([2, 7, 3, 8, 3], 3)], 1).epoch(0))
    >>> segments.tolist(), targets.tolist()
    ([[0, 0, 0, 1, 1]], [[0, 0, 8, 3, 0]])
    """
    def make(index):
        """Rows of the data → one batch, padded to its longest row."""
        length = max(len(rows[i][0]) for i in index)
        tokens, segments = np.zeros((2, len(index), length), "int32")
        for k, i in enumerate(index):
            ids, start = rows[i]
            tokens[k, :len(ids)], segments[k, start:len(ids)] = ids, 1
        targets = np.zeros_like(tokens)
        targets[:, :-1] = np.where(segments[:, 1:] > 0, tokens[:, 1:], 0)
        return [tokens, segments], targets

    return NumpyBatches(len(rows), batch_size, make, seed=seed, identity=identity,
                        lengths=[len(ids) for ids, _ in rows])


def answer_crossentropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy over the answer tokens of a batch.

    targets: [batch, length], 0 where nothing is to be predicted. logits: [batch, length,
    vocabulary] (a model with ``with_mlm="linear"``). Scalar.
    """
    targets = tf.cast(targets, tf.int32)
    counts = tf.cast(targets > 0, logits.dtype)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)  # [batch, length]
    return tf.reduce_sum(loss * counts) / tf.reduce_sum(counts)

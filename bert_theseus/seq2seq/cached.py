"""A UniLM-masked BERT, RoFormer or NEZHA, one call per few tokens instead of per sequence.

In a UniLM mask the question never looks at the answer, and an answer token looks at the question
and at the answer before it. So keys and values of the question are computed once and shared by
all beams of that question; those of the answers go into a pool to which every call adds. A beam
is then no copy of a cache but a mask over the pool: which entries are its own past. Reordering
beams reorders rows of that mask, and candidates that share a prefix share its entries.

    a = softmax([q·K_question ; q·K_pool masked to the past]),  o = a·[V_question ; V_pool]

The layers are the model's own, called one by one, so the weights stay where they are.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError

_INT, _FLOAT, _BOOL = tf.int32, tf.float32, tf.bool


class Question(NamedTuple):
    """Encoded questions: keys and values of every layer, which positions are filled, lengths."""

    keys: list        # of [batch, length, heads, size]
    values: list
    mask: tf.Tensor   # [batch, length]
    lengths: tf.Tensor


class Pool(NamedTuple):
    """Keys and values of answer tokens, and their positions, for every layer."""

    keys: list        # of [batch, entries, heads, size]
    values: list
    positions: tf.Tensor  # [batch, entries]


class CachedUniLM:
    """Wraps ``build_transformer_model(..., application="unilm")`` of type BERT, RoFormer, NEZHA.

    Log probabilities equal those of the model on the whole sequence. Raises InputError for
    other models.

    >>> from bert4keras.models import build_transformer_model
    >>> model = build_transformer_model(
    ...     None, None, "roformer", "unilm", vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=8, hidden_act="gelu", with_mlm=True)
    >>> cached = CachedUniLM(model)
    >>> question, first = cached.encode(np.array([[2, 5, 3]]))
    >>> first.shape, round(float(tf.reduce_sum(tf.exp(first))), 4)
    (TensorShape([1, 9]), 1.0)
    """

    def __init__(self, model: keras.Model):
        self._layers = {layer.name: layer for layer in model.layers}
        self.num_layers = sum(f"Transformer-{i}-FeedForward" in self._layers
                              for i in range(len(self._layers)))
        self._check(model)
        attention = self._layer("Transformer-0-MultiHeadSelfAttention")
        self._sizes = attention.key_size, attention.head_size
        self.heads = attention.heads
        self.max_position = self._layer("Embedding-Position").input_dim \
            if "Embedding-Position" in self._layers else None
        self._compile()

    def _layer(self, name: str):
        return self._layers[name]

    def _check(self, model) -> None:
        needed = ["Embedding-Token", "Embedding-Segment", "MLM-Dense", "MLM-Bias",
                  "Attention-UniLM-Mask", "Transformer-0-MultiHeadSelfAttention"]
        missing = [name for name in needed if name not in self._layers]
        if missing:
            raise InputError(f"the model has no layer {missing[0]}", "model",
                             'use build_transformer_model(..., with_mlm=True, '
                             'application="unilm") of type bert, roformer or nezha')

    def _compile(self) -> None:
        """One graph for all batch sizes and lengths."""
        def cache(size):
            return [tf.TensorSpec([None, None, self.heads, size], _FLOAT)] * self.num_layers
        keys, values = (cache(size) for size in self._sizes)
        question = Question(keys, values, tf.TensorSpec([None, None], _BOOL),
                            tf.TensorSpec([None], _INT))
        pool = Pool(keys, values, tf.TensorSpec([None, None], _INT))
        square = tf.TensorSpec([None, None], _INT)
        self._encode = tf.function(self._encode, input_signature=[square])
        self._extend = tf.function(self._extend, input_signature=[
            question, pool, square, square, tf.TensorSpec([None, None, None], _BOOL), square,
            tf.TensorSpec([None], _INT), tf.TensorSpec([None], _INT)])
        self._select = tf.function(self._select, input_signature=[
            question, pool, tf.TensorSpec([None], _INT)])

    @property
    def traces(self) -> int:
        """How often a graph was traced; stays at one per function whatever the shapes."""
        return sum(f.experimental_get_tracing_count()
                   for f in (self._encode, self._extend, self._select))

    # ---- calls -----------------------------------------------------------------------------
    def encode(self, token_ids: np.ndarray) -> tuple[Question, tf.Tensor]:
        """Questions [batch, length] padded by 0 → their cache, and log probabilities
        [batch, vocabulary] of the first answer token."""
        return self._encode(tf.convert_to_tensor(token_ids, _INT))

    def empty_pool(self, batch: int) -> Pool:
        """A pool without entries."""
        keys, values = ([tf.zeros([batch, 0, self.heads, size])] * self.num_layers
                        for size in self._sizes)
        return Pool(keys, values, tf.zeros([batch, 0], _INT))

    def extend(self, question: Question, pool: Pool, tokens: np.ndarray, depths: np.ndarray,
               mask: np.ndarray, wanted: np.ndarray, rows: np.ndarray, targets: np.ndarray):
        """Runs new answer tokens and adds them to the pool.

        tokens, depths: [batch, new], the depth counted from the answer's first token (0).
        mask: [batch, new, entries + new], which entries (new ones included) each may look at.
        wanted: [n, 2], (batch index, index among the new) whose predictions are asked for.
        rows, targets: [c], of prediction ``rows[i]`` the probability of token ``targets[i]``.
        Returns the log probabilities [c] over the full vocabulary, and the grown pool.
        """
        whole = [tf.convert_to_tensor(x, _INT) for x in (tokens, depths, wanted, rows, targets)]
        return self._extend(question, pool, *whole[:2], tf.convert_to_tensor(mask, _BOOL),
                            *whole[2:])

    def select(self, question: Question, pool: Pool, rows: np.ndarray) -> tuple[Question, Pool]:
        """The caches of some questions of the batch."""
        return self._select(question, pool, tf.convert_to_tensor(rows, _INT))

    # ---- graphs ----------------------------------------------------------------------------
    def _encode(self, tokens):
        mask = tokens > 0
        lengths = tf.reduce_sum(tf.cast(mask, _INT), 1)
        positions = tf.broadcast_to(tf.range(tf.shape(tokens)[1])[None], tf.shape(tokens))
        x = self._embed(tokens, tf.zeros_like(tokens), positions)
        keys, values = [], []
        for i in range(self.num_layers):
            q, k, v = self._project(i, x, positions)
            keys.append(k)
            values.append(v)
            x = self._block(i, x, q, [(k, v, positions, mask[:, None])], positions)
        last = tf.gather(x, lengths - 1, batch_dims=1)                    # [batch, hidden]
        return Question(keys, values, mask, lengths), self._predict(last)

    def _extend(self, question, pool, tokens, depths, mask, wanted, rows, targets):
        positions = question.lengths[:, None] + depths
        grown = tf.concat([pool.positions, positions], 1)
        spare = -tf.shape(grown)[1] % 16  # few different shapes, see ``beams.Session``
        places = tf.pad(grown, [[0, 0], [0, spare]])
        mask = tf.pad(mask, [[0, 0]] * 2 + [[0, spare]])
        asked = tf.broadcast_to(tf.range(tf.shape(question.mask)[1])[None],
                                tf.shape(question.mask))
        x = self._embed(tokens, tf.ones_like(tokens), positions)
        keys, values = [], []
        for i in range(self.num_layers):
            q, k, v = self._project(i, x, positions)
            keys.append(tf.concat([pool.keys[i], k], 1))
            values.append(tf.concat([pool.values[i], v], 1))
            spared = [tf.pad(x, [[0, 0], [0, spare], [0, 0], [0, 0]])
                      for x in (keys[i], values[i])]
            x = self._block(i, x, q, [
                (question.keys[i], question.values[i], asked, question.mask[:, None]),
                (*spared, places, mask)], positions)
        predictions = self._predict(tf.gather_nd(x, wanted))              # [n, vocabulary]
        return (tf.gather_nd(predictions, tf.stack([rows, targets], 1)),
                Pool(keys, values, grown))

    def _select(self, question, pool, rows):
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), (question, pool))

    # ---- the model's layers ----------------------------------------------------------------
    def _embed(self, tokens, segments, positions):
        x = self._layer("Embedding-Token")(tokens) + self._layer("Embedding-Segment")(segments)
        if "Embedding-Position" in self._layers:
            x += tf.gather(self._layer("Embedding-Position").embeddings, positions)
        x = self._layer("Embedding-Norm")(x)
        return self._layer("Embedding-Mapping")(x) if "Embedding-Mapping" in self._layers else x

    def _project(self, i, x, positions):
        """Queries, keys, values [batch, length, heads, size], rotated where the model rotates."""
        layer = self._layer(f"Transformer-{i}-MultiHeadSelfAttention")
        q, k, v = (self._split(dense(x)) for dense in (layer.q_dense, layer.k_dense, layer.v_dense))
        if "Embedding-Rotary-Position" in self._layers:
            q, k = _rotate(q, positions), _rotate(k, positions)
        return q, k, v

    def _split(self, x):
        shape = tf.shape(x)
        return tf.reshape(x, [shape[0], shape[1], self.heads, x.shape[-1] // self.heads])

    def _block(self, i, x, q, parts, positions):
        name = f"Transformer-{i}-"
        attention = self._layer(name + "MultiHeadSelfAttention")
        o = self._attend(q, parts, positions, attention.key_size, attention.attention_scale)
        shape = tf.shape(o)
        o = attention.o_dense(tf.reshape(o, [shape[0], shape[1], self.heads * self._sizes[1]]))
        x = self._layer(name + "MultiHeadSelfAttention-Norm")(x + o)
        return self._layer(name + "FeedForward-Norm")(x + self._layer(name + "FeedForward")(x))

    def _attend(self, q, parts, positions, key_size, scale):
        scores, relative = [], []
        for k, _, places, mask in parts:
            a = tf.einsum("bqhd,bkhd->bhqk", q, k)
            if "Embedding-Relative-Position" in self._layers:
                relative.append(self._relative(positions, places))        # [b, q, k, d]
                a += tf.einsum("bqhd,bqkd->bhqk", q, relative[-1])
            a = a / key_size**0.5 if scale else a
            scores.append(tf.where(mask[:, None], a, _FLOAT.min / 2))
        weights = tf.nn.softmax(tf.concat(scores, -1))
        weights = tf.split(weights, [tf.shape(k)[1] for k, _, _, _ in parts], -1)
        o = sum(tf.einsum("bhqk,bkhd->bqhd", a, part[1]) for a, part in zip(weights, parts))
        for a, r in zip(weights, relative):
            o += tf.einsum("bhqk,bqkd->bqhd", a, r)
        return o

    def _relative(self, positions, places):
        table = self._layer("Embedding-Relative-Position").embeddings
        reach = (table.shape[0] - 1) // 2
        distance = places[:, None, :] - positions[:, :, None]
        return tf.gather(table, tf.clip_by_value(distance, -reach, reach) + reach)

    def _predict(self, x):
        """Log probabilities [n, vocabulary] after tokens with final states [n, hidden]."""
        x = self._layer("MLM-Norm")(self._layer("MLM-Dense")(x))
        x = tf.matmul(x, self._layer("Embedding-Token").embeddings, transpose_b=True)
        return tf.nn.log_softmax(self._layer("MLM-Bias")(x))


def _rotate(x, positions):
    """Rotary position embedding of [batch, length, heads, size] at ``positions``."""
    size = x.shape[-1]
    angle = tf.cast(positions, _FLOAT)[..., None] * (
        10000.0 ** (-2 * tf.range(size // 2, dtype=_FLOAT) / size))       # [b, n, size/2]
    sin, cos = tf.sin(angle)[:, :, None, :, None], tf.cos(angle)[:, :, None, :, None]
    shape = tf.shape(x)
    pairs = tf.reshape(x, tf.concat([shape[:3], [size // 2, 2]], 0))
    a, b = pairs[..., :1], pairs[..., 1:]
    return tf.reshape(tf.concat([a * cos - b * sin, b * cos + a * sin], -1), shape)

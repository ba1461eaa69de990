"""Per-example gradients as short factors, one site a layer; kexue.fm/archives/8009.

The tangent kernel is a sum over the trainable weights, so it is a sum over layers ("sites"):

    K(q, x)_{dc} = Σ_sites <∂f_d(q)/∂W, ∂f_c(x)/∂W>
    dense layer      Σ_{p,s} (h_q,p · h_x,s + 1) (δ_q,d,p · δ_x,c,s)           δ = ∂f/∂(h W + b)
    embedding layer  Σ_{p,s} [id_q,p = id_x,s]   (δ_q,d,p · δ_x,c,s)
    anything else    the gradient itself, from ``vectorized_map``

with p, s running over positions. The matrices h ⊗ δ are never formed unless that is cheaper
(long sequences in narrow layers); both ways give the same number.

>>> factor = Factor(tf.ones([1, 1, 3]), tf.ones([1, 1, 1, 2]))     # h [1, 1, 3], δ [1, 1, 1, 2]
>>> float(pair_signals(factor, factor, same=False)[0, 0, 0, 0, 0, 0])
2.0
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_theseus.path_kernel.recording import Call, is_dense


class Factor(NamedTuple):
    """What one site keeps of a batch.

    left:  inputs [batch, positions, size] (dense), ids [batch, positions] (embedding), or None.
    right: signals [batch, cotangents, positions, units].
    """

    left: tf.Tensor | None
    right: tf.Tensor


def pair_signals(query: Factor, example: Factor, same: bool) -> tf.Tensor:
    """All inner products of signals, [batch, cotangents, positions, queries, outputs, positions];
    ``same`` pairs output d of the query with output d of the example only (one cotangent)."""
    if same:
        products = tf.einsum("bdsn,qdpn->bsqdp", example.right, query.right)
        return products[:, None]
    q, e = tf.shape(query.right), tf.shape(example.right)
    units = query.right.shape[-1]
    flat = tf.matmul(tf.reshape(example.right, [-1, units]), tf.reshape(query.right, [-1, units]),
                     transpose_b=True)
    return tf.reshape(flat, tf.concat([e[:3], q[:3]], 0))


class Site:
    """A set of weights whose gradients are kept and contracted in one way."""

    variables: list[tf.Variable]

    def pairwise(self, query: Factor, example: Factor, same: bool) -> tf.Tensor:
        """<gradient of the query, gradient of the example>, [batch, queries, outputs, cotangents].
        """
        signals = pair_signals(query, example, same)
        return tf.einsum("bcsqdp,bsqp->bqdc", signals, self._overlap(query, example))

    def gradients(self, factor: Factor) -> list[tf.Tensor]:
        """The gradients themselves, one [batch, cotangents, *shape] a variable."""
        raise NotImplementedError

    def _overlap(self, query, example):
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(int(np.prod(v.shape)) for v in self.variables)


class DenseSite(Site):
    """Kernel and bias of a Dense layer, over every position and every call.

    >>> from bert_theseus.backend import keras
    >>> layer = keras.layers.Dense(2); _ = layer.build((None, 3))
    >>> factor = Factor(tf.ones([1, 1, 3]), tf.ones([1, 1, 1, 2]))
    >>> DenseSite(layer).pairwise(factor, factor, same=False).numpy().item()     # (1·1·3 + 1) · 2
    8.0
    """

    def __init__(self, layer):
        self.layer = layer
        self.variables = [layer.kernel] + ([layer.bias] if layer.use_bias else [])

    def inputs(self, calls: list[Call]) -> tf.Tensor:
        """h [batch, positions, size], the calls of the layer one after another."""
        return tf.concat([_positions(call.inputs, 1) for call in calls], axis=1)

    def pairwise(self, query, example, same):
        """As :meth:`Site.pairwise`; with one position each, without its sum over positions."""
        if query.left.shape[1] == example.left.shape[1] == 1:
            signals = pair_signals(query, example, same)[:, :, 0, :, :, 0]      # [b, c, q, d]
            overlap = self._overlap(query, example)[:, 0, :, 0]                 # [b, q]
            return tf.transpose(signals * overlap[:, None, :, None], [0, 2, 3, 1])
        return super().pairwise(query, example, same)

    def gradients(self, factor):
        """Of kernel [batch, cotangents, size, units] and bias [batch, cotangents, units]."""
        kernel = tf.einsum("bpm,bcpn->bcmn", factor.left, factor.right)
        return [kernel] + ([tf.reduce_sum(factor.right, 2)] if self.layer.use_bias else [])

    def _overlap(self, query, example):
        overlap = tf.tensordot(example.left, query.left, [[2], [2]])            # [b, s, q, p]
        return overlap + 1.0 if self.layer.use_bias else overlap


class EmbeddingSite(Site):
    """The table of an embedding layer: only positions with the same id meet.

    >>> from bert_theseus.backend import keras
    >>> layer = keras.layers.Embedding(9, 2); _ = layer.build(None)
    >>> one = lambda ids: Factor(tf.constant([ids]), tf.ones([1, 1, 2, 2]))
    >>> EmbeddingSite(layer).pairwise(one([3, 4]), one([4, 4]), same=False).numpy().item()
    4.0
    """

    def __init__(self, layer):
        self.layer, self.variables = layer, [layer.embeddings]

    def inputs(self, calls: list[Call]) -> tf.Tensor:
        """Ids [batch, positions]."""
        return tf.concat([_positions(call.inputs, 0) for call in calls], axis=1)

    def pairwise(self, query, example, same):
        """As :meth:`Site.pairwise`, over the pairs of positions that meet."""
        met = self._met(query, example)                                         # [m, 4]
        b, s, q, p = tf.unstack(met, axis=1)
        of_example = tf.gather_nd(tf.transpose(example.right, [0, 2, 1, 3]), tf.stack([b, s], 1))
        of_query = tf.gather_nd(tf.transpose(query.right, [0, 2, 1, 3]), tf.stack([q, p], 1))
        rule = "mdn,mdn->md" if same else "mdn,mcn->mdc"
        products = tf.einsum(rule, of_query, of_example)
        products = products[..., None] if same else products
        batch, queries = tf.shape(example.left)[0], tf.shape(query.left)[0]
        total = tf.math.unsorted_segment_sum(
            products, b * tf.cast(queries, b.dtype) + q, batch * queries)
        return tf.reshape(total, tf.concat([[batch, queries], tf.shape(products)[1:]], 0))

    def gradients(self, factor):
        """Of the table, [batch, cotangents, words, units]: signals summed by id."""
        shape = tf.shape(factor.right)
        rows = shape[0] * shape[1]
        units, words = factor.right.shape[-1], self.variables[0].shape[0]
        ids = tf.repeat(factor.left, shape[1], axis=0)                          # [b · c, p]
        flat = tf.reshape(ids + words * tf.range(rows)[:, None], [-1])
        table = tf.math.unsorted_segment_sum(
            tf.reshape(factor.right, [-1, units]), flat, rows * words)
        return [tf.reshape(table, [shape[0], shape[1], words, units])]

    def _met(self, query, example):
        """Places [m, 4] = (b, s, q, p) of equal ids whose signals are not all zero (padding)."""
        alive = tf.reduce_any(example.right != 0, axis=[1, 3])                  # [b, s]
        wanted = tf.reduce_any(query.right != 0, axis=[1, 3])                   # [q, p]
        equal = example.left[:, :, None, None] == query.left[None, None]
        return tf.where(equal & alive[:, :, None, None] & wanted[None, None])


class WholeSite(Site):
    """Weights of any other layer: the factor's right side is the gradient itself."""

    def __init__(self, variables):
        self.variables = list(variables)

    def pairwise(self, query, example, same):
        """As :meth:`Site.pairwise`: the signals are the gradients, flat."""
        signals = pair_signals(query, example, same)[:, :, 0, :, :, 0]          # [b, c, q, d]
        return tf.transpose(signals, [0, 2, 3, 1])

    def gradients(self, factor):
        """One [batch, cotangents, *shape] a variable, cut out of the flat gradient."""
        sizes = [int(np.prod(v.shape)) for v in self.variables]
        parts = tf.split(factor.right[:, :, 0], sizes, axis=-1)
        lead = tf.shape(factor.right)[:2]
        return [tf.reshape(part, tf.concat([lead, tf.constant(v.shape.as_list(), tf.int32)], 0))
                for part, v in zip(parts, self.variables)]


def layer_site(layer) -> Site:
    """The site of a Dense or an embedding layer."""
    return DenseSite(layer) if is_dense(layer) else EmbeddingSite(layer)


def _positions(x, kept):
    """Everything between the batch axis and the last ``kept`` axes made one axis of positions."""
    last = x.shape[x.shape.rank - kept:].as_list()
    between = x.shape[1:x.shape.rank - kept]
    count = int(np.prod(between)) if between.is_fully_defined() else -1
    return tf.reshape(x, [tf.shape(x)[0], count, *last])

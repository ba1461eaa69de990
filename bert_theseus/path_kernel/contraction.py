"""Inner products of query gradients and example gradients, the cheaper way at each site.

    pairwise:      Q E p s (m + D C n)              factors against factors, nothing formed
    materialised:  (Q D p + E C s) m n + Q D E C m n    matrices formed, one matrix product

for Q queries with D outputs and p positions, E examples with C cotangents and s positions, at a
layer from m to n units. Forward-mode products (``forward_products``) need no example gradient at
all: one pass over the batch for each query and output gives all outputs of all examples.

>>> from bert_theseus.backend import keras
>>> factor = Factor(tf.ones([2, 1, 3]), tf.ones([2, 1, 1, 2]))
>>> layer = keras.layers.Dense(2); _ = layer.build((None, 3))
>>> contract([DenseSite(layer)], [factor], [factor]).shape
TensorShape([2, 2, 1, 1])
"""

from collections.abc import Sequence

import tensorflow as tf

from bert_theseus.path_kernel.recording import recorded
from bert_theseus.path_kernel.signals import Signals, flat
from bert_theseus.path_kernel.sites import DenseSite, EmbeddingSite, Factor, Site

Gradients = Sequence[tf.Tensor]


def contract(sites: Sequence[Site], queries: Sequence[Factor], examples: Sequence[Factor],
             same: bool = False) -> tf.Tensor:
    """Σ over sites of the inner products, [examples, queries, outputs, cotangents].

    same: pair output d with cotangent d only (the last axis is then 1).
    """
    parts = [_site_products(site, q, e, same) for site, q, e in zip(sites, queries, examples)]
    return tf.add_n(parts)


def _site_products(site, query, example, same):
    if prefers_matrices(site, query, example):
        return against(site.gradients(query), site.gradients(example), same)
    return site.pairwise(query, example, same)


def prefers_matrices(site: Site, query: Factor, example: Factor) -> bool:
    """Whether forming the gradients costs fewer operations than factors against factors."""
    if not isinstance(site, DenseSite):
        return False
    outputs, p = query.right.shape[1], query.left.shape[1]
    cotangents, s = example.right.shape[1], example.left.shape[1]
    m, n = site.layer.kernel.shape
    if None in (outputs, p, cotangents, s) or p * s == 1:
        return False
    # per query and example; forming the matrices is shared by all of them and left out
    return m * n * outputs * cotangents < p * s * (m + outputs * cotangents * n)


def against(queries: Gradients, examples: Gradients, same: bool = False) -> tf.Tensor:
    """<query gradient, example gradient> over lists of variables.

    queries: [queries, outputs, *shape] a variable; examples: [batch, cotangents, *shape].
    Returns [batch, queries, outputs, cotangents (1 if ``same``)].
    """
    return tf.add_n([_matrix_products(q, e, same) for q, e in zip(queries, examples)])


def _matrix_products(query, example, same):
    q, e = tf.shape(query), tf.shape(example)
    if same:
        query = tf.reshape(query, [q[0], q[1], -1])
        products = tf.einsum("bdk,qdk->bqd", tf.reshape(example, [e[0], e[1], -1]), query)
        return products[..., None]
    flat = tf.matmul(tf.reshape(example, [e[0] * e[1], -1]), tf.reshape(query, [q[0] * q[1], -1]),
                     transpose_b=True)
    products = tf.reshape(flat, [e[0], e[1], q[0], q[1]])
    return tf.transpose(products, [0, 2, 3, 1])


def site_gradients(sites: Sequence[Site], factors: Sequence[Factor]) -> list[tf.Tensor]:
    """Gradients as [batch, cotangents, *shape], in the order of the sites' variables."""
    return [g for site, factor in zip(sites, factors) for g in site.gradients(factor)]


def working_bytes(signals: Signals, factors: Sequence[Factor], batch: int, queries: int,
                  outputs: int) -> int:
    """Bytes the products of one example with all queries take at the widest site, roughly."""
    widest = 0
    for site, (left, right) in zip(signals.sites, factors):
        _, cotangents, positions, units = right.shape
        pairs = queries * outputs * cotangents
        if isinstance(site, DenseSite):
            formed = cotangents * site.size
            meeting = pairs * positions**2
            widest = max(widest, pairs + (formed if positions > 1 else 0) + meeting)
        elif isinstance(site, EmbeddingSite):        # a tenth of the places taken to have equal ids
            meeting = queries * positions**2
            widest = max(widest, pairs + meeting * (1 + units * (outputs + cotangents) // 10))
        else:
            widest = max(widest, pairs + 4 * cotangents * site.size)
    return 3 * widest * factors[0].right.dtype.size


def forward_products(signals: Signals, variables: Sequence[tf.Variable], queries: Gradients,
                     x, seeds: tf.Tensor | None) -> tf.Tensor:
    """J_i · v for every query gradient v by forward-mode differentiation.

    queries: [queries, outputs, *shape], one a variable. Returns [batch, queries, outputs,
    outputs of the example].
    """
    shape = tf.shape(queries[0])[:2]
    rows = [tf.reshape(g, tf.concat([[-1], tf.shape(g)[2:]], 0)) for g in queries]

    def one(tangents):
        """J_i · v [batch, outputs of the example] for one query gradient v."""
        with tf.autodiff.ForwardAccumulator(variables, list(tangents)) as forward:
            with recorded([], seeds):
                f = flat(signals.model(x, training=signals.training))
        return forward.jvp(f, unconnected_gradients="zero")
    products = tf.map_fn(one, tuple(rows), fn_output_signature=rows[0].dtype)   # [q·d, b, c]
    products = tf.transpose(products, [1, 0, 2])
    lead = tf.concat([tf.shape(products)[:1], shape, tf.shape(products)[2:]], 0)
    return tf.reshape(products, lead)

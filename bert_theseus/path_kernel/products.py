"""Contributions and kernel of one chunk of examples with all queries of a step, compiled.

    contributions  Σ_c K_dc(q, x_i) a_{i,c}     [batch, queries, outputs]
    kernel         K_dc ("full"), mean over d of K_dd ("mean"), or nothing

Without a kernel one backward pass with the cotangent a does; with it, every output is a cotangent.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bert_theseus.path_kernel.contraction import (against, contract, forward_products,
                                                  site_gradients)
from bert_theseus.path_kernel.quadrature import Rule
from bert_theseus.path_kernel.result import PathKernel
from bert_theseus.path_kernel.signals import Signals
from bert_theseus.path_kernel.sites import Factor

KERNELS = (None, "mean", "full")


class Products:
    """The products of one model, quadrature rule and kind of kernel.

    >>> from bert_theseus.path_kernel.products import KERNELS
    >>> KERNELS
    (None, 'mean', 'full')
    """

    def __init__(self, signals: Signals, rule: Rule, kernel: str | None):
        self.signals, self.rule, self.kernel = signals, rule, kernel
        self.of_factors = tf.function(self._of_factors, reduce_retracing=True)
        self.of_gradients = tf.function(self._of_gradients, reduce_retracing=True)
        self.query_gradients = tf.function(self._query_gradients, reduce_retracing=True)

    def _query_gradients(self, nodes):
        """∫ J_q ds from the factors at each node: [queries, outputs, *shape] a variable."""
        parts = [[w * g for g in site_gradients(self.signals.sites, factors)]
                 for w, factors in zip(self.rule.weights, nodes)]
        return [tf.add_n(list(column)) for column in zip(*parts)]

    def _of_factors(self, nodes, examples, x, seeds):
        if self.signals.method == "forward":
            return self._of_gradients(self._query_gradients(nodes), examples, x, seeds)

        def pair(factors, same=False):
            return tf.add_n([w * contract(self.signals.sites, node, factors, same)
                             for w, node in zip(self.rule.weights, nodes)])
        return self._split(pair, examples)

    def _of_gradients(self, gradients, examples, x, seeds):
        if self.signals.method == "forward":
            full = forward_products(self.signals, self.signals.variables, gradients, x, seeds)
            return self._from_full(full, examples.pull)

        def pair(factors, same=False):
            return against(gradients, site_gradients(self.signals.sites, factors), same)
        return self._split(pair, examples)

    def _split(self, pair, examples):
        if self.kernel is None:
            return pair(examples.factors)[..., 0], tf.zeros([0], examples.pull.dtype)
        if self.kernel == "full":
            return self._from_full(pair(examples.factors), examples.pull)
        contributions = pair(pulled(examples.factors, examples.pull))[..., 0]
        return contributions, tf.reduce_mean(pair(examples.factors, True)[..., 0], -1)

    def _from_full(self, full, pull):
        contributions = tf.einsum("bqdc,bc->bqd", full, pull)
        if self.kernel == "mean":
            return contributions, tf.reduce_mean(tf.linalg.diag_part(full), -1)
        return contributions, full if self.kernel else tf.zeros([0], pull.dtype)


def pulled(factors: Sequence[Factor], pull: tf.Tensor) -> tuple[Factor, ...]:
    """Factors with all outputs as cotangents → with the one cotangent ``pull``."""
    return tuple(Factor(f.left, tf.einsum("bcsn,bc->bsn", f.right, pull)[:, None])
                 for f in factors)


class Total:
    """Running sums in float64; examples first, so that a chunk is written to whole rows."""

    def __init__(self, count: int, asked: int, outputs: int, kernel: str | None):
        self.contributions = np.zeros([count, asked, outputs])
        shape = {"mean": [count, asked], "full": [count, asked, outputs, outputs]}
        self.kernel = np.zeros(shape[kernel]) if kernel else None

    def add(self, index: np.ndarray, rows: np.ndarray, contributions: tf.Tensor,
            kernel: tf.Tensor) -> None:
        """Adds a chunk's products for the queries ``rows``."""
        rows = _span(rows)
        place = (_span(index), rows) if isinstance(rows, slice) else np.ix_(index, rows)
        self.contributions[place] += contributions.numpy()
        if self.kernel is not None:
            self.kernel[place] += kernel.numpy()

    def queries_first(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(contributions, kernel) with the queries as first axis (views)."""
        kernel = None if self.kernel is None else np.swapaxes(self.kernel, 0, 1)
        return np.swapaxes(self.contributions, 0, 1), kernel

    def finish(self, **fields) -> PathKernel:
        """As a result."""
        contributions, kernel = self.queries_first()
        return PathKernel(contributions=contributions, kernel=kernel, **fields)


def _span(index):
    """A slice where the indices are consecutive (a view instead of a copy)."""
    consecutive = (np.diff(index) == 1).all()
    return slice(int(index[0]), int(index[-1]) + 1) if consecutive else index

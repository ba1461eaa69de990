"""Experiments with a path kernel: leaving examples out, and two data sets' kernels beside the sum.

Deletion: a contribution is what an example added along the path that was walked; without the
example the path is another one. So ``PathKernel.without`` is a first-order guess, and only
training again tells. Additivity: for the same reason the kernels of two data sets do not add up
to the kernel of both (a reader of 8009 asked; the author: the path depends on the data).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.path_kernel.data import length, take
from bert_theseus.path_kernel.machine import PathKernelMachine
from bert_theseus.path_kernel.result import PathKernel


@dataclass(frozen=True)
class Deletion:
    """Change of one output of each query when ``n`` examples are left out of training.

    top:       without the ``n`` with the largest contributions for it [queries].
    predicted: the same, guessed from the contributions without training [queries].
    random:    without ``n`` random ones [queries, draws].
    alike:     without ``n`` random ones that carry the labels of the top ones [queries, draws]: a
               strict comparison, for the balance of the classes then changes alike.
    """

    top: np.ndarray
    predicted: np.ndarray
    random: np.ndarray
    alike: np.ndarray

    @property
    def ratio(self) -> float:
        """Mean absolute change without the top examples, over that without random ones.

        >>> one = np.array([[0.5, -0.5]])
        >>> Deletion(np.array([-2.0]), np.array([-1.5]), random=one, alike=2 * one).ratio
        4.0
        """
        return float(np.abs(self.top).mean() / np.abs(self.random).mean())

    @property
    def strict_ratio(self) -> float:
        """The same over random examples of the same labels."""
        return float(np.abs(self.top).mean() / np.abs(self.alike).mean())

    @property
    def ahead(self) -> float:
        """Share of queries and draws in which the top examples change more than the random ones."""
        return float(np.mean(np.abs(self.top)[:, None] > np.abs(self.random)))


def deletion_test(machine: PathKernelMachine, start: Sequence[np.ndarray], x, y, query_x, n: int,
                  draws: int = 3, seed: int = 0, **options) -> Deletion:
    """Fits once, then trains again from ``start`` without the top and without random examples.

    machine: its model is trained; start: initial weights (``model.get_weights()``).
    n:       how many examples are left out.
    options: of :meth:`PathKernelMachine.fit` (optimizer, epochs, batch_size, …).

    Costs draws + queries × (1 + draws) trainings. The output looked at is the largest of each
    query.
    """
    y, rng = np.asarray(y), np.random.default_rng(seed)
    result = _from(machine, start).fit(x, y, query_x, **options)
    plain = {k: v for k, v in options.items() if k in ("optimizer", "epochs", "batch_size",
                                                       "shuffle")}

    def change(left_out):                                     # [queries, outputs]
        return _without(machine, start, x, y, query_x, left_out, plain) - result.output
    outputs, asked = result.output.argmax(1), np.arange(len(result.output))
    tops = [[c.index for c in result.top_examples(q, n, int(output), side="for")]
            for q, output in enumerate(outputs)]
    own = [[change(left_out)[q, outputs[q]] for left_out in
            [top] + [_alike(rng, y, top) for _ in range(draws)]] for q, top in enumerate(tops)]
    random = [change(rng.choice(len(y), n, replace=False))[asked, outputs] for _ in range(draws)]
    guess = [(result.without(top) - result.output)[q, outputs[q]] for q, top in enumerate(tops)]
    return Deletion(np.array(own)[:, 0], np.array(guess), np.transpose(random),
                    np.array(own)[:, 1:])


@dataclass(frozen=True)
class Additivity:
    """Contributions of two data sets trained apart beside those of training on both.

    apart:    [queries, examples, outputs], each set on its own, put together.
    together: the same examples in one training.
    output:   of the model trained on both; initial: before.
    """

    apart: np.ndarray
    together: np.ndarray
    initial: np.ndarray
    output: np.ndarray

    @property
    def deviation(self) -> float:
        """|apart − together| / |together|, 0 if the kernels added up."""
        return float(np.linalg.norm(self.apart - self.together) / np.linalg.norm(self.together))

    @property
    def sum_error(self) -> float:
        """Error of f_0 + both sums as a share of what training on both changed."""
        summed = self.initial + self.apart.sum(1)
        return float(np.linalg.norm(summed - self.output)
                     / np.linalg.norm(self.output - self.initial))


def additivity(machine: PathKernelMachine, start: Sequence[np.ndarray], x, y, query_x,
               first: int, **options) -> Additivity:
    """Trains on x[:first], on x[first:] and on both, each from ``start``, with a summed loss.

    Raises :class:`InputError` for a mean loss: its weights 1 / batch would differ by themselves.
    """
    if machine.reduction != "sum" or not 0 < first < length(x):
        raise InputError("the data sets cannot be compared", "additivity",
                         "use reduction='sum' and a first part shorter than the whole")
    y, parts = np.asarray(y), (slice(0, first), slice(first, None), slice(None))
    results = [_from(machine, start).fit(take(x, p), y[p], query_x, **options) for p in parts]
    apart = np.concatenate([r.contributions for r in results[:2]], axis=1)
    both: PathKernel = results[2]
    return Additivity(apart, both.contributions, both.initial, both.output)


def _from(machine, start):
    machine.model.set_weights(start)
    return machine


def _alike(rng, y, examples):
    """As many examples of the same labels, none twice."""
    return np.concatenate([
        rng.choice(np.flatnonzero(y == label), count, replace=False)
        for label, count in zip(*np.unique(y[examples], return_counts=True))])


def _without(machine, start, x, y, query, examples, options):
    weights = np.ones(len(y))
    weights[examples] = 0.0
    return _from(machine, start).train(x, y, query, sample_weight=weights, **options)

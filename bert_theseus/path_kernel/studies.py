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
    """Change of one output of each query when examples are left out of training.

    top:       without its ``n`` examples with the largest contributions for it [queries].
    predicted: the same, guessed from the contributions without training [queries].
    random:    without ``n`` random examples of the same labels [queries, draws].
    """

    top: np.ndarray
    predicted: np.ndarray
    random: np.ndarray

    @property
    def ratio(self) -> float:
        """Mean absolute change without the top examples, over that without random ones.

        >>> Deletion(np.array([-2.0]), np.array([-1.5]), np.array([[0.5, -0.5]])).ratio
        4.0
        """
        return float(np.abs(self.top).mean() / np.abs(self.random).mean())


def deletion_test(machine: PathKernelMachine, start: Sequence[np.ndarray], x, y, query_x, n: int,
                  draws: int = 3, seed: int = 0, **options) -> Deletion:
    """Fits once, then trains again from ``start`` without the top and without random examples.

    machine: its model is trained; start: initial weights (``model.get_weights()``).
    n:       how many examples are left out; random ones have the labels of the top ones, so that
             the balance of the classes changes alike.
    options: of :meth:`PathKernelMachine.fit` (optimizer, epochs, batch_size, seed, …).

    Costs queries × (1 + draws) trainings. The output looked at is the largest of each query.
    """
    y = np.asarray(y)
    result = _from(machine, start).fit(x, y, query_x, **options)
    plain = {k: v for k, v in options.items() if k in ("optimizer", "epochs", "batch_size",
                                                       "shuffle")}
    rng, outputs = np.random.default_rng(seed), result.output.argmax(1)
    rows = []
    for q, output in enumerate(outputs):
        top = [c.index for c in result.top_examples(q, n, int(output), side="for")]
        sets = [top] + [_alike(rng, y, top) for _ in range(draws)]
        one = take(query_x, slice(q, q + 1))
        after = [_without(machine, start, x, y, one, s, plain)[0, output] for s in sets]
        guess = result.without(top)[q, output]
        rows.append(np.array([guess, *after]) - result.output[q, output])
    rows = np.array(rows)
    return Deletion(top=rows[:, 1], predicted=rows[:, 0], random=rows[:, 2:])


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

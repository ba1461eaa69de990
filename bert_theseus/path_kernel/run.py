"""One fit: its data, its order of batches, its chunks, and the products each step asks for."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.path_kernel import checks
from bert_theseus.path_kernel.data import batches, chunks, length, take
from bert_theseus.path_kernel.losses import example_weights
from bert_theseus.path_kernel.optimizers import SGD, Adam, State
from bert_theseus.path_kernel.products import Products, Total
from bert_theseus.path_kernel.quadrature import Rule
from bert_theseus.path_kernel.recording import example_seeds
from bert_theseus.path_kernel.signals import Examples, Signals
from bert_theseus.path_kernel.sites import Factor

KEEP = 2**28
"""Bytes of factors of one batch that are kept between its two uses instead of made again."""


class Piece(NamedTuple):
    """A chunk of a batch: its place among the training examples, and the arguments it needs."""

    index: np.ndarray
    arguments: tuple


@dataclass
class Run:
    """Everything a sweep needs; made by :meth:`PathKernelMachine.fit`."""

    products: Products
    x: Any
    y: np.ndarray
    queries: Any
    optimizer: SGD | Adam
    epochs: int
    batch_size: int | None
    shuffle: bool
    seed: int
    reduction: str
    sample_weight: np.ndarray | None
    share_decay: bool = True
    snapshots: int = 0
    on_step: Callable[[int, int], object] | None = None
    chunk: int = 1
    query_chunk: int = 1
    factor_bytes: int = 0
    losses: list[float] = field(default_factory=list)

    def __post_init__(self):
        self.count, self.asked = length(self.x), length(self.queries)
        self.steps = self.epochs * math.ceil(self.count / (self.batch_size or self.count))

    @property
    def signals(self) -> Signals:
        """The model's."""
        return self.products.signals

    @property
    def rule(self) -> Rule:
        """The quadrature rule."""
        return self.products.rule

    @property
    def kernel(self) -> str | None:
        """What is kept of the path kernel."""
        return self.products.kernel

    def prepare(self, memory_limit: int | None) -> None:
        """Checks model and memory on a few examples and sets the sizes of the chunks."""
        few = np.arange(min(self.count, 3))
        examples = checks.verify(self.signals, self._arguments(few), self._arguments(few[-1:]))
        checks.set_sizes(self, examples)
        checks.check_memory(self, memory_limit)

    def schedule(self) -> Iterator[tuple[int, np.ndarray]]:
        """(step, indices of its batch), the same at every call."""
        return enumerate(batches(self.count, self.epochs, self.batch_size, self.shuffle,
                                 self.seed))

    def pieces(self, step: int, index: np.ndarray) -> list[Piece]:
        """The batch of a step in chunks that fit the memory."""
        weights = example_weights(index, self.reduction, self.sample_weight)
        places = chunks(np.arange(len(index)), self.chunk)
        return [Piece(index[p], (take(self.x, index[p]), self.y[index[p]], weights[p],
                                 example_seeds(self.seed, step, index[p]))) for p in places]

    def assign(self, weights: Sequence[tf.Tensor]) -> None:
        """Puts weights into the model."""
        for variable, value in zip(self.signals.variables, weights):
            variable.assign(value)

    def descend(self, step: int, pieces: list[Piece]
                ) -> tuple[list[tf.Tensor], list[Examples | None]]:
        """Gradient of the batch's loss, and the examples of each piece as far as they are kept."""
        gradients, kept, loss = None, [], 0.0
        keep = self.factor_bytes * sum(len(piece.index) for piece in pieces) <= KEEP
        for piece in pieces:
            examples = self.signals.examples(*piece.arguments)
            loss += float(np.dot(examples.losses, piece.arguments[2]))
            part = [-g for g in examples.descent]
            gradients = part if gradients is None else [a + b for a, b in zip(gradients, part)]
            kept.append(examples if keep else None)
        if not np.isfinite(loss):
            raise InputError(f"the loss is {loss} at step {step}", "fit(optimizer=…)",
                             "lower the learning rate")
        self.losses.append(loss)
        return gradients, kept

    def train(self) -> np.ndarray:
        """Training alone; the outputs of the queries after it."""
        state = self.optimizer.start(self.signals.variables)
        for step, index in self.schedule():
            gradients, _ = self.descend(step, self.pieces(step, index))
            state, _ = self.optimizer.step(state, gradients)
            self.assign(state.weights)
            self.progress(step + 1, self.steps)
        return self.outputs()

    def progress(self, done: int, of: int) -> None:
        """Tells ``on_step``, if there is one."""
        if self.on_step is not None:
            self.on_step(done, of)

    def outputs(self) -> np.ndarray:
        """f of all queries at the present weights, float64 [queries, outputs]."""
        rows = chunks(np.arange(self.asked), self.chunk)
        return np.concatenate([self.signals.outputs(take(self.queries, r)) for r in rows]
                              ).astype("float64")

    def query_factors(self, state: State, after: State, rows: np.ndarray,
                      known: tuple[Factor, ...] | None = None) -> tuple[tuple[Factor, ...], ...]:
        """Factors of the queries at each node of the step; leaves the model at θ_t.

        known: the factors at θ_t, where they are there already.
        """
        queries, found = take(self.queries, rows), []
        for node in self.rule.nodes:
            if node == 0.0 and known is not None:
                found.append(known)
                continue
            self.assign(_between(state.weights, after.weights, node))
            found.append(self.signals.queries(queries).factors)
        self.assign(state.weights)
        return tuple(found)

    def query_gradients(self, state: State, after: State, rows: np.ndarray) -> list[tf.Tensor]:
        """∫ J_q ds over the step, [queries, outputs, *shape] a variable."""
        return self.products.query_gradients(self.query_factors(state, after, rows))

    def add(self, total: Total, rows: np.ndarray, pieces: list[Piece],
            kept: list[Examples | None], queries, scale: float = 1.0) -> None:
        """Adds the products of all pieces with ``queries``: a tuple of factors, one a node, or
        a list of gradients, one a variable."""
        multiply = (self.products.of_factors if isinstance(queries, tuple)
                    else self.products.of_gradients)
        for piece, examples in zip(pieces, kept):
            examples = examples or self.signals.examples(*piece.arguments)
            x, _, _, seeds = tf.nest.map_structure(tf.convert_to_tensor, piece.arguments)
            contributions, kernel = multiply(queries, examples, x, seeds)
            total.add(piece.index, rows, scale * contributions, scale * kernel)

    def total(self) -> Total:
        """Zeros to add to."""
        return Total(self.count, self.asked, self.outputs_per_query, self.kernel)

    def _arguments(self, index):
        return (take(self.x, index), self.y[index], np.ones(len(index)),
                example_seeds(self.seed, 0, index))


def _between(start, end, share):
    """Weights on the step's segment."""
    if share in (0.0, 1.0):
        return end if share else start
    return [a + share * (b - a) for a, b in zip(start, end)]

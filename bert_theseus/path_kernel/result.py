"""What a fit leaves: the trained model as a kernel machine over its training examples.

    f_T(q) = β(q) + Σ_i α_i(q) K(q, x_i)                       kexue.fm/archives/8009
    K(q, x_i) = Σ_t η_t K_t(q, x_i),   α_i(q) = Σ_t η_t a_{t,i} K_t(q, x_i) / K(q, x_i)

The contributions α_i K are what is measured; K and α are kept when asked for. With D outputs K is
D × D and α_i = K⁻¹ × contribution ("full"), or K is the mean of the D diagonal entries and α a
vector ("mean"), which is the form of a machine with one kernel for all classes.
"""

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.results import replace_file


class Contribution(NamedTuple):
    """A training example and what it added to (or took from) one output of a query."""

    index: int
    contribution: float


@dataclass(frozen=True)
class PathKernel:
    """A trained model written as a sum over its training examples.

    initial:       f_0 [queries, outputs], before training.
    decayed:       what weight decay did to the initial weights' share [queries, outputs]; 0
                   without decay. β of the article is ``initial + decayed``.
    contributions: [queries, training examples, outputs], signed.
    kernel:        path kernel: None, [queries, examples] ("mean") or [queries, examples, outputs,
                   outputs] ("full").
    output:        f_T [queries, outputs], of the trained model itself.
    losses:        the loss of each step.
    snapshots:     (step, contributions, kernel) along the way, if asked for.

    >>> one = np.ones([1, 2, 1])
    >>> result = PathKernel(np.zeros([1, 1]), np.zeros([1, 1]), one, None, np.full([1, 1], 2.5))
    >>> result.reconstruction.item(), result.residual.item()
    (2.0, 0.5)
    """

    initial: np.ndarray
    decayed: np.ndarray
    contributions: np.ndarray
    kernel: np.ndarray | None
    output: np.ndarray
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))
    snapshots: tuple = ()

    @property
    def beta(self) -> np.ndarray:
        """β [queries, outputs]: the part of no training example."""
        return self.initial + self.decayed

    @property
    def reconstruction(self) -> np.ndarray:
        """β plus all contributions, [queries, outputs]."""
        return self.beta + self.contributions.sum(1)

    @property
    def residual(self) -> np.ndarray:
        """True output minus reconstruction, [queries, outputs]: what the quadrature misses."""
        return self.output - self.reconstruction

    @property
    def max_residual(self) -> float:
        """The largest absolute residual."""
        return float(np.abs(self.residual).max())

    @property
    def alpha(self) -> np.ndarray:
        """α [queries, examples, outputs], the K-weighted mean of a; 0 for examples never met.

        Raises :class:`InputError` if the fit kept no kernel.
        """
        if self.kernel is None:
            raise InputError("the kernel was not kept", "alpha", "fit with kernel='mean' or 'full'")
        if self.kernel.ndim == 2:
            kernel = self.kernel[..., None]
            return np.divide(self.contributions, kernel, where=kernel != 0,
                             out=np.zeros_like(self.contributions))
        inverse = np.linalg.pinv(self.kernel, hermitian=False)
        return np.einsum("qndc,qnc->qnd", inverse, self.contributions)

    def top_examples(self, query: int, n: int = 10, output: int | None = None,
                     side: str = "both") -> list[Contribution]:
        """The ``n`` training examples that moved one output of a query most.

        output: which one; default the largest of the query. side: "for" (raised it), "against"
        (lowered it) or "both", by size.

        >>> c = np.array([[[0.1], [-2.0], [1.0]]])
        >>> zero = np.zeros([1, 1])
        >>> PathKernel(zero, zero, c, None, zero).top_examples(0, 2)[0].index
        1
        """
        signs = {"both": None, "for": 1.0, "against": -1.0}
        if side not in signs:
            raise InputError(f"unknown side {side!r}", "top_examples", f"use one of {[*signs]}")
        values = self._of(query, output)
        size = np.abs(values) if side == "both" else signs[side] * values
        order = np.argsort(-size, kind="stable")[:n]
        return [Contribution(int(i), float(values[i])) for i in order if size[i] > 0]

    def support(self, share: float = 0.9, output: int | None = None) -> np.ndarray:
        """How many examples carry ``share`` of the sum of absolute contributions, [queries].

        >>> zero = np.zeros([1, 1])
        >>> c = np.array([[[9.0], [-0.5], [0.5]]])
        >>> PathKernel(zero, zero, c, None, zero).support(0.9)
        array([1])
        """
        rows = np.stack([np.abs(self._of(q, output)) for q in range(len(self.output))])
        carried = -np.sort(-rows, axis=1).cumsum(1)
        return 1 + (carried < share * carried[:, -1:] * (1 - 1e-12)).sum(1)

    def without(self, examples) -> np.ndarray:
        """First-order guess of the outputs had ``examples`` not been trained on."""
        return self.output - self.contributions[:, np.asarray(examples, int)].sum(1)

    def then(self, later: "PathKernel") -> "PathKernel":
        """This fit and a later one, that went on from its weights, as one machine.

        Incremental learning as the article muses: the old terms stand as they are, new terms are
        added. Raises :class:`InputError` unless ``later`` starts where this one ended.
        """
        if self.output.shape != later.initial.shape or not np.allclose(
                self.output, later.initial, rtol=1e-4, atol=1e-5):
            raise InputError("the later fit does not start at this one's outputs", "then",
                             "fit the same model again, with the same queries")
        both = (self.kernel is not None and later.kernel is not None
                and self.kernel.ndim == later.kernel.ndim)
        return replace(
            self, decayed=self.decayed + later.decayed, output=later.output,
            contributions=np.concatenate([self.contributions, later.contributions], 1),
            kernel=np.concatenate([self.kernel, later.kernel], 1) if both else None,
            losses=np.concatenate([self.losses, later.losses]), snapshots=())

    def save(self, path: str | os.PathLike) -> None:
        """Writes everything but the snapshots to an ``.npz`` file."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)
                  if f.name != "snapshots" and getattr(self, f.name) is not None}

        def write(beside: Path):
            with open(beside, "wb") as file:
                np.savez_compressed(file, **arrays)
        replace_file(path, write)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "PathKernel":
        """Reads what :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(**{"kernel": None, **{name: arrays[name] for name in arrays.files}})

    def _of(self, query, output):
        """Contributions [examples] to one output of one query."""
        if not -len(self.output) <= query < len(self.output):
            raise InputError(f"no query {query}", "query", f"there are {len(self.output)}")
        output = int(self.output[query].argmax()) if output is None else output
        return self.contributions[query, :, output]

"""What a job will hold in memory, said before it starts.

    result      8 N Q D (+ 8 N Q or 8 N Q D² for the kernel)
    weights     a few copies of θ; for momentum, decay and Adam also one copy of θ and the
                optimizer's state every √T steps
    queries     for momentum, decay and Adam: 3 to 5 · D · θ for each query of a chunk
    chunk       factors and products of one chunk of examples

>>> estimate = Estimate(result=2 * 2**30, weights=0, adjoint=0, chunk=0)
>>> estimate.total == 2 * 2**30
True
"""

import os
from dataclasses import dataclass

from bert_theseus.errors import InputError

CHUNK = 2**27
"""Bytes that the products of one chunk of examples may take."""


@dataclass(frozen=True)
class Estimate:
    """Bytes, by what they are for."""

    result: int
    weights: int
    adjoint: int
    chunk: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.result + self.weights + self.adjoint + self.chunk


def available() -> int:
    """Bytes of main memory that are free now (what the system says is available)."""
    try:
        with open("/proc/meminfo") as file:
            sizes = dict(line.split(":") for line in file)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):                              # not Linux: free pages, a lower bound
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check(estimate: Estimate, limit: int | None) -> None:
    """Raises :class:`InputError` with the estimate and the fix if it is over the limit.

    >>> check(Estimate(2**20, 0, 0, 0), limit=2**30)
    """
    limit = available() if limit is None else limit
    if estimate.total <= limit:
        return
    gib = 2**30
    fixes = {"result": "give fewer queries or training examples, or kernel=None",
             "weights": "train fewer weights (freeze layers)",
             "adjoint": "train fewer weights (freeze layers) or use plain SGD",
             "chunk": "give fewer queries or a smaller batch_size"}
    largest = max(fixes, key=lambda name: getattr(estimate, name))
    raise InputError(
        f"this fit needs about {estimate.total / gib:.2f} GiB and {limit / gib:.2f} GiB are "
        f"allowed ({largest}: {getattr(estimate, largest) / gib:.2f} GiB)", "memory_limit",
        fixes[largest])

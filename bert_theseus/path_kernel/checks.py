"""What is checked on a few examples before a fit starts, and how large its chunks may be.

The sum over examples is a fact about the model, and easy to lose: batch statistics, random
numbers of its own, a weight used in two places. Each is looked for with three examples.
"""

import math

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.path_kernel import memory
from bert_theseus.path_kernel.contraction import working_bytes
from bert_theseus.path_kernel.products import pulled
from bert_theseus.path_kernel.signals import Examples, Signals

QUERIES = 2**29
"""Bytes that the factors or gradients of one chunk of queries may take."""


def verify(signals: Signals, few: tuple, one: tuple) -> Examples:
    """Runs ``signals.examples`` on a few examples and on the last of them alone.

    Raises :class:`InputError` if the outputs are random or depend on the rest of the batch;
    layers whose factors do not add up to the tape's gradient (tied weights) join the rest.
    """
    together = signals.examples(*few)
    _same(together.outputs, signals.examples(*few).outputs,
          "the model draws random numbers that are not those of Dropout layers",
          "take that layer out, or explain the model with training=False")
    _same(together.outputs[-1:], signals.examples(*one).outputs,
          "an example's output depends on the others in its batch",
          "use layers that treat each example alone")
    wrong = [] if signals.method == "forward" else mismatched(signals, together)
    if signals.rest in wrong:
        raise InputError("gradients of single examples do not add up to the batch's", "model",
                         "use layers that treat each example alone")
    if wrong:
        signals.demote(wrong)
        together = signals.examples(*few)
    return together


def mismatched(signals: Signals, examples: Examples) -> list:
    """Sites whose factors do not give the tape's gradient.

    Rounding is measured beside the largest gradient of the model: some are 0 but for rounding
    (the bias of attention's keys).
    """
    factors = pulled(examples.factors, examples.pull) if signals.every_output else examples.factors
    tape, wrong = iter(examples.descent), []
    floor = 1e-2 * max(float(tf.reduce_max(tf.abs(g))) for g in examples.descent)
    for site, factor in zip(signals.sites, factors):
        sums = [tf.reduce_sum(g, [0, 1]) for g in site.gradients(factor)]
        if not all([_close(own, next(tape), floor) for own in sums]):
            wrong.append(site)
    return wrong


def set_sizes(run, examples: Examples) -> None:
    """Chunk sizes of a run from what a few examples took."""
    few, outputs = examples.outputs.shape
    run.factor_bytes = sum(_bytes(t) for factor in examples.factors for t in factor) // few
    run.example_bytes = working_bytes(run.signals, examples.factors, few, run.asked, outputs)
    run.chunk = max(1, memory.CHUNK // run.example_bytes)
    run.outputs_per_query = outputs
    weights = sum(_bytes(v) for v in run.signals.variables)
    run.state_bytes = 3 * weights
    run.query_bytes = (len(run.rule.nodes) * run.factor_bytes * outputs if run.optimizer.plain
                       else 6 * outputs * weights)
    run.query_chunk = min(run.asked, max(1, QUERIES // max(1, run.query_bytes)))


def check_memory(run, limit: int | None) -> None:
    """Raises :class:`InputError` if a run is larger than ``limit`` bytes."""
    d = run.outputs_per_query
    kernel = {None: 0, "mean": 1, "full": d * d}[run.kernel]
    states = min(run.steps, 2 * math.isqrt(run.steps) + 2)
    memory.check(memory.Estimate(
        result=8 * run.count * run.asked * (d + kernel) * (1 + run.snapshots),
        weights=2 * run.state_bytes,
        adjoint=run.query_bytes * run.query_chunk
        + (0 if run.optimizer.plain else run.state_bytes * states),
        chunk=min(run.chunk, run.batch_size or run.count) * run.example_bytes), limit)


def _bytes(tensor) -> int:
    return 0 if tensor is None else tensor.dtype.size * int(np.prod(tensor.shape))


def _close(a, b, floor: float = 1e-6) -> bool:
    rtol = 1e-9 if a.dtype == tf.float64 else 1e-3
    return bool(tf.reduce_max(tf.abs(a - b)) <= rtol * (floor + tf.reduce_max(tf.abs(b))))


def _same(a, b, what, fix):
    if not _close(a, b):
        raise InputError(what, "model", fix)

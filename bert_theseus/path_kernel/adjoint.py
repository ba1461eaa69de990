"""Momentum, weight decay and Adam: contributions by one sweep backward along the path.

A step's move holds the gradients of all steps before. Following every example's own velocity
would take examples × weights of memory. Summing the other way round takes queries × weights: the
recursion of ``optimizers`` is linear, so its transpose carries, from the last step to the first,
how the queries feel a change of θ_t and v_t (all products elementwise, J_t = ∫ J_q ds of step t):

    U  = Θ_{t+1} + J_t                      Θ_T = V_T = 0
    dv = V_{t+1} − e P U                    dh = b dv − k P U
    Θ_t = (1 − d) U − J_t + c dh            V_t = a dv
    contribution of example i at step t = −<dh, J_i(θ_t)ᵀ a_{t,i}>,   decayed = <Θ_0, θ_0>

Without decay Θ stays zero. The path is trained once, with a checkpoint every few steps, and each
stretch between two checkpoints is trained again when the sweep comes to it.
"""

import math

import numpy as np
import tensorflow as tf

from bert_theseus.path_kernel.data import chunks
from bert_theseus.path_kernel.optimizers import Recursion, State
from bert_theseus.path_kernel.result import PathKernel
from bert_theseus.path_kernel.run import Run

PATH = 2**28
"""Bytes that the states of a whole path may take before only checkpoints are kept."""


def sweep(run: Run) -> PathKernel:
    """Trains the model, goes back along its path, and returns its path kernel."""
    total, initial = run.total(), run.outputs()
    stretch = run.steps if run.steps * run.state_bytes <= PATH else math.isqrt(run.steps) + 1
    row_chunks = chunks(np.arange(run.asked), run.query_chunk)
    of = run.steps * (1 + len(row_chunks))
    checkpoints, last = _train(run, stretch, of)
    output, losses = run.outputs(), np.array(run.losses)
    decayed, done = [], run.steps
    for rows in row_chunks:
        back = _Backward(run, total, rows)
        for start in reversed(checkpoints):
            for item in reversed(_replay(run, start, stretch)):
                back.step(*item)
                done += 1
                run.progress(done, of)
        decayed.append(back.decayed(checkpoints[0].weights))
    run.assign(last.weights)
    return total.finish(initial=initial, decayed=np.concatenate(decayed), output=output,
                        losses=losses)


def _train(run: Run, stretch: int, of: int) -> tuple[list[State], State]:
    """Trains to the end; the states at the start of each stretch, and the last one."""
    state, checkpoints = run.optimizer.start(run.signals.variables), []
    for step, index in run.schedule():
        if step % stretch == 0:
            checkpoints.append(state)
        gradients, _ = run.descend(step, run.pieces(step, index))
        state, _ = run.optimizer.step(state, gradients)
        run.assign(state.weights)
        run.progress(step + 1, of)
    return checkpoints, state


def _replay(run: Run, start: State, stretch: int) -> list[tuple]:
    """(state, state after, recursion, batch) of each step of the stretch from ``start``."""
    state, path = start, []
    run.assign(start.weights)
    for step, index in run.schedule():
        if not start.step <= step < start.step + stretch:
            continue
        gradients, _ = run.descend(step, run.pieces(step, index))
        after, recursion = run.optimizer.step(state, gradients)
        run.assign(after.weights)
        path.append((state, after, recursion, index))
        state = after
    return path


class _Backward:
    """The transposed recursion for some queries."""

    def __init__(self, run: Run, total, rows: np.ndarray):
        self.run, self.total, self.rows = run, total, rows
        self.velocity = self.weights = None                       # V and Θ; None is zero
        self.own_decay = 0.0

    def step(self, state: State, after: State, recursion: Recursion, index: np.ndarray) -> None:
        """Goes back over one step and adds its contributions."""
        run, r = self.run, recursion
        pieces = run.pieces(state.step, index)
        path = run.query_gradients(state, after, self.rows)       # J, [queries, outputs, *shape]
        felt = _plus(path, self.weights)                          # U
        moved = r.scaled(felt)
        velocity = _plus([-r.e * m for m in moved], self.velocity)
        gradient = [r.b * v - r.k * m for v, m in zip(velocity, moved)]
        run.add(self.total, self.rows, pieces, [None] * len(pieces), [-g for g in gradient])
        if r.c or r.d:
            self._decay(r, state, path, felt, gradient)
        self.velocity = [r.a * v for v in velocity] if r.a else None

    def _decay(self, r, state, path, felt, gradient):
        if self.run.share_decay:
            self.weights = [(1 - r.d) * u - j + r.c * g for u, j, g in zip(felt, path, gradient)]
        else:
            self.own_decay = self.own_decay + _inner(
                [r.c * g - r.d * u for g, u in zip(gradient, felt)], state.weights)

    def decayed(self, initial_weights) -> np.ndarray:
        """[queries, outputs] of no example: what the decay did to the initial weights."""
        if self.weights is not None:
            return _inner(self.weights, initial_weights)
        outputs = self.total.contributions.shape[2]
        return np.zeros([len(self.rows), outputs]) + self.own_decay


def _plus(values, others):
    return values if others is None else [a + b for a, b in zip(values, others)]


def _inner(gradients, weights) -> np.ndarray:
    """<gradient, weights> [queries, outputs]."""
    return sum(tf.reduce_sum(g * w, axis=list(range(2, g.shape.rank))).numpy().astype("float64")
               for g, w in zip(gradients, weights))

"""Plain gradient descent: contributions are added while training goes on.

    c_i += η_t Σ_k w_k <J_q(θ_t + s_k Δ_t), J_i(θ_t)ᵀ a_{t,i}>        kexue.fm/archives/8009

Nothing of the path is kept; a step needs its own batch and the queries at the rule's nodes.
"""

import numpy as np

from bert_theseus.path_kernel.data import chunks
from bert_theseus.path_kernel.products import Total
from bert_theseus.path_kernel.result import PathKernel
from bert_theseus.path_kernel.run import Run


def sweep(run: Run) -> PathKernel:
    """Trains the model and returns its path kernel."""
    state = run.optimizer.start(run.signals.variables)
    total, initial, taken = run.total(), run.outputs(), []
    row_chunks = chunks(np.arange(run.asked), run.query_chunk)
    ends = [None] * len(row_chunks)
    for step, index in run.schedule():
        pieces = run.pieces(step, index)
        gradients, kept = run.descend(step, pieces)
        after, recursion = run.optimizer.step(state, gradients)
        for j, rows in enumerate(row_chunks):
            nodes = run.query_factors(state, after, rows, ends[j])
            ends[j] = nodes[-1] if run.rule.nodes[-1] == 1.0 and len(row_chunks) == 1 else None
            run.add(total, rows, pieces, kept, nodes, recursion.k)
        run.assign(after.weights)
        state = after
        _snapshot(run, total, step + 1, taken)
        run.progress(step + 1, run.steps)
    return total.finish(initial=initial, decayed=np.zeros_like(initial), output=run.outputs(),
                        losses=np.array(run.losses), snapshots=tuple(taken))


def _snapshot(run: Run, total: Total, done: int, taken: list) -> None:
    """Copies the running sums at even distances along the path."""
    if run.snapshots and done * run.snapshots // run.steps > len(taken):
        contributions, kernel = total.queries_first()
        taken.append((done, contributions.copy(), None if kernel is None else kernel.copy()))

"""The tangent kernel alone, K(x, x') = <∂f(x)/∂θ, ∂f(x')/∂θ>; kexue.fm/archives/8009."""

import numpy as np

from bert_theseus.backend import keras
from bert_theseus.path_kernel import memory
from bert_theseus.path_kernel.contraction import contract, working_bytes
from bert_theseus.path_kernel.data import as_inputs, chunks, length, take
from bert_theseus.path_kernel.signals import Signals


def tangent_kernel(model: keras.Model, x1, x2=None, diagonal: bool = False, method: str = "auto",
                   memory_limit: int | None = None) -> np.ndarray:
    """Tangent kernel of a Keras model at its present weights, with ``training=False``.

    x1, x2: inputs of the model, [n1, …] and [n2, …]; x2 defaults to x1.
    Returns [n1, n2, outputs, outputs], or with ``diagonal`` [n1, n2, outputs]: output d of x1
    with output d of x2 only. A finite network's kernel, in no infinite-width scaling.
    method: "auto", "layers", "vectorized" or "sequential", see :class:`Signals`.

    >>> model = keras.Sequential([keras.layers.Dense(1, use_bias=False, input_shape=(2,))])
    >>> tangent_kernel(model, np.array([[1.0, 2.0], [0.0, 1.0]]))[..., 0, 0].tolist()
    [[5.0, 2.0], [2.0, 1.0]]
    """
    x1 = as_inputs(x1, model, "x1")
    x2 = x1 if x2 is None else as_inputs(x2, model, "x2")
    signals = Signals(model, training=False, method=method)
    first = signals.queries(take(x1, slice(0, 1)))
    outputs = first.outputs.shape[1]
    size = length(x1) * length(x2) * outputs * (1 if diagonal else outputs)
    memory.check(memory.Estimate(result=8 * size, weights=0, adjoint=0, chunk=0), memory_limit)
    work = working_bytes(signals, first.factors, 1, length(x1), outputs)
    parts = []
    left = signals.queries(x1).factors
    for index in chunks(np.arange(length(x2)), max(1, memory.CHUNK // work)):
        right = signals.queries(take(x2, index)).factors
        products = contract(signals.sites, left, right, diagonal).numpy()
        parts.append(np.swapaxes(products, 0, 1))                  # [n1, chunk, outputs, …]
    kernel = np.concatenate(parts, axis=1).astype("float64")
    return kernel[..., 0] if diagonal else kernel

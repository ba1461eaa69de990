"""SGD ≈ kernel machine (SGD ≈ SVM), kexue.fm/archives/8009.

The article: a model trained by gradient descent on L(θ) = Σ_i l(y_i, f_θ(x_i)) satisfies

    f_T(x) = f_0(x) + Σ_i ∫_0^T a_{θ(t),i} K_{θ(t)}(x, x_i) dt
    K_θ(x, x') = <∇_θ f(x), ∇_θ f(x')>,   a_{θ,i} = −∂l(y_i, f(x_i))/∂f

and so is a kernel machine β(x) + Σ_i α_i(x) K(x, x_i). Here the sum is taken along the training
that really happens, at its own steps, for any Keras model, with mini-batches, momentum, decay and
Adam, and what is left over is returned with it.

>>> from bert_theseus.backend import keras
>>> model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
>>> machine = PathKernelMachine(model, "mse")
>>> result = machine.fit([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0], query_x=[[0.5, 0.5]], epochs=2)
>>> bool(abs(result.output - result.reconstruction).max() < 1e-6)
True
"""

from bert_theseus.path_kernel.fixed import (alpha_spread, explained, fixed_alpha, fixed_outputs,
                                            support_vector_machine)
from bert_theseus.path_kernel.machine import PathKernelMachine
from bert_theseus.path_kernel.optimizers import SGD, Adam
from bert_theseus.path_kernel.result import Contribution, PathKernel
from bert_theseus.path_kernel.studies import Additivity, Deletion, additivity, deletion_test
from bert_theseus.path_kernel.tangent import tangent_kernel

__all__ = ["SGD", "Adam", "Additivity", "Contribution", "Deletion", "PathKernel",
           "PathKernelMachine", "additivity", "alpha_spread", "deletion_test", "explained",
           "fixed_alpha", "fixed_outputs", "support_vector_machine", "tangent_kernel"]

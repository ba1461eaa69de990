"""PathKernelMachine: train a Keras model and write it down as a kernel machine on the way."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.path_kernel import adjoint, forward
from bert_theseus.path_kernel.data import as_inputs, length, take
from bert_theseus.path_kernel.losses import as_loss
from bert_theseus.path_kernel.optimizers import as_optimizer
from bert_theseus.path_kernel.products import KERNELS, Products
from bert_theseus.path_kernel.quadrature import rule
from bert_theseus.path_kernel.result import PathKernel
from bert_theseus.path_kernel.run import Run
from bert_theseus.path_kernel.signals import Signals, cheapest, pull_of


class PathKernelMachine:
    """Any Keras model, trained by gradient descent and read as a kernel machine (8009).

        f_T(q) = f_0(q) + Σ_i Σ_t η_t a_{t,i} K_t(q, x_i),      a = −∂l/∂f

    model:     a built Keras model with one output, scalar or vector.
    loss:      a Keras loss (name, object or function giving one loss an example).
    reduction: "sum" (the article) or "mean" (Keras); default the loss's own.
    training:  whether examples run with ``training=True``: dropout, with masks fixed per step.
    method:    how example gradients are formed, see :class:`Signals`.

    After :meth:`fit` the result's names (``initial``, ``contributions``, ``reconstruction``,
    ``residual``, ``top_examples``, …) are the machine's too.

    >>> model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    >>> x, y = np.eye(2), np.array([1.0, -1.0])
    >>> machine = PathKernelMachine(model, "mse")
    >>> result = machine.fit(x, y, query_x=x, optimizer="sgd", epochs=3, batch_size=None)
    >>> result.contributions.shape, result.max_residual < 1e-6
    ((2, 2, 1), True)
    """

    def __init__(self, model: keras.Model, loss, reduction: str | None = None,
                 training: bool = True, method: str = "auto"):
        self.model, self.training, self.method = model, training, method
        self.loss, self.reduction = as_loss(loss, reduction)
        self.result: PathKernel | None = None
        self._signals: dict[tuple, Signals] = {}
        self._products: dict[tuple, Products] = {}

    def fit(self, x, y, query_x, optimizer="sgd", epochs: int = 1, batch_size: int | None = 32,
            quadrature: str = "left", kernel: str | None = None, shuffle: bool = True,
            seed: int = 0, sample_weight=None, share_decay: bool = True, snapshots: int = 0,
            memory_limit: int | None = None,
            on_step: Callable[[int, int], object] | None = None) -> PathKernel:
        """Trains the model on x, y and returns it as a sum over the training examples.

        x, query_x:   arrays (or lists, dicts of arrays) in the model's input shapes.
        optimizer:    a learning rate, "sgd", "adam", a Keras SGD, Adam or AdamW, or one of
                      ``path_kernel.SGD``, ``path_kernel.Adam`` (which know l2 and decay).
        batch_size:   None is full batch.
        quadrature:   "left" (the article's, residual ∝ step), "midpoint" (∝ step²) or "simpson"
                      (∝ step⁴).
        kernel:       None, "mean" or "full": what to keep of the path kernel.
        sample_weight: weight of each example's loss [examples].
        share_decay:  with weight decay, let it wear off the examples' contributions as it does
                      their part of the weights (True), or book all of it under ``decayed``.
        snapshots:    how many copies of contributions and kernel to keep along the way (plain
                      SGD only).
        memory_limit: bytes; default what is free. A larger job is refused before it starts.
        on_step:      called with (step, steps), as a progress bar wants it.

        Raises :class:`InputError` for arrays that do not fit, a loss without gradient, a model
        whose examples depend on each other, a job too large, a loss that turns infinite.
        """
        if snapshots and not as_optimizer(optimizer).plain:
            raise InputError("snapshots need plain SGD", "fit(snapshots=…)",
                             "leave momentum and decay out: their terms are known at the end only")
        run = self._run(x, y, query_x, quadrature, kernel, optimizer, epochs,
                        batch_size, shuffle, seed, sample_weight)
        run.share_decay, run.snapshots, run.on_step = share_decay, snapshots, on_step
        run.prepare(memory_limit)
        self.result = (forward if run.optimizer.plain else adjoint).sweep(run)
        return self.result

    def train(self, x, y, query_x, optimizer="sgd", epochs: int = 1,
              batch_size: int | None = 32, shuffle: bool = True, seed: int = 0,
              sample_weight=None) -> np.ndarray:
        """The same training with nothing written down; the queries' outputs after it.

        With ``sample_weight`` 0 for some examples this is training without them, everything else
        (order, steps, weights of the others) the same.
        """
        run = self._run(x, y, query_x, "left", None, optimizer, epochs,
                        batch_size, shuffle, seed, sample_weight)
        run.prepare(None)
        return run.train()

    def _products_of(self, quadrature, kernel, queries: int) -> Products:
        """Compiled once for each method, rule and kernel of this machine."""
        if kernel not in KERNELS:
            raise InputError(f"unknown kernel {kernel!r}", "fit(kernel=…)", f"one of {KERNELS}")
        every = kernel is not None
        way = (cheapest(self.model, self.method, queries, every), every)
        if way not in self._signals:
            self._signals[way] = Signals(self.model, self.loss, self.training, *way)
        key = (*way, quadrature, kernel)
        if key not in self._products:
            self._products[key] = Products(self._signals[way], rule(quadrature), kernel)
        return self._products[key]

    def _run(self, x, y, query_x, quadrature, kernel, optimizer, epochs, batch_size, shuffle, seed,
             sample_weight) -> Run:
        _positive(epochs=epochs, batch_size=batch_size)
        x, queries = as_inputs(x, self.model, "x"), as_inputs(query_x, self.model, "query_x")
        y, weights = self._targets(y, length(x), x), _sample_weight(sample_weight, length(x))
        products = self._products_of(quadrature, kernel, length(queries))
        return Run(products, x, y, queries, as_optimizer(optimizer), epochs, batch_size, shuffle,
                   seed, self.reduction, weights)

    def _targets(self, y, count, x) -> np.ndarray:
        """y as an array that goes with x, with a loss that has a gradient there."""
        y = np.asarray(y)
        if y.ndim == 0 or len(y) != count:
            raise InputError(f"{y.shape} targets for {count} examples", "y", "give one an example")
        if y.dtype.kind == "f":
            y = y.astype(self.model.compute_dtype or "float32")
        check_gradient(self.model, self.loss, x, y)
        return y

    def __getattr__(self, name: str):
        result = self.__dict__.get("result")
        if name.startswith("__") or not hasattr(PathKernel, name) and \
                name not in PathKernel.__dataclass_fields__:
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        if result is None:
            raise AttributeError(f"{name!r} is known after fit(…)")
        return getattr(result, name)


def check_gradient(model: keras.Model, loss, x, y: np.ndarray) -> None:
    """Raises :class:`InputError` unless the loss takes the targets and reaches the output."""
    few = np.arange(min(64, len(y)))
    if y.ndim == 1:                                     # labels: the extremes may be out of range
        few = np.unique([*few, y.argmin(), y.argmax()])
    f = model(take(x, few), training=False)
    try:
        losses, pull = pull_of(loss, tf.convert_to_tensor(y[few]), f, tf.ones(len(y[few])))
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the loss cannot take the targets ({str(error).splitlines()[0][:120]})",
                         "y", f"y is {y.shape} {y.dtype}, the output {tuple(f.shape)}") from error
    if losses.shape != [len(y[few])]:
        raise InputError(f"the loss gives {losses.shape} for {len(y[few])} examples", "loss",
                         "let it return one loss an example")
    if not np.any(pull):
        raise InputError("the loss has no gradient: it is zero for the first 64 examples", "loss",
                         "use a differentiable one (a crossentropy, a squared error)")


def _positive(**numbers):
    for name, number in numbers.items():
        if number is not None and (number != int(number) or number < 1):
            raise InputError(f"{name} is {number}", f"fit({name}=…)", "give a whole number ≥ 1")


def _sample_weight(weights, count):
    if weights is None:
        return None
    weights = np.asarray(weights, "float64")
    if weights.shape != (count,):
        raise InputError(f"{weights.shape} weights for {count} examples", "sample_weight",
                         "give one an example")
    return weights

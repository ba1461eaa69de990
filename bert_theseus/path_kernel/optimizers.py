"""Optimizers as linear recursions of the gradient, kexue.fm/archives/8009.

The article treats θ' = −∇L. Momentum, weight decay and Adam keep the sum over the examples as
long as a step is linear in the gradients of *all* steps so far, with coefficients that are the
same for every example. Each of them is one case of (all products elementwise)

    v_{t+1} = a v_t + b h_t                                  h_t = g_t + c θ_t
    θ_{t+1} = (1 − d) θ_t − P_t (e v_{t+1} + k h_t)

with g_t the gradient of the loss, c the l2 penalty, d the decoupled decay, and P_t the
preconditioner (Adam's 1/√v̂, a number taken from the path). The same coefficients drive training
and, transposed, the backward sweep which shares a step out to the examples.

    SGD       b = 0, e = 0, k = η
    momentum  a = μ, b = η, e = 1, k = 0          Nesterov: e = μ, k = η
    Adam      a = β₁, b = 1 − β₁, e = 1, k = 0, P = η √(1 − β₂ᵗ)/(1 − β₁ᵗ) / (√v̂ + ε)

>>> SGD(0.1, momentum=0.9).plain
False
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError

Tensors = Sequence[tf.Tensor]


@dataclass(frozen=True)
class Recursion:
    """One step's coefficients (see the module's head); ``scale`` is P_t, one tensor a weight."""

    a: float = 0.0
    b: float = 0.0
    c: float = 0.0
    d: float = 0.0
    e: float = 0.0
    k: float = 0.0
    scale: Tensors | None = None

    def scaled(self, values: Tensors) -> list[tf.Tensor]:
        """P_t times ``values`` (which may have further axes in front)."""
        if self.scale is None:
            return list(values)
        return [p * value for p, value in zip(self.scale, values)]


@dataclass(frozen=True)
class State:
    """Weights θ_t, velocity v_t and Adam's running squares at step t."""

    step: int
    weights: Tensors
    velocity: Tensors
    squares: Tensors = ()


def advance(recursion: Recursion, state: State, gradients: Tensors) -> State:
    """The state after one step of the recursion.

    >>> state = State(0, [tf.constant([1.0])], [tf.zeros(1)])
    >>> float(advance(Recursion(k=0.5), state, [tf.constant([2.0])]).weights[0][0])
    0.0
    """
    r = recursion
    h = [g + r.c * w for g, w in zip(gradients, state.weights)] if r.c else list(gradients)
    velocity = [r.a * v + r.b * g for v, g in zip(state.velocity, h)] if r.b else state.velocity
    move = r.scaled([r.e * v + r.k * g for v, g in zip(velocity, h)])
    weights = [(1 - r.d) * w - m for w, m in zip(state.weights, move)]
    return replace(state, step=state.step + 1, weights=weights, velocity=velocity)


class _Optimizer:
    """Learning rate (a number or a function of the step), l2 penalty, decoupled decay."""

    def __init__(self, learning_rate: float | Callable[[int], float], l2: float = 0.0,
                 weight_decay: float = 0.0):
        self.learning_rate, self.l2, self.weight_decay = learning_rate, l2, weight_decay

    def rate(self, step: int) -> float:
        """η_t."""
        return float(self.learning_rate(step) if callable(self.learning_rate)
                     else self.learning_rate)

    def start(self, weights: Tensors) -> State:
        """The state before the first step: the model's weights, no velocity."""
        zeros = [tf.zeros_like(w) for w in weights]
        return State(0, [tf.identity(w) for w in weights], zeros, zeros)

    def step(self, state: State, gradients: Tensors) -> tuple[State, Recursion]:
        """One step; returns the new state and the recursion that led to it."""
        squares, recursion = self._recursion(state, gradients)
        return advance(recursion, replace(state, squares=squares), gradients), recursion

    def _decay(self, step: int) -> dict:
        return {"c": self.l2, "d": self.weight_decay * self.rate(step)}


class SGD(_Optimizer):
    """Gradient descent with optional momentum, l2 penalty and decoupled weight decay.

    learning_rate: a number, or a function step → number.
    momentum, nesterov: as in Keras.
    l2: λ of a penalty λ/2 |θ|² in the loss (coupled); weight_decay: λ of θ ← (1 − ηλ) θ.

    >>> SGD(0.1).plain
    True
    """

    def __init__(self, learning_rate: float | Callable[[int], float] = 0.01,
                 momentum: float = 0.0, nesterov: bool = False, l2: float = 0.0,
                 weight_decay: float = 0.0):
        super().__init__(learning_rate, l2, weight_decay)
        self.momentum, self.nesterov = momentum, nesterov

    @property
    def plain(self) -> bool:
        """True if a step depends on no gradient but its own and there is no decay."""
        return not (self.momentum or self.l2 or self.weight_decay)

    def _recursion(self, state, gradients):
        rate, decay = self.rate(state.step), self._decay(state.step)
        if not self.momentum:
            return state.squares, Recursion(k=rate, **decay)
        e, k = (self.momentum, rate) if self.nesterov else (1.0, 0.0)
        return state.squares, Recursion(a=self.momentum, b=rate, e=e, k=k, **decay)


class Adam(_Optimizer):
    """Adam (Keras' form), with ``l2`` in the gradient or AdamW's decoupled ``weight_decay``.

    The preconditioner is a function of the path, the same for every example: given the path, a
    step is linear in the gradients, which is all that the sum over the examples needs.

    >>> Adam(1e-3, weight_decay=0.01).plain
    False
    """

    plain = False

    def __init__(self, learning_rate: float | Callable[[int], float] = 1e-3, beta_1: float = 0.9,
                 beta_2: float = 0.999, epsilon: float = 1e-7, l2: float = 0.0,
                 weight_decay: float = 0.0):
        super().__init__(learning_rate, l2, weight_decay)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def _recursion(self, state, gradients):
        t = state.step + 1
        h = [g + self.l2 * w for g, w in zip(gradients, state.weights)]
        squares = [self.beta_2 * s + (1 - self.beta_2) * g * g for s, g in zip(state.squares, h)]
        rate = self.rate(state.step) * np.sqrt(1 - self.beta_2 ** t) / (1 - self.beta_1 ** t)
        scale = [float(rate) / (tf.sqrt(s) + self.epsilon) for s in squares]
        return squares, Recursion(a=self.beta_1, b=1 - self.beta_1, e=1.0, scale=scale,
                                  **self._decay(state.step))


def as_optimizer(optimizer) -> SGD | Adam:
    """An optimizer of this module from itself, a learning rate, a name or a Keras optimizer.

    Keras' SGD and Adam (both generations; AdamW of the newer one) are read by their settings,
    gradient clipping, AMSGrad and every other optimizer are refused: a clipped or sign-like step
    is no linear function of the examples' gradients.

    >>> as_optimizer(keras.optimizers.SGD(0.5, momentum=0.9)).momentum
    0.9
    """
    if isinstance(optimizer, _Optimizer):
        return optimizer
    if isinstance(optimizer, (int, float)):
        return SGD(float(optimizer))
    if isinstance(optimizer, str):
        return _from_name(optimizer)
    kind = _kind(optimizer)
    config = optimizer.get_config()
    _refuse_nonlinear(config, optimizer)
    common = {"learning_rate": _rate(config), "weight_decay": config.get("weight_decay") or 0.0}
    if kind is SGD:
        return SGD(momentum=float(config["momentum"]), nesterov=config["nesterov"], **common)
    return Adam(**{name: float(config[name]) for name in ("beta_1", "beta_2", "epsilon")}, **common)


def _from_name(name: str):
    if name.lower() in ("sgd", "adam"):
        return {"sgd": SGD, "adam": Adam}[name.lower()]()
    raise _unknown(name)


def _kind(optimizer) -> type:
    new, old = keras.optimizers.experimental, keras.optimizers.legacy
    kinds = {new.SGD: SGD, old.SGD: SGD, new.Adam: Adam, old.Adam: Adam, new.AdamW: Adam}
    if type(optimizer) not in kinds:
        raise _unknown(type(optimizer).__name__)
    return kinds[type(optimizer)]


def _unknown(name: str) -> InputError:
    return InputError(f"optimizer {name!r} is not one whose steps can be shared out to examples",
                      "fit(optimizer=…)", "use SGD (with momentum, Nesterov, decay), Adam or AdamW")


def _refuse_nonlinear(config: dict, optimizer) -> None:
    names = ("clipnorm", "global_clipnorm", "clipvalue", "amsgrad", "use_ema")
    for name in names:
        if config.get(name) or getattr(optimizer, name, None):
            raise InputError(f"the optimizer's {name} is set", "fit(optimizer=…)",
                             "leave it out: only steps linear in the gradients add up")


def _rate(config: dict) -> float | Callable[[int], float]:
    rate, decay = config["learning_rate"], config.get("decay", 0.0)
    if isinstance(rate, dict):
        schedule = keras.optimizers.schedules.deserialize(rate)
        return lambda step: float(schedule(step))
    return (lambda step: rate / (1.0 + decay * step)) if decay else float(rate)

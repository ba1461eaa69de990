"""AdamW with one extra copy of the gradients at most, and the learning rate of a whole run.

bert4keras' ``extend_with_gradient_accumulation`` keeps a copy of the gradients and runs the
whole optimizer update at every micro step, thrown away by a condition; here a micro step adds to
the copy and nothing else, and without accumulation there is no copy at all.

    m ← β₁m + (1 − β₁)g,  v ← β₂v + (1 − β₂)g²,
    w ← w − η (m̂ / (√v̂ + ε) + λw)        λ = 0 for Norm and bias (kexue.fm 7758, train.py)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class LearningRate:
    """Linear warm-up over ``warmup`` steps, constant, linear to 0 over the last ``decay`` steps.

    decay None: from the end of the warm-up on, the usual triangle. A constant middle part has
    the advantage that a run may be lengthened or cut short without changing what is done so far.

    >>> rate = LearningRate(1.0, steps=100, warmup=10, decay=50)
    >>> [rate(step) for step in (0, 4, 10, 50, 75, 99)]
    [0.1, 0.5, 1.0, 1.0, 0.5, 0.02]
    """

    peak: float
    steps: int
    warmup: int = 0
    decay: int | None = None

    def __call__(self, step: int) -> float:
        decay = self.steps - self.warmup if self.decay is None else self.decay
        up = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        down = min(1.0, (self.steps - step) / decay) if decay else 1.0
        return self.peak * min(up, max(down, 0.0))


def decays(name: str) -> bool:
    """Whether a weight of that name is pulled to zero: kernels and tables, not Norm and bias."""
    return "Norm" not in name and "bias" not in name.lower()


class AdamW:
    """Adam with decoupled weight decay over a fixed list of weights.

    weights: tf.Variables; beta_1, beta_2, epsilon as in Adam; weight_decay: λ above;
    clip_norm: the gradients' common norm is cut to it (None: not).

    >>> w = tf.Variable([1.0, -1.0], name="kernel")
    >>> AdamW([w], weight_decay=0.5).apply([tf.constant([1.0, -2.0])], 0.1)
    >>> [round(float(x), 3) for x in w.numpy()]
    [0.85, -0.85]
    """

    def __init__(self, weights: Sequence[tf.Variable], weight_decay: float = 0.01,
                 beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-6,
                 clip_norm: float | None = None):
        self.weights, self.weight_decay, self.clip_norm = list(weights), weight_decay, clip_norm
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        self.decayed = [decays(weight.name) for weight in self.weights]
        self.m = [tf.Variable(tf.zeros_like(w), trainable=False) for w in self.weights]
        self.v = [tf.Variable(tf.zeros_like(w), trainable=False) for w in self.weights]
        self.power_1 = tf.Variable(1.0, trainable=False)  # β₁ᵗ
        self.power_2 = tf.Variable(1.0, trainable=False)  # β₂ᵗ

    def apply(self, gradients, learning_rate) -> None:
        """One update of all weights, each by its own fused kernel."""
        gradients = [tf.convert_to_tensor(g) for g in gradients]
        if self.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        learning_rate = tf.convert_to_tensor(learning_rate, tf.float32)
        self.power_1.assign(self.power_1 * self.beta_1)
        self.power_2.assign(self.power_2 * self.beta_2)
        for w, m, v, g, decayed in zip(self.weights, self.m, self.v, gradients, self.decayed):
            if decayed and self.weight_decay:
                w.assign(w * (1.0 - learning_rate * self.weight_decay))
            tf.raw_ops.ResourceApplyAdam(
                var=w.handle, m=m.handle, v=v.handle, beta1_power=self.power_1,
                beta2_power=self.power_2, lr=learning_rate, beta1=self.beta_1,
                beta2=self.beta_2, epsilon=self.epsilon, grad=g)

    def state(self) -> list[tf.Variable]:
        """Everything but the weights that the next update depends on, in a fixed order."""
        return [*self.m, *self.v, self.power_1, self.power_2]


class Accumulator:
    """Sums gradients over micro steps: one variable a weight, and nothing more."""

    def __init__(self, weights: Sequence[tf.Variable]):
        self.sums = [tf.Variable(tf.zeros_like(w), trainable=False) for w in weights]

    def add(self, gradients) -> None:
        """Adds one micro step's gradients; a sparse one (an embedding's) stays sparse."""
        for total, gradient in zip(self.sums, gradients):
            if isinstance(gradient, tf.IndexedSlices):
                total.scatter_add(gradient)
            else:
                total.assign_add(gradient)

    def take(self) -> list[tf.Tensor]:
        """The sums, which start again from zero."""
        sums = [tf.identity(total) for total in self.sums]
        with tf.control_dependencies(sums):
            for total in self.sums:
                total.assign(tf.zeros_like(total))
        return sums

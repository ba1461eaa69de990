"""What a loss costs: value and gradient of one batch of logits, the contenders taking turns."""

import statistics
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from bert_theseus.imbalance.study.data import long_tail_counts
from bert_theseus.imbalance.study.settings import ONE_HOT, loss_settings
from bert_theseus.imbalance.study.several_labels import set_losses


def compiled(loss, y, outputs: int):
    """A compiled function: logits [batch, outputs] → value and gradient, the labels bound."""
    y = tf.constant(y)

    def step(z):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = loss(y, z)
        return value, tape.gradient(value, z)
    return tf.function(step).get_concrete_function(tf.TensorSpec([len(y), outputs]))


def alternating(steps: Mapping, z: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """name → seconds of each round; ``steps`` of :func:`compiled`, one call a round each."""
    z = tf.constant(z, tf.float32)
    for step in steps.values():
        step(z)
    seconds = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step(z)[1].numpy()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def cost_per_step(losses: Mapping, outputs: int, batch_size: int, one_hot=(),
                  rounds: int = 60) -> dict[str, float]:
    """family → microseconds for value and gradient of a batch [batch_size, outputs], medians.

    losses: "family | setting" → loss on integer labels (one-hot for the families in ``one_hot``);
    the first setting of each family is timed.

    >>> from bert_theseus.imbalance import WeightedCrossentropy
    >>> cost_per_step({"plain | ": WeightedCrossentropy()}, 3, 4, rounds=3)["plain"] > 0
    True
    """
    rng = np.random.default_rng(0)
    y = rng.integers(0, max(outputs, 2), batch_size).astype("int32")
    steps = {}
    for name, loss in losses.items():
        family = name.split(" | ")[0]
        if family not in steps:
            labels = np.eye(outputs, dtype="float32")[y] if family in one_hot else y
            steps[family] = compiled(loss, labels, outputs)
    seconds = alternating(steps, rng.normal(0, 3, (batch_size, outputs)), rounds)
    return {name: 1e6 * statistics.median(values) for name, values in seconds.items()}


def step_costs(corpus, batch_size: int, only=None) -> dict[str, float]:
    """:func:`cost_per_step` of a task's losses; corpus None: those for several labels."""
    if corpus is None:
        losses, outputs = set_losses(0.2, only), 10
        return cost_per_step(losses, outputs, batch_size, [n.split(" | ")[0] for n in losses])
    classes = len(corpus.classes)
    losses = loss_settings(long_tail_counts(classes, 10, 1000), classes == 2, only)
    return cost_per_step(losses, 1 if classes == 2 else classes, batch_size, ONE_HOT)

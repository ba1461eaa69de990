"""WGAN-GP: our train step beside the Keras step that is copied everywhere, in one run.

The copied step is written down here as it circulates: for every critic update a generated batch
under the tape, three passes of the critic (generated, real, interpolated), then the generator's
update. Both get the same weights and the same noise (ours hands its own to the other), the same
optimizers, and both run as one compiled function per step. Their losses must agree; then they
take turns, and the table shows the median time of each and the ratio.

    python benchmarks/wgan_step.py            # table, and results/benchmarks/wgan_step.json
"""

import argparse
import statistics
import time

import numpy as np

import bert_theseus  # noqa: F401  (before TensorFlow)
import tensorflow as tf

from bert_theseus import wgan
from bert_theseus.backend import keras
from bert_theseus.published import format_table
from bert_theseus.wgan.networks import leaky_relu
from bert_theseus.results import Row, environment, replace_file

CASES = {"points, 2 features, batch 64": ((2,), 64), "digits, 64 features, batch 64": ((64,), 64),
         "images 8×8, batch 64": ((8, 8, 1), 64), "images 28×28, batch 64": ((28, 28, 1), 64)}


def networks(shape):
    if len(shape) == 1:
        return wgan.generator_network(shape[0]), wgan.critic_network(shape[0])
    return wgan.image_generator(shape), wgan.image_critic(shape)


class CopiedStep:
    """The widely copied step. ``noise`` gives the latents and weights the trainer would draw."""

    def __init__(self, trainer):
        self.generator, self.critic = trainer.generator, trainer.critic
        self.steps, self.noise = trainer.critic_steps, trainer
        self.g_optimizer, self.d_optimizer = (keras.optimizers.Adam(1e-4, 0., 0.9)
                                              for _ in range(2))

    def gradient_penalty(self, real, fake, mix):
        interpolated = fake + mix * (real - fake)
        with tf.GradientTape() as tape:
            tape.watch(interpolated)
            scores = self.critic(interpolated, training=True)
        gradients = tape.gradient(scores, [interpolated])[0]
        norm = tf.sqrt(tf.reduce_sum(tf.square(gradients), axis=list(range(1, len(real.shape)))))
        return tf.reduce_mean((norm - 1.) ** 2)

    def __call__(self, real):
        count = real.shape[0]
        latents, mixes = self.noise.noise(count)
        for latent, mix in zip(latents, mixes):
            mix = tf.reshape(mix, [count] + [1] * (len(real.shape) - 1))
            with tf.GradientTape() as tape:
                fake = self.generator(latent, training=True)
                fake_scores = self.critic(fake, training=True)
                real_scores = self.critic(real, training=True)
                cost = tf.reduce_mean(fake_scores) - tf.reduce_mean(real_scores)
                d_loss = cost + 10. * self.gradient_penalty(real, fake, mix)
            gradients = tape.gradient(d_loss, self.critic.trainable_variables)
            self.d_optimizer.apply_gradients(zip(gradients, self.critic.trainable_variables))
        with tf.GradientTape() as tape:
            scores = self.critic(self.generator(latents[-1], training=True), training=True)
            g_loss = -tf.reduce_mean(scores)
        gradients = tape.gradient(g_loss, self.generator.trainable_variables)
        self.g_optimizer.apply_gradients(zip(gradients, self.generator.trainable_variables))
        self.noise.step.assign_add(1)
        return {"critic_loss": d_loss, "generator_loss": g_loss}


def pair(shape):
    """Our step and the copied one as compiled functions, on networks with the same weights."""
    ours, twin = (wgan.Trainer(*networks(shape)) for _ in range(2))
    for layer in twin.critic.layers:
        if getattr(layer, "activation", None) is leaky_relu:
            layer.activation = tf.nn.leaky_relu     # what the copied networks use
    twin.set_weights(ours.get_weights())
    ours.compile()
    return tf.function(ours.train_step), tf.function(CopiedStep(twin).__call__)


def largest_difference(steps, real, count: int = 5) -> float:
    """Largest relative difference of the losses over the first steps from the same weights."""
    worst = 0.
    for _ in range(count):
        ours, copied = (step(real) for step in steps)
        for key, value in copied.items():
            worst = max(worst, abs(float(ours[key]) - float(value)) / (1e-3 + abs(float(value))))
    return worst


def seconds(step, real, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        log = step(real)
    float(log["critic_loss"])
    return (time.perf_counter() - start) / repeats


def measure(shape, batch: int, rounds: int, budget: float = 0.3):
    """Milliseconds of ours and of the copied step, alternating; the losses' difference."""
    real = tf.constant(np.random.RandomState(0).rand(batch, *shape).astype("float32"))
    steps = pair(shape)
    difference = largest_difference(steps, real)
    repeats = max(1, int(budget / seconds(steps[1], real, 2)))
    times = [[1e3 * seconds(step, real, repeats) for step in steps] for _ in range(rounds)]
    return list(zip(*times)), difference


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", default="results/benchmarks/wgan_step.json")
    args = parser.parse_args()
    start, rows, cells = time.time(), [], [("networks", "copied step", "our step", "ratio",
                                            "largest difference of the losses")]
    for name, (shape, batch) in CASES.items():
        (ours, copied), difference = measure(shape, batch, args.rounds)
        ratios = [a / b for a, b in zip(ours, copied)]
        rows += [Row(name, "milliseconds, copied step", copied), Row(name, "milliseconds, ours", ours),
                 Row(name, "ratio of times", ratios), Row(name, "difference of losses", [difference])]
        cells.append((name, f"{statistics.median(copied):.2f} ms", f"{statistics.median(ours):.2f} ms",
                      f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})",
                      f"{difference:.1e}"))
    print(format_table(cells))
    print(args.output, environment(), round(time.time() - start))


if __name__ == "__main__":
    main()

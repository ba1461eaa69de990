"""WGAN-GP: our train step beside the Keras step that is copied everywhere, in one run.

The copied step is written down here as it circulates: for every critic update a generated batch
under the tape, three passes of the critic (generated, real, interpolated) with Keras' leaky ReLU,
then the generator's update; one compiled call a batch. Both get the same weights and the same
noise (ours hands its own to the other) and the same optimizers. Their losses must agree. Then
they take turns: the copied step; our ``train_step``, also one compiled call a batch; and ours the
way the project trains, ``Trainer.run``, which stays in one compiled loop and draws its batches
there. The table shows medians and ratios.

    python benchmarks/wgan_step.py            # table, and output/benchmarks/wgan_step.json
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import bert_theseus  # noqa: F401  (before TensorFlow)
import tensorflow as tf

from bert_theseus import wgan
from bert_theseus.backend import keras
from bert_theseus.published import format_table
from bert_theseus.results import environment, replace_file
from bert_theseus.wgan.networks import leaky_relu

CASES = {"points, 2 features": (2,), "digits, 64 features": (64,),
         "images 8×8, convolutions": (8, 8, 1)}
BATCH = 64
CLAIM = 0.8


def networks(shape):
    """Generator and critic for points [features] or images [height, width, channels]."""
    if len(shape) == 1:
        return wgan.generator_network(shape[0]), wgan.critic_network(shape[0])
    return wgan.image_generator(shape, filters=32), wgan.image_critic(shape, filters=32)


class CopiedStep:
    """The widely copied step. ``trainer`` gives networks, latents and interpolation weights."""

    def __init__(self, trainer):
        self.generator, self.critic, self.trainer = trainer.generator, trainer.critic, trainer
        self.g_optimizer, self.d_optimizer = (keras.optimizers.Adam(1e-4, 0., 0.9)
                                              for _ in range(2))

    def gradient_penalty(self, real, fake, mix):
        """Mean (|gradient| − 1)² at points between real and generated ones."""
        interpolated = fake + mix * (real - fake)
        with tf.GradientTape() as tape:
            tape.watch(interpolated)
            scores = self.critic(interpolated, training=True)
        gradients = tape.gradient(scores, [interpolated])[0]
        norm = tf.sqrt(tf.reduce_sum(tf.square(gradients), axis=list(range(1, len(real.shape)))))
        return tf.reduce_mean((norm - 1.) ** 2)

    def __call__(self, real):
        latents, mixes = self.trainer.noise(BATCH)
        for latent, mix in zip(latents, mixes):
            mix = tf.reshape(mix, [BATCH] + [1] * (len(real.shape) - 1))
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
        self.trainer.step.assign_add(1)
        return {"critic_loss": d_loss, "generator_loss": g_loss}


def pair(shape):
    """Our step and the copied one, compiled, on networks with the same weights; our trainer."""
    ours, twin = (wgan.Trainer(*networks(shape)) for _ in range(2))
    for layer in twin.critic.layers:
        if getattr(layer, "activation", None) is leaky_relu:
            layer.activation = tf.nn.leaky_relu     # what the copied networks use
    twin.set_weights(ours.get_weights())
    ours.compile()
    return tf.function(ours.train_step), tf.function(CopiedStep(twin).__call__), ours


def largest_difference(ours, copied, real, count: int = 5) -> float:
    """Largest relative difference of the losses over the first steps from the same weights."""
    worst = 0.
    for _ in range(count):
        a, b = ours(real), copied(real)
        worst = max([worst] + [abs(float(a[key]) - float(b[key])) / (1e-3 + abs(float(b[key])))
                               for key in b])
    return worst


def milliseconds(step, real, repeats: int) -> float:
    """Mean time of a compiled step, one call a batch."""
    start = time.perf_counter()
    for _ in range(repeats):
        log = step(real)
    float(log["critic_loss"])
    return 1e3 * (time.perf_counter() - start) / repeats


def loop_milliseconds(trainer, data, repeats: int) -> float:
    """Mean time of a step inside the trainer's own loop."""
    start = time.perf_counter()
    trainer.run(data, repeats, BATCH)
    return 1e3 * (time.perf_counter() - start) / repeats


def measure(shape, rounds: int, budget: float) -> dict:
    """Medians and ratios of the three ways, taking turns; the losses' largest difference."""
    data = np.random.RandomState(0).rand(10 * BATCH, *shape).astype("float32")
    real = tf.constant(data[:BATCH])
    ours, copied, trainer = pair(shape)
    difference = largest_difference(ours, copied, real)
    trainer.run(data, 1, BATCH)
    repeats = max(2, int(1e3 * budget / milliseconds(copied, real, 3)))
    turns = [(milliseconds(copied, real, repeats), milliseconds(ours, real, repeats),
              loop_milliseconds(trainer, data, repeats)) for _ in range(rounds)]
    middle = [statistics.median(times) for times in zip(*turns)]
    ratios = [[turn[i] / turn[0] for turn in turns] for i in (1, 2)]
    return {"copied step, ms": middle[0], "our step, ms": middle[1], "our loop, ms": middle[2],
            "our step / copied": statistics.median(ratios[0]),
            "our loop / copied": statistics.median(ratios[1]),
            "ranges": [[min(r), max(r)] for r in ratios], "repeats": repeats, "rounds": rounds,
            "largest difference of losses": difference}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each turn")
    parser.add_argument("--output", default="output/benchmarks/wgan_step.json")
    args = parser.parse_args()
    results = {name: measure(shape, args.rounds, args.seconds) for name, shape in CASES.items()}
    cells = [("networks, batch 64", "copied", "our step", "our loop", "step / copied",
              "loop / copied", "losses differ by")]
    for name, r in results.items():
        (a, b), (c, d) = r["ranges"]
        cells.append((name, *(f"{r[key]:.2f} ms" for key in
                              ("copied step, ms", "our step, ms", "our loop, ms")),
                      f"{r['our step / copied']:.2f} ({a:.2f} … {b:.2f})",
                      f"{r['our loop / copied']:.2f} ({c:.2f} … {d:.2f})",
                      f"{r['largest difference of losses']:.0e}"))
    print(format_table(cells))
    worst = max(r["our loop / copied"] for r in results.values())
    print(f"claim: at most {CLAIM} of the copied step's time: "
          f"{'holds' if worst <= CLAIM else 'does not hold'} (loop, worst case {worst:.2f})")
    record = {"article": 8244, "claim": CLAIM, "results": results, "environment": environment()}
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    replace_file(Path(args.output), lambda beside: beside.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()

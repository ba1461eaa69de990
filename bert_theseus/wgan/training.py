"""Training with the truth beside it: every few steps, what the critic says and what is so.

A record of one moment of one method holds, one value a seed:

    estimate        the critic's estimate on one batch of real and generated samples
    exact           exact W_1 of these same two batches
    large estimate  the critic's estimate on the held-out samples and as many generated ones
    large exact     exact W_1 of these same two large sets
    slope           steepest slope of the critic between the two large sets
    1-NN accuracy   leave-one-out nearest neighbour, real against generated; 0.5 is best
    …               the world's own measures

and at the end what the critic still had to learn: the same estimate after the generator is frozen
and the critic trained to the end on one large generated set.
"""

from collections.abc import Callable, Sequence

import numpy as np

from bert_theseus.backend import set_seed
from bert_theseus.wgan.data import World
from bert_theseus.wgan.methods import Method, get_method
from bert_theseus.wgan.networks import (critic_network, generator_network, image_critic,
                                        image_generator)
from bert_theseus.wgan.quality import nearest_neighbour_accuracy
from bert_theseus.wgan.static import train_to_the_end
from bert_theseus.wgan.trainer import Trainer
from bert_theseus.wgan.truth import exact_wasserstein


class Diverged(RuntimeError):
    """A run whose numbers are no longer finite; ``records`` are those until then."""

    def __init__(self, method: str, step: int, seeds: Sequence[int], what: str, records: list):
        super().__init__(f"{method}: {what} is no longer finite by step {step} "
                         f"(seeds {', '.join(map(str, seeds))})")
        self.method, self.step, self.records = method, step, records


def make_trainer(world: World, method: str | Method, seeds: Sequence[int], critic_steps: int = 5,
                 learning_rate: float | None = None) -> Trainer:
    """The trainer of a world: all seeds side by side for vectors, one seed for images."""
    spectral, shape = get_method(method).constraint == "spectral_norm", world.train.shape[1:]
    if len(shape) == 1:
        seed = tuple(seeds)
        generator = generator_network(shape[0], seed, output_activation=world.output_activation)
        critic = critic_network(shape[0], seed, spectral=spectral)
    else:
        (seed,) = seeds
        set_seed(seed)
        generator = image_generator(shape, seed)
        critic = image_critic(shape, seed, spectral=spectral)
    trainer = Trainer(generator, critic, method, critic_steps=critic_steps, seed=seed)
    trainer.compile(learning_rate=learning_rate)
    return trainer


def train(world: World, method: str | Method, seeds: Sequence[int], steps: int, records: int = 10,
          batch_size: int = 64, learning_rate: float | None = None,
          tell: Callable[[dict], object] | None = None) -> dict:
    """Trains and records; vectors: all seeds in one trainer, images: one after the other.

    Returns {"method", "records": [{"step", name: [a value a seed]}, …], "end": {…},
    "samples": [seeds, 64, features…] as an array}. tell(record) is called after every record.

    Raises Diverged as soon as a number is not finite, with the records until then.
    """
    groups = [list(seeds)] if world.train.ndim == 2 else [[seed] for seed in seeds]
    parts = [_train_group(world, method, group, steps, records, batch_size, learning_rate, tell)
             for group in groups]
    return {"method": get_method(method).name, "records": [_join(moment) for moment in
                                          zip(*(part["records"] for part in parts))],
            "end": _join([part["end"] for part in parts]),
            "samples": np.concatenate([part["samples"] for part in parts])}


def _train_group(world, method, seeds, steps, records, batch_size, learning_rate, tell) -> dict:
    trainer = make_trainer(world, method, seeds, learning_rate=learning_rate)
    history, done = [], 0
    for moment in np.unique(np.linspace(0, steps, records + 1).astype(int)[1:]).tolist():
        log = trainer.run(world.train, moment - done, batch_size)
        done = moment
        bad = [name for name, values in log.items() if not np.isfinite(values).all()]
        if bad:
            wrong = [s for s, ok in zip(seeds, np.isfinite(log[bad[0]])) if not ok]
            raise Diverged(trainer.method.name, done, wrong, bad[0], history)
        history.append({"step": done, **observe(trainer, world, batch_size)})
        if tell:
            tell(history[-1])
    fakes = _per_run(trainer, trainer.generate(64, stream=3))
    return {"records": history, "end": finish_critic(trainer, world, seeds), "samples": fakes}


def observe(trainer: Trainer, world: World, batch_size: int) -> dict:
    """One record without its step: estimates, exact distances and quality, a list over the runs."""
    random = np.random.RandomState(int(trainer.step.numpy()))
    real = world.train[random.choice(len(world.train), batch_size, replace=False)]
    small = _per_run(trainer, trainer.generate(batch_size, stream=1))
    large = _per_run(trainer, trainer.generate(len(world.held_out), stream=2))
    batch_look, look = (trainer.look(a, b if trainer.runs else b[0]) for a, b in
                        ((real, small), (world.held_out, large)))
    record = {"estimate": batch_look["estimate"], "large estimate": look["estimate"],
              "slope": look["slope"],
              "exact": [exact_wasserstein(real, fake) for fake in small],
              "large exact": [exact_wasserstein(world.held_out, fake) for fake in large],
              "1-NN accuracy": [nearest_neighbour_accuracy(world.held_out, f) for f in large]}
    measures = [world.measures(fake) for fake in large]
    record.update({name: [m[name] for m in measures] for name in measures[0]})
    return {name: [float(value) for value in values] for name, values in record.items()}


def finish_critic(trainer: Trainer, world: World, seeds: Sequence[int], count: int = 256,
                  steps: int = 400) -> dict:
    """What the training critic and a critic trained to the end say of one fixed pair of sets.

    {"before", "after", "exact"}: a list over the runs; empty for the GANs, which estimate no
    distance, and for images, where another critic costs as much as the run.
    """
    if trainer.method.objective == "gan" or trainer.runs is None:
        return {}
    count = min(count, len(world.held_out))
    fakes = trainer.generate(count, stream=4)
    real = world.held_out[:count]
    before = trainer.look(real, fakes)["estimate"]
    reals = np.broadcast_to(real, fakes.shape)
    after = train_to_the_end(reals, fakes, trainer.method, seeds, steps).look(reals, fakes)
    return {"before": before.tolist(), "after": after["estimate"].tolist(),
            "exact": [exact_wasserstein(real, fake) for fake in fakes]}


def _per_run(trainer: Trainer, samples: np.ndarray) -> np.ndarray:
    return samples if trainer.runs else samples[None]


def _join(parts: Sequence[dict]) -> dict:
    """Records of the same moment, one per group of seeds, as one."""
    return {name: sum((part[name] for part in parts), []) if isinstance(value, list) else value
            for name, value in parts[0].items()}

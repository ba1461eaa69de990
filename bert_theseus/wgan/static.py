"""Static estimation: a critic trained to the end between two fixed sets, beside the truth.

    ratio = estimate of the trained critic / exact W_1 of the same two sets

Both sets are seen whole at every step, so neither the generator nor the batch is to blame for
what the ratio says. For sets drawn from Gaussians of equal covariance the distance of the
distributions is known too, and exact / population shows what the sample size alone does.
"""

from collections.abc import Sequence

import numpy as np

from bert_theseus.backend import keras
from bert_theseus.wgan.data import shifted_gaussians
from bert_theseus.wgan.methods import METHODS, Method, get_method
from bert_theseus.wgan.networks import critic_network
from bert_theseus.wgan.trainer import Trainer
from bert_theseus.wgan.truth import exact_wasserstein, gaussian_wasserstein

STATIC_METHODS = tuple(name for name, method in METHODS.items() if method.objective != "gan")


def train_to_the_end(x, y, method: str | Method, seeds: Sequence[int], steps: int = 600,
                     learning_rate: float = 3e-3) -> Trainer:
    """Critics of ``method``, one a seed, trained between fixed sets; the rate falls to 0.

    x, y: [n, features], shared by the seeds, or [seeds, n, features].

    >>> x, y = shifted_gaussians(2, 50)
    >>> trainer = train_to_the_end(x, y, "gradient_penalty", seeds=[0, 1], steps=5)
    >>> trainer.look(x, y)["estimate"].shape
    (2,)
    """
    method = get_method(method)
    spectral = method.constraint == "spectral_norm"
    critic = critic_network(x.shape[-1], tuple(seeds), spectral=spectral)
    trainer = Trainer(None, critic, method, seed=tuple(seeds))
    rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, learning_rate / 100)
    trainer.compile(critic_optimizer=keras.optimizers.Adam(rate, beta_1=0.5, beta_2=0.9))
    trainer.train_critic(x, y, steps)
    return trainer


def static_estimates(dimension: int, count: int, seeds: Sequence[int],
                     methods: Sequence[str] = STATIC_METHODS, steps: int = 600,
                     shift: float = 3., learning_rate: float = 3e-3) -> dict:
    """Every method on the same pairs of shifted Gaussian sets, one pair a seed.

    Returns {"dimension", "count", "population", "exact": [a value a seed], "estimates":
    {method: [a value a seed]}, "certified": {method: […]}}; certified (see there) never exceeds
    the exact distance.
    """
    pairs = [shifted_gaussians(dimension, count, seed, shift) for seed in seeds]
    x, y = (np.stack(sets) for sets in zip(*pairs))
    mean, cov = np.full(dimension, shift / np.sqrt(dimension)), np.eye(dimension)
    record = {"dimension": dimension, "count": count,
              "population": gaussian_wasserstein(np.zeros(dimension), cov, mean, cov),
              "exact": [exact_wasserstein(a, b) for a, b in pairs],
              "estimates": {}, "certified": {}}
    for method in methods:
        look = train_to_the_end(x, y, method, seeds, steps, learning_rate).look(x, y)
        record["estimates"][method] = look["estimate"].tolist()
        record["certified"][method] = certified(method, look, count).tolist()
    return record


def certified(method: str | Method, look: dict, count: int) -> np.ndarray:
    """A lower bound of the exact distance from ``Trainer.look``: one number a run.

    Wasserstein methods: the estimate divided by the steepest slope between the two sets (which
    takes the unknown factor out). c-transform: the estimate itself. (c, ε)-transform: the
    estimate minus ε log count, since φᶜᵉ ≤ φᶜ + ε log count. count: samples of the real set.
    """
    method = get_method(method)
    if method.objective == "wasserstein":
        return look["estimate"] / np.maximum(look["slope"], 1e-12)
    epsilon = method.epsilon if method.objective == "c_epsilon_transform" else 0.
    return look["estimate"] - epsilon * np.log(count)

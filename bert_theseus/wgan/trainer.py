"""One trainer for every critic: kexue.fm/archives/8244.

    critic:     maximise  objective(D; x, G(z)) − weight · penalty      ``critic_steps`` times
    generator:  minimise  −E D(G(z)),  E φᶜ(G(z)),  or −E log σ(D(G(z)))         once

What the log of one step holds, in this order of thought:

    estimate        the critic's objective alone, no penalty. Wasserstein methods: E D(x) − E D(y),
                    transforms: E φ(x) + E φᶜ(y); positive when the critic tells real from
                    generated, 0 for equal sets, in units of the data's distance. GAN:
                    (E log σ(D(x)) + E log(1 − σ(D(y))) + 2 log 2) / 2, in nats, at most log 2.
                    ``trainer.method.estimate`` says whether it claims to be a distance.
    penalty         the penalty before its weight; 0 for methods without one.
    critic_loss     what the critic minimises: weight · penalty − objective. Negative is normal,
                    it is no distance; it is logged to see that it is finite.
    generator_loss  what the generator minimises. In the Wasserstein methods −E D(G(z)): its zero
                    is arbitrary (D + constant is as good a critic), so only its changes between
                    neighbouring steps mean anything.

Done differently from the Keras step that is copied everywhere: real and generated samples pass
the critic together, all generated batches of one step come out of one generator pass outside the
tape (when the generator does not mix samples), every critic step may have its own real batch,
noise is drawn from (seed, step) alone, so a run continues exactly, and several seeds train side
by side.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.wgan import objectives, penalties
from bert_theseus.wgan.checks import (check_batch_size, check_networks, check_samples,
                                      mixes_samples)
from bert_theseus.wgan.methods import Method, get_method

_LATENT, _MIX, _INDEX, _SAMPLE = range(4)  # what a number is drawn for


class Trainer(keras.Model):
    """Trains ``generator`` against ``critic`` by ``method``; a Keras model with its own step.

    generator: [batch, latent] → [batch, features…]; critic: [batch, features…] → [batch, 1].
    method:    a name of ``METHODS`` or a :class:`Method`; weight, power, clip, epsilon change
               its numbers.
    generator may be None for a trainer that only estimates (``train_critic``).
    critic_steps: critic updates before each generator update.
    seed:      one number, or a tuple: then both networks take and give [runs, batch, …] (see
               ``dense_network``) and every run draws its own noise. Runs never mix: the loss is
               their sum, optimizers of Keras work weight by weight.

    Three ways to train: ``fit`` on batches [batch, features…]; ``fit`` on batches
    [critic_steps, batch, features…], one real batch per critic step; ``run(data, steps)``, which
    draws batches itself and stays inside one compiled loop. ``tf.train.Checkpoint(trainer)``
    holds all a run needs to go on exactly.

    Raises InputError for an unknown method, networks that do not fit together, batch
    normalisation in a penalised critic, "spectral_norm" with a plain layer in the critic.

    >>> from bert_theseus.wgan import critic_network, generator_network
    >>> trainer = Trainer(generator_network(2), critic_network(2), "gradient_penalty")
    >>> trainer.compile(learning_rate=1e-3)
    >>> log = trainer.run(np.random.RandomState(0).randn(500, 2), steps=3, batch_size=64)
    >>> sorted(log)
    ['critic_loss', 'estimate', 'generator_loss', 'penalty']
    """

    def __init__(self, generator: keras.Model | None, critic: keras.Model,
                 method: str | Method = "gradient_penalty", *, critic_steps: int = 5,
                 seed: int | Sequence[int] = 0, **numbers):
        super().__init__()
        self.method = get_method(method, **numbers)
        self.seeds = (seed,) if isinstance(seed, int) else tuple(int(s) for s in seed)
        self.runs = None if isinstance(seed, int) else len(self.seeds)
        self.critic_steps, self.generator, self.critic = critic_steps, generator, critic
        check_networks(generator, critic, self.method, self.seeds, self.runs)
        if critic_steps < 1:
            raise InputError(f"critic_steps = {critic_steps}", "Trainer", "use at least 1")
        self._sample_axes = 1 if self.runs is None else 2
        self._one_pass = generator is None or not mixes_samples(generator)
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name="step")
        # partial: TensorFlow counts traces by code object and would warn of the tenth trainer.
        self._compiled = {name: tf.function(
            partial(getattr(self, name)), autograph=False, reduce_retracing=True)
                          for name in ("_loop", "_critic_loop", "_generate", "_look")}

    def compile(self, generator_optimizer=None, critic_optimizer=None,
                learning_rate: float | None = None, **kwargs) -> None:
        """Sets both optimizers. Default: those of the method's paper, Adam(1e-4, 0, 0.9), for
        clipping RMSprop(5e-5); ``learning_rate`` changes the rate of these defaults."""
        super().compile(**kwargs)
        self.generator_optimizer = generator_optimizer or self._default_optimizer(learning_rate)
        self.critic_optimizer = critic_optimizer or self._default_optimizer(learning_rate)

    def _default_optimizer(self, learning_rate):
        if self.method.constraint == "clipping":
            return keras.optimizers.RMSprop(learning_rate or 5e-5)
        return keras.optimizers.Adam(learning_rate or 1e-4, beta_1=0., beta_2=0.9)

    # 1. The losses, one number per run: [] or [runs].

    def objective(self, real_scores: tf.Tensor, fake_scores: tf.Tensor | None,
                  real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        """What the critic maximises; the transforms look at the samples instead of fake_scores."""
        if self.method.objective == "wasserstein":
            return objectives.wasserstein(real_scores, fake_scores)
        if self.method.objective == "gan":
            return objectives.gan_value(real_scores, fake_scores)
        return objectives.dual_value(real_scores, self.transform(real_scores, real, fake))

    def transform(self, real_scores: tf.Tensor, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        """φᶜ or φᶜᵉ at the generated samples: [..., batch]."""
        cost = objectives.pairwise_distance(self._flat(real), self._flat(fake))
        if self.method.objective == "c_transform":
            return objectives.c_transform(real_scores, cost)
        return objectives.c_epsilon_transform(real_scores, cost, self.method.epsilon)

    def critic_losses(self, real: tf.Tensor, fake: tf.Tensor, mix: tf.Tensor) -> dict:
        """The log's first three entries for these batches; mix: [..., batch] in [0, 1]."""
        real_scores, fake_scores = self._scores(real, fake)
        value = self.objective(real_scores, fake_scores, real, fake)
        penalty = self._penalty(real, fake, mix) if self.method.penalised else tf.zeros_like(value)
        return {"estimate": self._estimate(value), "penalty": penalty,
                "critic_loss": self.method.weight * penalty - value}

    def _estimate(self, value: tf.Tensor) -> tf.Tensor:
        return objectives.gan_estimate(value) if self.method.objective == "gan" else value

    def generator_loss(self, real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
        """What the generator minimises, for these batches."""
        if self.method.objective in ("wasserstein", "gan"):
            scores = self._score(fake)
            if self.method.objective == "gan":
                return tf.reduce_mean(tf.math.softplus(-scores), -1)
            return -tf.reduce_mean(scores, -1)
        real_scores = tf.stop_gradient(self._score(real))
        return tf.reduce_mean(self.transform(real_scores, real, fake), -1)

    def _penalty(self, real, fake, mix):
        samples = penalties.interpolate(real, fake, mix)
        squares = penalties.squared_gradient_norm(
            lambda x: self.critic(x, training=True), samples, self._sample_axes)
        if self.method.constraint == "zero_centered":
            return penalties.zero_centered_penalty(squares, self.method.power)
        one_sided = self.method.constraint == "one_sided"
        return (penalties.one_sided_penalty if one_sided else penalties.gradient_penalty)(squares)

    def _scores(self, real, fake):
        """Scores of both batches from one pass of the critic."""
        if self.method.objective in ("c_transform", "c_epsilon_transform"):
            return self._score(real), None
        axis = self._sample_axes - 1
        if mixes_samples(self.critic):
            return self._score(real), self._score(fake)
        scores = self._score(tf.concat([real, fake], axis))
        return tf.split(scores, [tf.shape(real)[axis], tf.shape(fake)[axis]], axis)

    def _score(self, samples):
        return tf.squeeze(self.critic(samples, training=True), -1)  # [..., batch]

    # 2. One step.

    def train_step(self, real: tf.Tensor) -> dict:
        """``critic_steps`` critic updates and one generator update; logs of the last of them.

        real: [batch, features…], used by every critic step, or [critic_steps, batch, features…];
        with several runs [runs, batch, …] or [critic_steps, runs, batch, …].
        """
        return {key: tf.reduce_mean(value) for key, value in self._step(real).items()}

    def _step(self, real: tf.Tensor) -> dict:
        own_batches = len(real.shape) > len(self.critic.input_shape)
        batch_size = real.shape[own_batches + self._sample_axes - 1]
        check_batch_size(batch_size, "train_step")
        batches = [real[k] if own_batches else real for k in range(self.critic_steps)]
        count = batch_size or tf.shape(real)[own_batches + self._sample_axes - 1]
        return self._alternate(batches, count)

    def _alternate(self, batches: list, count, train_generator: bool = True) -> dict:
        """A critic update per real batch, then the generator's; counts the step."""
        latents, mixes = self.noise(count)
        for real, fake, mix in zip(batches, self._fakes(latents[:-1]), mixes):
            log = self._critic_step(real, fake, mix)
        log["generator_loss"] = (self._generator_step(real, latents[-1]) if train_generator
                                 else tf.zeros_like(log["estimate"]))
        self.step.assign_add(1)
        return log

    def _fakes(self, latents: list[tf.Tensor]) -> list[tf.Tensor]:
        """One generated batch a critic step."""
        if not self._one_pass:
            return [self.generator(latent, training=True) for latent in latents]
        axis = self._sample_axes - 1
        fakes = self.generator(tf.concat(latents, axis), training=True)
        return tf.split(fakes, self.critic_steps, axis)

    def _critic_step(self, real, fake, mix) -> dict:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.critic.trainable_variables)
            log = self.critic_losses(real, fake, mix)
            loss = tf.reduce_sum(log["critic_loss"])
        self._update(self.critic_optimizer, tape, loss, self.critic.trainable_variables)
        if self.method.constraint == "clipping":
            penalties.clip_weights(self.critic.trainable_variables, self.method.clip)
        return log

    def _generator_step(self, real, latent) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.generator.trainable_variables)
            losses = self.generator_loss(real, self.generator(latent, training=True))
            loss = tf.reduce_sum(losses)
        self._update(self.generator_optimizer, tape, loss, self.generator.trainable_variables)
        return losses

    @staticmethod
    def _update(optimizer, tape, loss, variables):
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    # 3. Noise: a function of (seed, step, what for), nothing else.

    def noise(self, count) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """This step's latents, one batch a critic step and one for the generator, and the
        interpolation weights, one batch a critic step: [(runs,) count, latent], [(runs,) count].
        """
        axis, size = self._sample_axes - 1, self.generator.input_shape[-1]
        batches = self.critic_steps + 1
        latents = self._draw(_LATENT, lambda seed: tf.random.stateless_normal(
            [batches * count, size], seed))
        mixes = self._draw(_MIX, lambda seed: tf.random.stateless_uniform(
            [self.critic_steps * count], seed))
        return (tf.split(latents, batches, axis), tf.split(mixes, self.critic_steps, axis))

    def _draw(self, what: int, draw, number=None) -> tf.Tensor:
        """draw(seed) of every run, stacked if there are several; ``number`` instead of the step."""
        number = self.step if number is None else number
        drawn = [draw(tf.stack([tf.constant(4 * seed + what, tf.int64), number]))
                 for seed in self.seeds]
        return drawn[0] if self.runs is None else tf.stack(drawn)

    # 4. Whole runs.

    def run(self, data, steps: int, batch_size: int = 64, train_generator: bool = True) -> dict:
        """``steps`` training steps in one compiled loop; the last step's log, one value a run.

        data: [n, features…], shared, or [runs, n, features…]; batches are drawn from it with
        replacement, a new one for each critic step. train_generator=False moves the critic
        alone (and generated samples stay those of the same generator).

        Raises InputError for NaN, a batch of one, shapes that do not fit.
        """
        data = self._check_data(data, batch_size)
        log = self._compiled["_loop"](
            data, tf.constant(steps), tf.constant(batch_size), train_generator)
        return {key: np.atleast_1d(value.numpy()) for key, value in log.items()}

    def _loop(self, data, steps, batch_size, train_generator):
        log = {key: tf.zeros([] if self.runs is None else [self.runs])
               for key in ("estimate", "penalty", "critic_loss", "generator_loss")}

        def body(i, log):
            return i + 1, self._alternate(self._batches(data, batch_size), batch_size,
                                          train_generator)

        return tf.while_loop(lambda i, log: i < steps, body, (0, log), parallel_iterations=1)[1]

    def _batches(self, data, batch_size) -> list[tf.Tensor]:
        """One random batch a critic step, with replacement: [(runs,) batch, features…]."""
        own = self.runs is not None and len(data.shape) == len(self.critic.input_shape)
        index = self._draw(_INDEX, lambda seed: tf.random.stateless_uniform(
            [self.critic_steps * batch_size], seed, maxval=tf.shape(data)[int(own)],
            dtype=tf.int32))
        real = tf.gather(data, index, axis=int(own), batch_dims=int(own))
        return tf.split(real, self.critic_steps, self._sample_axes - 1)

    def train_critic(self, real, fake, steps: int) -> dict:
        """The critic alone, ``steps`` updates on these two fixed sets, each time both whole.

        real, fake: [n, features…], or [runs, n, features…], equally many. Which generated sample
        is interpolated with which real one changes from step to step. Returns the last log.
        """
        sets = [self._every_run(check_samples(x, name)) for x, name in
                ((real, "real"), (fake, "fake"))]
        if sets[0].shape != sets[1].shape:
            raise InputError(f"sets of shape {list(sets[0].shape)} and {list(sets[1].shape)}",
                             "train_critic", "give equally many samples of the same features")
        log = self._compiled["_critic_loop"](*(tf.constant(x) for x in sets), tf.constant(steps))
        return {key: np.atleast_1d(value.numpy()) for key, value in log.items()}

    def _critic_loop(self, real, fake, steps):
        axis = self._sample_axes - 1
        count = tf.shape(real)[axis]

        def body(i, log):
            mix = self._draw(_MIX, lambda seed: tf.random.stateless_uniform([count], seed))
            seed = tf.stack([tf.constant(_INDEX, tf.int64), self.step])
            shift = tf.random.stateless_uniform([], seed, 0, count, tf.int32)
            self.step.assign_add(1)
            return i + 1, self._critic_step(real, tf.roll(fake, shift, axis), mix)

        log = {key: tf.zeros([] if self.runs is None else [self.runs])
               for key in ("estimate", "penalty", "critic_loss")}
        return tf.while_loop(lambda i, log: i < steps, body, (0, log), parallel_iterations=1)[1]

    def _check_data(self, data, batch_size: int) -> tf.Tensor:
        check_batch_size(batch_size)
        data = check_samples(data, "data")
        shape = self.critic.input_shape
        own = self.runs is not None and data.ndim == len(shape)
        features = data.shape[2:] if own else data.shape[1:]
        if features != tuple(shape[self._sample_axes:]) or own and len(data) != self.runs:
            raise InputError(f"data of shape {list(data.shape)}", "run",
                             f"this critic takes samples of shape {list(shape[1:])}")
        return tf.constant(data)

    # 5. Looking at a run.

    def call(self, latent, training=None):
        """The generator's samples for these latents."""
        return self.generator(latent, training=training)

    def generate(self, count: int, stream: int = 0) -> np.ndarray:
        """``count`` samples of each run: [count, features…] or [runs, count, features…].

        The same ``stream`` gives the same latents at every step of the run.
        """
        return self._compiled["_generate"](
            tf.constant(count), tf.constant(stream, tf.int64)).numpy()

    def _generate(self, count, stream):
        size = self.generator.input_shape[-1]
        return self.generator(self._draw(
            _SAMPLE, lambda seed: tf.random.stateless_normal([count, size], seed), stream))

    def look(self, real, fake) -> dict:
        """What the critic as it stands says of two sets, without training: one value a run.

        real, fake: [n, features…], or [runs, n, features…]; one of [n, features…] serves all
        runs. Returns ``estimate`` (as in the log)
        and ``slope``, the largest |D(x) − D(y)| / |x − y| over all pairs. E D(x) − E D(y) divided
        by the slope never exceeds the exact distance of the two sets, for any critic.
        """
        result = self._compiled["_look"](*(tf.constant(self._every_run(x)) for x in (real, fake)))
        return {key: np.atleast_1d(value.numpy()) for key, value in result.items()}

    def _every_run(self, samples) -> np.ndarray:
        samples = np.asarray(samples, "float32")
        if self.runs is None or samples.ndim == len(self.critic.input_shape):
            return samples
        return np.broadcast_to(samples, (self.runs, *samples.shape))

    def _look(self, real, fake) -> dict:
        real_scores, fake_scores = (tf.squeeze(self.critic(x), -1) for x in (real, fake))
        value = self.objective(real_scores, fake_scores, real, fake)
        cost = objectives.pairwise_distance(self._flat(real), self._flat(fake))
        gaps = tf.abs(real_scores[..., :, None] - fake_scores[..., None, :])
        slope = tf.reduce_max(tf.math.divide_no_nan(gaps, cost), axis=(-2, -1))
        return {"estimate": self._estimate(value), "slope": slope}

    def _flat(self, samples):
        shape = tf.shape(samples)
        return tf.reshape(samples, tf.concat([shape[:self._sample_axes], [-1]], 0))

"""The trainer: its losses, its step, its independence of runs, exact continuation, refusals."""

import math

import numpy as np
import pytest
import tensorflow as tf

from bert_theseus import wgan
from bert_theseus.backend import keras
from bert_theseus.errors import InputError

DATA = np.random.RandomState(0).randn(200, 2).astype("float32") + 1


def make(method="gradient_penalty", seed=0, critic_steps=2, rate=1e-3, **numbers):
    spectral = "spectral" in method
    trainer = wgan.Trainer(wgan.generator_network(2, seed, hidden=[8]),
                           wgan.critic_network(2, seed, hidden=[8], spectral=spectral), method,
                           critic_steps=critic_steps, seed=seed, **numbers)
    trainer.compile(learning_rate=rate)
    return trainer


@pytest.mark.parametrize("method", list(wgan.METHODS))
def test_losses_of_every_method_by_hand(method):
    trainer = make(method)
    for weight in trainer.critic.trainable_variables:
        weight.assign(2.5 * weight)       # steep enough for the one-sided penalty
    for _ in range(60):
        trainer.critic(DATA, training=True)     # lets the power iteration settle
    real, fake, mix = DATA[:6], DATA[6:12] - 2, np.linspace(0, 1, 6).astype("float32")
    log = {k: float(v) for k, v in trainer.critic_losses(real, fake, tf.constant(mix)).items()}
    score = lambda x: trainer.critic(x).numpy()[:, 0]  # noqa: E731
    a, b = score(real).astype("float64"), score(fake).astype("float64")
    cost = np.linalg.norm(real[:, None] - fake[None], axis=-1)
    kind, epsilon = trainer.method.objective, trainer.method.epsilon
    transformed = {"c_transform": np.min(cost - a[:, None], 0),
                   "c_epsilon_transform": -epsilon * np.log(np.mean(
                       np.exp((a[:, None] - cost) / epsilon), 0))}.get(kind)
    softplus = lambda z: np.log1p(np.exp(z))  # noqa: E731
    value = {"wasserstein": a.mean() - b.mean(),
             "gan": -softplus(-a).mean() - softplus(b).mean()}.get(kind)
    value = a.mean() + transformed.mean() if value is None else value
    estimate = value / 2 + math.log(2) if kind == "gan" else value
    generator = {"wasserstein": -b.mean(), "gan": softplus(-b).mean()}.get(kind)
    generator = transformed.mean() if generator is None else generator
    assert abs(log["estimate"] - estimate) < 1e-5
    loss = trainer.method.weight * log["penalty"] - value
    assert abs(log["critic_loss"] - loss) < 1e-5 * (1 + abs(loss))
    assert abs(float(trainer.generator_loss(real, fake)) - generator) < 1e-5
    assert (log["penalty"] > 0) == trainer.method.penalised


def test_penalty_is_taken_at_the_interpolated_samples():
    trainer = make()
    real, fake, mix = DATA[:6], DATA[6:12], np.linspace(0, 1, 6).astype("float32")
    between = tf.constant(mix[:, None] * real + (1 - mix[:, None]) * fake)
    norms = np.sqrt(wgan.squared_gradient_norm(trainer.critic, between))
    penalty = trainer.critic_losses(real, fake, tf.constant(mix))["penalty"]
    assert abs(float(penalty) - np.mean((norms - 1) ** 2)) < 1e-5


def test_one_step_is_the_textbook_loop():
    """Two critic updates and one generator update, written out, on the same noise."""
    ours, plain = make(), make()
    real = tf.constant(DATA[:64].reshape(2, 32, 2))
    log = ours._step(real)
    critic, generator = plain.critic, plain.generator
    latents, mixes = plain.noise(32)
    for k in range(2):
        fake, mix = generator(latents[k]), mixes[k]
        with tf.GradientTape() as tape:
            between = mix[:, None] * real[k] + (1 - mix[:, None]) * fake
            with tf.GradientTape() as inner:
                inner.watch(between)
                score = critic(between)
            slope = tf.norm(inner.gradient(score, between), axis=1)
            loss = (tf.reduce_mean(critic(fake)) - tf.reduce_mean(critic(real[k]))
                    + 10 * tf.reduce_mean((slope - 1) ** 2))
        plain.critic_optimizer.apply_gradients(zip(
            tape.gradient(loss, critic.trainable_variables), critic.trainable_variables))
    with tf.GradientTape() as tape:
        generator_loss = -tf.reduce_mean(critic(generator(latents[2])))
    plain.generator_optimizer.apply_gradients(zip(
        tape.gradient(generator_loss, generator.trainable_variables),
        generator.trainable_variables))
    assert abs(float(log["critic_loss"]) - float(loss)) < 1e-5
    assert abs(float(log["generator_loss"]) - float(generator_loss)) < 1e-5
    for a, b in zip(ours.trainable_variables, plain.trainable_variables):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("method", ["gradient_penalty", "c_epsilon_transform", "spectral_norm"])
def test_seeds_side_by_side_are_the_seeds_alone(method):
    many = make(method, seed=(3, 5))
    many.run(DATA, steps=4, batch_size=16)
    alone = make(method, seed=5)
    alone.run(DATA, steps=4, batch_size=16)
    np.testing.assert_allclose(many.generate(7)[1], alone.generate(7), atol=1e-5)
    ours, theirs = many.look(DATA[:20], many.generate(9)), alone.look(DATA[:20], alone.generate(9))
    for key in ("estimate", "slope"):
        np.testing.assert_allclose(ours[key][1], theirs[key][0], atol=1e-4)


def test_a_run_continues_exactly_from_a_checkpoint():
    whole, first, second = make(), make(), make(seed=0)
    whole.run(DATA, steps=6, batch_size=16)
    first.run(DATA, steps=4, batch_size=16)
    path = tf.train.Checkpoint(first).save("half")
    second.run(DATA, steps=1, batch_size=16)      # other weights, another step
    tf.train.Checkpoint(second).restore(path)
    second.run(DATA, steps=2, batch_size=16)
    for a, b in zip(whole.get_weights(), second.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_fit_trains_and_keeps_the_meaning_of_its_numbers():
    trainer = make(critic_steps=1)
    history = trainer.fit(DATA, batch_size=50, epochs=1, verbose=0).history
    assert set(history) == {"estimate", "penalty", "critic_loss", "generator_loss"}
    assert int(trainer.step.numpy()) == 4
    loss = 10 * history["penalty"][0] - history["estimate"][0]
    assert abs(history["critic_loss"][0] - loss) < 1e-4


def test_estimate_is_positive_for_unequal_sets_and_turns_with_them():
    trainer = make(rate=1e-2)
    far = trainer.generate(200) + 0.
    trainer.run(DATA + 3, steps=60, batch_size=64, train_generator=False)
    look = trainer.look(DATA + 3, far)["estimate"][0]
    assert look > 0.5 * wgan.exact_wasserstein(DATA + 3, far)
    assert abs(trainer.look(far, DATA + 3)["estimate"][0] + look) < 1e-4
    np.testing.assert_array_equal(far, trainer.generate(200))   # the critic moved alone


def test_clipping_keeps_every_weight_inside():
    trainer = make("clipping", clip=0.02, rate=0.1)
    trainer.run(DATA, steps=2, batch_size=16)
    assert max(np.abs(w).max() for w in trainer.critic.get_weights()) <= np.float32(0.02)


def test_images_go_through_the_same_trainer():
    images = np.random.RandomState(0).rand(8, 8, 8, 1).astype("float32")
    trainer = wgan.Trainer(wgan.image_generator((8, 8, 1), latent=4, filters=4),
                           wgan.image_critic((8, 8, 1), filters=4), "c_transform", critic_steps=1)
    trainer.compile()
    log = trainer.run(images, steps=1, batch_size=4)
    fake = trainer.generate(8)
    assert fake.shape == (8, 8, 8, 1) and np.isfinite(log["estimate"]).all()
    assert trainer.look(images, fake)["estimate"][0] <= wgan.exact_wasserstein(images, fake) + 1e-5


def batch_norm_critic():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(4),
                             keras.layers.BatchNormalization(), keras.layers.Dense(1)])


@pytest.mark.parametrize("call, words", [
    (lambda: make("hinge"), "unknown method 'hinge', method, use one of"),
    (lambda: wgan.Trainer(wgan.generator_network(3), wgan.critic_network(2)), "[None, 3]"),
    (lambda: wgan.Trainer(wgan.generator_network(2), wgan.dense_network(2, [4], 3)), "one score"),
    (lambda: wgan.Trainer(wgan.generator_network(2), batch_norm_critic()), "batch normalisation"),
    (lambda: wgan.Trainer(wgan.generator_network(2), wgan.critic_network(2), "spectral_norm"),
     "spectral=True"),
    (lambda: wgan.Trainer(wgan.generator_network(2), wgan.critic_network(2), seed=(1, 2)),
     "2 seeds"),
    (lambda: make(seed=(1, 1)), "different seeds"),
    (lambda: make(critic_steps=0), "critic_steps = 0"),
    (lambda: make().run(DATA, 1, batch_size=1), "a batch of 1"),
    (lambda: make().train_step(tf.constant(DATA[:1])), "a batch of 1"),
    (lambda: make().run(DATA[:, :1], 1), "data of shape [200, 1]"),
    (lambda: make().run(np.where(DATA > 3, np.nan, DATA), 1), "NaN"),
])
def test_bad_input_gets_one_clear_line(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_batch_normalisation_is_refused_only_where_a_penalty_is():
    for method in ("gan", "clipping", "c_transform"):
        wgan.Trainer(wgan.generator_network(2), batch_norm_critic(), method)
    for method, kind in wgan.METHODS.items():
        if kind.penalised:
            with pytest.raises(InputError):
                wgan.Trainer(wgan.generator_network(2), batch_norm_critic(), method)

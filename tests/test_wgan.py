"""WGAN: objectives, penalties, truth and networks against brute force, laws and derivatives."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from harness import check_layer
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_theseus import wgan
from bert_theseus.backend import keras
from bert_theseus.errors import InputError

FEW = settings(max_examples=25, deadline=None)


def points(seed, n, d, shift=0.):
    return np.random.RandomState(seed).randn(n, d) + shift


# 1. Objectives

def test_c_transform_by_brute_force():
    scores, cost = np.random.RandomState(0).randn(5), np.random.RandomState(1).rand(5, 4) * 3
    expected = [min(cost[i, j] - scores[i] for i in range(5)) for j in range(4)]
    actual = wgan.c_transform(tf.constant(scores), tf.constant(cost))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_c_epsilon_transform_by_brute_force_has_score_minus_cost_in_the_exponent():
    scores, cost = np.random.RandomState(0).randn(5), np.random.RandomState(1).rand(5, 4) * 3
    for epsilon in (0.3, 2.):
        expected = [-epsilon * math.log(sum(math.exp((scores[i] - cost[i, j]) / epsilon)
                                            for i in range(5)) / 5) for j in range(4)]
        turned = [-epsilon * math.log(sum(math.exp((cost[i, j] - scores[i]) / epsilon)
                                          for i in range(5)) / 5) for j in range(4)]
        actual = wgan.c_epsilon_transform(tf.constant(scores), tf.constant(cost), epsilon)
        np.testing.assert_allclose(actual, expected, rtol=1e-12)
        assert np.abs(np.subtract(actual, turned)).min() > 0.1


@FEW
@given(st.integers(0, 10 ** 6), st.floats(1e-4, 10.))
def test_c_epsilon_transform_lies_between_its_bounds(seed, epsilon):
    random = np.random.RandomState(seed)
    scores, cost = tf.constant(100 * random.randn(6)), tf.constant(50 * random.rand(6, 3))
    hard = wgan.c_transform(scores, cost).numpy()
    soft = wgan.c_epsilon_transform(scores, cost, epsilon).numpy()
    assert (soft >= hard - 1e-9).all() and (soft <= hard + epsilon * math.log(6) + 1e-9).all()


@FEW
@given(st.integers(0, 10 ** 6))
def test_no_potential_exceeds_the_exact_distance(seed):
    """Weak duality: the c-transform's value for any potential, and any scores over their slope."""
    random = np.random.RandomState(seed)
    x, y, scores = random.randn(7, 3), random.randn(5, 3) + 1, random.randn(12) * 3
    truth, cost = wgan.exact_wasserstein(x, y), wgan.pairwise_distance(x, y)
    real, fake = tf.constant(scores[:7]), tf.constant(scores[7:])
    assert wgan.dual_value(real, wgan.c_transform(real, cost)) <= truth + 1e-9
    slope = np.max(np.abs(scores[:7, None] - scores[None, 7:]) / cost)
    assert wgan.wasserstein(real, fake) / slope <= truth + 1e-9


def test_best_potential_of_the_c_epsilon_transform_gives_the_entropic_distance():
    import ot
    x, y, epsilon = points(0, 6, 2), points(1, 5, 2, 1.), 0.5
    cost = wgan.pairwise_distance(x, y).numpy()
    plan = ot.sinkhorn(np.ones(6) / 6, np.ones(5) / 5, cost, epsilon, numItermax=5000)
    entropic = np.sum(plan * cost) + epsilon * np.sum(plan * np.log(plan * 30))
    potential = tf.Variable(np.zeros(6))
    optimizer = keras.optimizers.Adam(0.02)
    for _ in range(300):
        with tf.GradientTape() as tape:
            value = wgan.dual_value(potential, wgan.c_epsilon_transform(potential, cost, epsilon))
        optimizer.apply_gradients([(-tape.gradient(value, potential), potential)])
    assert abs(float(value) - entropic) < 1e-3


def test_gan_value_is_the_cross_entropy_and_survives_large_scores():
    real, fake = np.array([0.3, -2.]), np.array([1., -0.5])
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    expected = np.mean(np.log(sigmoid(real))) + np.mean(np.log(1 - sigmoid(fake)))
    np.testing.assert_allclose(wgan.gan_value(tf.constant(real), tf.constant(fake)), expected)
    assert np.isfinite(wgan.gan_value(tf.constant([-1e4]), tf.constant([1e4])))


def test_distances_far_from_the_origin_keep_their_digits_and_zero_has_a_gradient():
    x = np.float32([[1000., 1000.], [1000., 1001.]])
    np.testing.assert_allclose(wgan.pairwise_distance(x, x), [[0, 1], [1, 0]], atol=1e-3)
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(wgan.pairwise_distance(variable, tf.constant(x)))
    assert np.isfinite(tape.gradient(total, variable)).all()


# 2. Penalties and constraints

def test_gradient_norm_against_finite_differences():
    critic = wgan.critic_network(3, seed=1)
    x, step = np.float32(points(0, 4, 3)), 1e-3
    moved = [(critic(x + step * e) - critic(x - step * e)).numpy()[:, 0] / (2 * step)
             for e in np.eye(3, dtype="float32")]
    actual = wgan.squared_gradient_norm(critic, tf.constant(x))
    np.testing.assert_allclose(actual, np.sum(np.square(moved), 0), rtol=2e-2)


def test_penalties_by_hand_and_at_a_flat_critic():
    squares = tf.constant([0., 0.25, 9.])
    norms = np.array([0., 0.5, 3.])
    np.testing.assert_allclose(wgan.gradient_penalty(squares), np.mean((norms - 1) ** 2))
    np.testing.assert_allclose(wgan.one_sided_penalty(squares), 4 / 3)
    np.testing.assert_allclose(wgan.zero_centered_penalty(squares), np.mean(norms ** 6))
    weight = tf.Variable(tf.zeros([2, 1]))
    for penalty in (wgan.gradient_penalty, wgan.one_sided_penalty, wgan.zero_centered_penalty):
        with tf.GradientTape() as tape:
            value = penalty(wgan.squared_gradient_norm(lambda x: x @ weight, tf.ones([3, 2])))
        assert np.all(tape.gradient(value, weight) == 0.), "NaN at a critic that starts flat"


def test_derivatives_of_the_penalties_against_finite_differences():
    squares, step = np.array([0.09, 0.9, 4.]), 1e-5
    for penalty in (wgan.gradient_penalty, wgan.one_sided_penalty, wgan.zero_centered_penalty):
        variable = tf.Variable(squares)
        with tf.GradientTape() as tape:
            value = penalty(variable)
        expected = [(float(penalty(tf.constant(squares + step * e)))
                     - float(penalty(tf.constant(squares - step * e)))) / (2 * step)
                    for e in np.eye(3)]
        np.testing.assert_allclose(tape.gradient(value, variable), expected, rtol=1e-6, atol=1e-8)


def test_interpolation_is_uniform_and_has_one_weight_a_sample():
    trainer = wgan.Trainer(wgan.generator_network(2), wgan.critic_network(2))
    mix = np.concatenate(trainer.noise(600)[1])
    assert mix.min() >= 0 and mix.max() <= 1
    np.testing.assert_allclose(np.histogram(mix, 4)[0], 750, atol=80)
    images = wgan.interpolate(tf.ones([2, 4, 4, 1]), tf.zeros([2, 4, 4, 1]), mix[:2])
    np.testing.assert_array_equal(images, np.ones([2, 4, 4, 1]) * mix[:2, None, None, None])


def test_leaky_relu_is_tensorflows_in_value_and_in_the_penalty():
    x = tf.constant(np.float32(points(0, 6, 3)))
    ours, theirs = wgan.critic_network(3, seed=1), wgan.critic_network(3, seed=1)
    for layer in theirs.layers[:-1]:
        layer.activation = tf.nn.leaky_relu
    gradients = []
    for critic in (ours, theirs):
        with tf.GradientTape() as tape:
            penalty = wgan.gradient_penalty(wgan.squared_gradient_norm(critic, x))
        gradients.append(tape.gradient(penalty, critic.trainable_variables,
                                       unconnected_gradients="zero"))
    np.testing.assert_array_equal(ours(x), theirs(x))
    for a, b in zip(*gradients):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_spectral_norm_against_singular_values():
    kernel = np.float32(points(3, 6, 4))
    normal, _ = wgan.normalize_kernel(tf.constant(kernel), tf.ones([4, 1]), 50)
    np.testing.assert_allclose(normal, kernel / np.linalg.svd(kernel)[1][0], rtol=1e-4)
    layer = wgan.SpectralDense(4, use_bias=False)
    for _ in range(50):  # one round a training call, kept from call to call
        outputs = layer(tf.eye(6), training=True)
    assert abs(np.linalg.svd(outputs)[1][0] - 1) < 1e-4
    critic = wgan.critic_network(2, spectral=True)
    for _ in range(30):
        critic(tf.ones([1, 2]), training=True)
    assert wgan.squared_gradient_norm(critic, tf.constant(np.float32(points(0, 50, 2)))
                                      ).numpy().max() <= 1.001


def test_layers_pass_the_harness():
    x = np.float32(points(0, 3, 8)).reshape(3, 4, 2)
    check_layer(lambda: wgan.DenseRuns(5, seeds=[1, 2, 3], activation="relu"), x)
    check_layer(lambda: wgan.SpectralDenseRuns(5, seeds=[1, 2, 3], power_iterations=3), x)
    check_layer(lambda: wgan.SpectralDense(5, activation="tanh", power_iterations=2), x)
    check_layer(lambda: wgan.SpectralConv2D(2, 3, padding="same", power_iterations=2),
                np.float32(points(0, 2, 50)).reshape(2, 5, 5, 2))


# 3. The truth

@FEW
@given(st.integers(0, 10 ** 6), st.integers(2, 5), st.integers(1, 3), st.sampled_from([1, 2]))
def test_exact_distance_is_the_best_of_all_assignments(seed, n, d, p):
    random = np.random.RandomState(seed)
    x, y = random.randn(n, d), random.randn(n, d)
    cost = np.linalg.norm(x[:, None] - y[None], axis=-1) ** p
    best = min(np.mean([cost[i, j] for i, j in enumerate(order)])
               for order in itertools.permutations(range(n)))
    assert abs(wgan.exact_wasserstein(x, y, p=p) - best ** (1 / p)) < 1e-9


def test_exact_distance_laws():
    x, y, z = points(0, 9, 3), points(1, 12, 3, 1.), points(2, 7, 3, -1.)
    distance = wgan.exact_wasserstein
    assert distance(x, x) < 1e-12 and abs(distance(x, y) - distance(y, x)) < 1e-12
    assert distance(x, z) <= distance(x, y) + distance(y, z)
    assert abs(distance(x, x + np.array([3., 0., 4.])) - 5) < 1e-12
    assert distance(x, y) <= distance(x, y, p=2)
    weights = np.arange(1., 10.)
    repeated = np.repeat(x, np.arange(1, 10), axis=0)
    assert abs(distance(x, y, x_weights=weights) - distance(repeated, y)) < 1e-9


def test_one_feature_by_sorting_is_the_network_simplex():
    x, y = points(0, 30, 1), points(1, 20, 1, 2.)
    flat = np.concatenate([x, np.zeros_like(x)], 1), np.concatenate([y, np.zeros_like(y)], 1)
    assert abs(wgan.exact_wasserstein(x, y) - wgan.exact_wasserstein(*flat)) < 1e-12
    assert wgan.exact_wasserstein(x[:, 0], y[:, 0]) == wgan.exact_wasserstein(x, y)


def test_gaussian_distance_in_closed_form_and_from_samples():
    random = np.random.RandomState(0)
    a, b = random.randn(3, 3), random.randn(3, 3)
    mean, cov_a, cov_b = np.array([1., 2., 0.]), a @ a.T, b @ b.T
    diagonal = wgan.gaussian_wasserstein([0, 0], np.diag([1., 4.]), [3, 0], np.diag([9., 4.]))
    assert abs(diagonal - math.sqrt(9 + 4)) < 1e-9
    value = wgan.gaussian_wasserstein(np.zeros(3), cov_a, mean, cov_b)
    assert abs(value - wgan.gaussian_wasserstein(mean, cov_b, np.zeros(3), cov_a)) < 1e-6
    x = random.multivariate_normal(np.zeros(3), cov_a, 700)
    y = random.multivariate_normal(mean, cov_b, 700)
    assert abs(wgan.exact_wasserstein(x, y, p=2) / value - 1) < 0.1


@pytest.mark.parametrize("call, words", [
    (lambda: wgan.exact_wasserstein([[0., 1.]], [[0.]]), "2 features, y has 1"),
    (lambda: wgan.exact_wasserstein([[np.nan]], [[0.]]), "NaN"),
    (lambda: wgan.exact_wasserstein([], [[0.]]), "no points"),
    (lambda: wgan.exact_wasserstein([[0.]], [[1.]], p=0.5), "p = 0.5"),
    (lambda: wgan.exact_wasserstein([[0.]], [[1.]], x_weights=[-1.]), "non-negative"),
    (lambda: wgan.gaussian_wasserstein([0.], [[1., 0.], [0., 1.]], [0.], [[1.]]), "covariance"),
    (lambda: wgan.gaussian_wasserstein([0.], [[-1.]], [0.], [[1.]]), "not a covariance"),
    (lambda: wgan.get_method("wgan"), "use one of clipping"),
    (lambda: wgan.get_method("gan", lipschitz=1.), "no lipschitz"),
    (lambda: wgan.get_method("c_epsilon_transform", epsilon=0.), "epsilon = 0"),
    (lambda: wgan.check_samples([[1., np.inf], [0., 0.]]), "sample 0"),
    (lambda: wgan.check_samples([[1., 2.]]), "at least two"),
    (lambda: wgan.image_critic((7, 8, 1)), "multiples of 4"),
])
def test_bad_input_gets_one_clear_line(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value) and "\n" not in str(caught.value)

"""bert4keras' optimizers on legacy Keras: values after each step, inside tf.function."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from bert4keras.optimizers import (
    AdaFactor, Adam, Lion, extend_with_exponential_moving_average,
    extend_with_gradient_accumulation, extend_with_layer_adaptation,
    extend_with_lazy_optimization, extend_with_lookahead, extend_with_parameter_wise_lr,
    extend_with_piecewise_linear_lr, extend_with_weight_decay)

from bert_theseus.backend import K, keras

from small import small_batch, small_model

RATE, STEP = 0.1, 0.1 / (1 + 1e-6)      # Adam moves by STEP under a gradient that stays ±1


def train(optimizer, start, gradients, name="kernel"):
    """The values of a variable after each step, inside tf.function as in ``fit``."""
    variable = tf.Variable(np.asarray(start, "float32"), name=name)
    values = []

    @tf.function
    def step(gradient):
        optimizer.apply_gradients([(gradient, variable)])

    for gradient in gradients:
        step(tf.constant(gradient, "float32"))
        values.append(variable.numpy())
    return np.array(values)


def test_optimizers_are_of_the_one_kind_bert4keras_extends():
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    model.compile("adam", "mse")
    old = keras.optimizers.legacy.Optimizer
    assert isinstance(model.optimizer, old) and isinstance(Adam(), old)
    assert keras.optimizers.Adam is keras.optimizers.legacy.Adam


def test_weight_decay_takes_its_share_of_the_weight():
    optimizer = extend_with_weight_decay(Adam)(RATE, weight_decay_rate=0.5)
    values = train(optimizer, [1.0, -2.0], [[1, 1]])
    np.testing.assert_allclose(values[0], [1 - STEP - 0.05, -2 - STEP + 0.1], rtol=1e-5)


def test_layer_adaptation_scales_by_the_ratio_of_norms():
    values = train(extend_with_layer_adaptation(Adam)(RATE), [3.0, 4.0], [[1, 1]])
    move = STEP * 5 / (np.sqrt(2) / (1 + 1e-6))
    np.testing.assert_allclose(values[0], [3 - move, 4 - move], rtol=1e-5)


def test_piecewise_linear_rate():
    optimizer = extend_with_piecewise_linear_lr(Adam)(RATE, lr_schedule={2: 1, 4: 0})
    values = train(optimizer, [0.0], [[1]] * 6)[:, 0]
    np.testing.assert_allclose(np.diff(values, prepend=0) / -STEP, [0, .5, 1, .5, 0, 0], atol=1e-5)


def test_gradient_accumulation_moves_by_the_mean_of_its_steps():
    optimizer = extend_with_gradient_accumulation(Adam)(RATE, grad_accum_steps=2,
                                                        bias_correction=False)
    values = train(optimizer, [0.0], [[1], [3], [0], [0], [0]])[:, 0]
    reference = train(Adam(RATE, bias_correction=False), [0.0], [[0], [2], [0]])[:, 0]
    assert values[0] == values[1] == 0 and values[2] == values[3] != 0
    # The moments are updated at every second step only, the first of them with no gradient yet.
    np.testing.assert_allclose(values[[0, 2, 4]], reference, rtol=1e-5)


def test_lookahead_goes_back_half_way_every_k_steps():
    optimizer = extend_with_lookahead(Adam)(RATE, steps_per_slow_update=3, slow_step_size=0.5)
    values = train(optimizer, [1.0], [[1]] * 4)[:, 0]
    slow = 0.5 * (1 - STEP)             # slow weights start from zero, first update at step 0
    fast = slow - 2 * STEP
    slow = slow + 0.5 * (fast - STEP - slow)
    np.testing.assert_allclose(values, [0.5 * (1 - STEP), fast + STEP, fast, slow], rtol=1e-5)


def test_lazy_optimization_leaves_rows_without_gradient():
    optimizer = extend_with_lazy_optimization(Adam)(
        RATE, include_in_lazy_optimization=["Embedding"])
    both, first = [[1, 1], [1, 1]], [[1, 1], [0, 0]]
    values = train(optimizer, np.zeros([2, 2]), [both, first], name="Embedding")
    assert (values[1][1] == values[0][1]).all() and (values[1][0] != values[0][0]).all()


def test_moving_average_is_applied_and_taken_back():
    optimizer = extend_with_exponential_moving_average(Adam)(RATE, ema_momentum=0.5)
    variable = tf.Variable([1.0])
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant([1.0]), variable)])
    optimizer.apply_ema_weights()
    mean = (0.25 * (1 - STEP) + 0.5 * (1 - 2 * STEP)) / 0.75
    np.testing.assert_allclose(variable, [mean], rtol=1e-5)
    optimizer.reset_old_weights()
    np.testing.assert_allclose(variable, [1 - 2 * STEP], rtol=1e-5)


def test_parameter_wise_rate():
    optimizer = extend_with_parameter_wise_lr(Adam)(RATE, paramwise_lr_schedule={"kern": 0.5})
    np.testing.assert_allclose(train(optimizer, [0.0], [[1]]), [[-STEP / 2]], rtol=1e-5)


def test_all_eight_together_train_in_fit():
    optimizer = Adam
    for extend in (extend_with_weight_decay, extend_with_layer_adaptation,
                   extend_with_piecewise_linear_lr, extend_with_gradient_accumulation,
                   extend_with_lookahead, extend_with_lazy_optimization,
                   extend_with_exponential_moving_average, extend_with_parameter_wise_lr):
        optimizer = extend(optimizer)
    model = small_model()
    model.compile(optimizer(0.2, lr_schedule={2: 1}, include_in_lazy_optimization=["Embedding"]),
                  "mse")
    losses = model.fit(small_batch()[0], np.ones([2, 7, 1]), epochs=60, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_adafactor_in_fit_has_one_learning_rate_that_can_be_changed():
    model = small_model()
    optimizer = AdaFactor(0.1)
    model.compile(optimizer, "mse")
    losses = model.fit(small_batch()[0], np.ones([2, 7, 1]), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert optimizer.learning_rate is optimizer.learning_rate
    K.set_value(optimizer.learning_rate, 0.0)
    before = model.get_weights()
    model.fit(small_batch()[0], np.ones([2, 7, 1]), verbose=0)
    assert all((a == b).all() for a, b in zip(before, model.get_weights()))
    assert optimizer.get_config()["learning_rate"] == 0.0


def test_adafactor_steps_equal_the_paper():
    gradient = np.random.RandomState(0).randn(128, 130)
    start = np.random.RandomState(1).randn(128, 130)
    for rate in (None, 0.01):
        optimizer = AdaFactor.from_config(AdaFactor(rate).get_config())
        square = gradient ** 2 + 1e-30
        rows, columns = square.mean(1, keepdims=True), square.mean(0, keepdims=True)
        update = gradient / np.sqrt(rows * columns / rows.mean())   # beta2 is 0 at the first step
        update /= max(1, np.sqrt((update ** 2).mean()))
        update *= np.sqrt((start ** 2).mean())
        expected = start - 0.01 * update                            # min(0.01, 1/sqrt(1)) too
        np.testing.assert_allclose(train(optimizer, start, [gradient])[0], expected, atol=1e-5)


def test_lion_moves_by_signs_and_is_found_again():
    config = keras.optimizers.serialize(Lion(RATE, beta_1=0.5, beta_2=0.5))
    optimizer = keras.optimizers.deserialize(config)
    values = train(optimizer, [0.0], [[1], [-0.4], [-0.4]])[:, 0]
    np.testing.assert_allclose(values, [-0.1, -0.2, -0.1], atol=1e-6)


@pytest.mark.parametrize("make", [Adam, Lion, AdaFactor, extend_with_weight_decay(Adam),
                                  keras.optimizers.SGD])
def test_lr_is_the_learning_rate(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert float(K.get_value(make(lr=0.25).learning_rate)) == 0.25
    if make is not keras.optimizers.SGD:
        with pytest.raises(TypeError):
            make(0.1, lr=0.25)


def test_adam_takes_epsilon_none():
    assert Adam(epsilon=None).epsilon == K.epsilon()

"""Smooth F1 of 7708: the gradient identity, F as batch value, running estimate and full pass."""

import itertools

import numpy as np

from bert_theseus import imbalance as im
from bert_theseus.backend import keras
from imbalance_losses import (BATCH, BINARY, CLASSES, LABELS, LOGITS, ONE, RNG, alike, sigmoid,
                              softmax, value_and_gradient)


def test_gradient_identity_of_smooth_f1():
    p, y = sigmoid(ONE), BINARY
    f1 = 2 * (y * p).mean() / (y + p).mean()
    by_hand = -2 / (y + p).mean() * (y - f1 / 2) * p * (1 - p) / BATCH
    _, gradient = value_and_gradient(im.SmoothF1Loss(), y, ONE)
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-10)
    for estimate, average in itertools.product(("running", "full"), ("macro", "micro")):
        for labels, z in ((y, ONE), (LABELS, LOGITS)):   # at the batch's own F1 the same gradient
            batch = im.SmoothF1Loss(average=average)
            other = im.SmoothF1Loss(estimate, momentum=0.0, average=average)
            if estimate == "full":
                q = sigmoid(z) if z.shape[-1] == 1 else softmax(z)
                t = labels if z.shape[-1] == 1 else np.eye(CLASSES)[labels]
                both = (t * q).mean(0), (t + q).mean(0)
                other.statistic.set(*(b.mean(keepdims=average == "micro") if average == "micro"
                                      else b for b in both))
            (v1, g1), (v2, g2) = (value_and_gradient(loss, labels, z) for loss in (batch, other))
            np.testing.assert_allclose(v2, v1, rtol=1e-6)
            np.testing.assert_allclose(g2, g1, rtol=1e-5, atol=1e-9)


def test_f1_weighted_gradient_is_smooth_f1_s_with_p_made_log_p():
    p, y = sigmoid(ONE), BINARY
    f1 = 2 * (y * p).mean() / (y + p).mean()
    by_hand = (-y * (1 - f1 / 2) * (1 - p) + (1 - y) * f1 / 2 * p) / BATCH
    _, gradient = value_and_gradient(im.F1WeightedCrossentropy(), y, ONE)
    np.testing.assert_allclose(gradient, by_hand, rtol=1e-10)


def test_running_f1_is_the_exponential_mean():
    loss = im.F1WeightedCrossentropy("running", momentum=0.9)
    top = bottom = weight = 0.0
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=[BATCH, 1])
        loss(BINARY, x)
        p = sigmoid(x)
        top = 0.9 * top + 0.1 * (BINARY * p).mean()
        bottom = 0.9 * bottom + 0.1 * (BINARY + p).mean()
        weight = 0.9 * weight + 0.1
    np.testing.assert_allclose(loss.statistic.value(), 2 * top / bottom, rtol=1e-5)
    np.testing.assert_allclose(loss.statistic._state[2], weight, rtol=1e-6)


def test_full_data_f1_is_what_a_pass_over_the_data_gives():
    x = RNG.normal(size=[40, 3]).astype("float32")
    y = (x[:, 0] > 1).astype("int32")
    loss = im.F1WeightedCrossentropy("full")
    model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])
    model.compile("sgd", loss)
    p, t = softmax(model.predict(x, verbose=0)), np.eye(2)[y]
    model.fit(x, y, epochs=1, batch_size=8, callbacks=[im.FullDataF1(loss, x, y)], verbose=0)
    np.testing.assert_allclose(loss.statistic.value(),
                               2 * (t * p).mean(0) / (t + p).mean(0), rtol=1e-4)


def test_f1_dice_and_accuracy_are_siblings():
    for y, z in ((BINARY, ONE), (LABELS, LOGITS)):
        assert alike(im.DiceLoss(over="batch", smooth=0.0), im.SmoothF1Loss(), y, z)
    assert alike(im.SmoothF1Loss(average="micro"), im.SmoothAccuracyLoss())

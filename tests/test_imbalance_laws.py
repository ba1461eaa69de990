"""Laws of the imbalance losses: where they collapse to each other, and the two prediction rules."""

import numpy as np
import pytest
import tensorflow as tf

from bert_theseus import imbalance as im
from bert_theseus.backend import keras
from imbalance_losses import (BINARY, CLASSES, COUNTS, LABELS, LOGITS, ONE, PRIOR, RNG, alike,
                              sigmoid, softmax, value_and_gradient)


def test_collapse_to_cross_entropy():
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for loss in (im.WeightedCrossentropy(), im.WeightedCrossentropy([1] * 4),
                 im.ClassBalancedCrossentropy(COUNTS, 0.0), im.FocalCrossentropy(0.0),
                 im.MarginCrossentropy(0.0), im.LogitAdjustedCrossentropy(PRIOR, tau=0.0),
                 im.LogitAdjustedCrossentropy([0.25] * 4), im.HardTruncatedCrossentropy(1 - 1e-16)):
        assert alike(loss, plain)
    assert alike(im.SubsetCrossentropy(1), keras.losses.CategoricalCrossentropy(from_logits=True),
                 np.eye(CLASSES)[LABELS])
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    for loss in (im.WeightedCrossentropy(), im.LogitAdjustedCrossentropy([0.5, 0.5]),
                 im.FocalCrossentropy(0.0), im.MarginCrossentropy([0.0, 0.0], others=True)):
        assert alike(loss, binary, BINARY, ONE)
    smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    assert alike(im.WeightedCrossentropy(label_smoothing=0.2), smoothed, np.eye(CLASSES)[LABELS])
    assert not alike(im.FocalCrossentropy(0.01), plain)


def test_soft_truncation_at_k_to_zero_is_a_multiple_of_cross_entropy():
    for form, share in (("softmax", 1 / CLASSES), ("odds", 1 / 2)):
        value = float(im.SoftTruncatedCrossentropy(0.0, form)(LABELS, LOGITS))
        assert value == pytest.approx(share * float(im.WeightedCrossentropy()(LABELS, LOGITS)))


def test_soft_truncation_is_focal_loss_at_k_and_gamma_one():
    soft, focal = im.SoftTruncatedCrossentropy(1.0), im.FocalCrossentropy(1.0)
    assert alike(soft, focal, BINARY, ONE)
    assert alike(soft, focal, [0, 1, 0, 1, 0, 1], LOGITS[:, :2])
    assert alike(im.SoftTruncatedCrossentropy(1.0, multiclass="odds"), focal)
    assert not alike(soft, focal)                   # beyond two classes softmax(−x) is not 1 − p


def test_steep_soft_truncation_is_hard_truncation():
    assert alike(im.SoftTruncatedCrossentropy(1e4), im.HardTruncatedCrossentropy(), BINARY, ONE)


def test_binary_is_two_classes():
    two = np.concatenate([np.zeros_like(ONE), ONE], -1)
    for make in (lambda: im.WeightedCrossentropy([0.5, 3], label_smoothing=0.1),
                 lambda: im.LogitAdjustedCrossentropy([0.9, 0.1], 0.7),
                 lambda: im.MarginCrossentropy([0.1, 0.9], others=True, scale=2.0),
                 lambda: im.MarginCrossentropy([0.1, 0.9]),
                 lambda: im.FocalCrossentropy(2.0, alpha=[0.75, 0.25]),
                 lambda: im.SmoothAccuracyLoss(), lambda: im.HardTruncatedCrossentropy()):
        assert float(make()(BINARY, ONE)) == pytest.approx(
            float(make()(BINARY[:, 0].astype(int), two)), rel=1e-10)


def test_smooth_accuracy_has_cross_entropy_s_gradient_times_p():
    p = sigmoid(ONE)
    pt = np.where(BINARY == 1, p, 1 - p)
    _, accuracy = value_and_gradient(im.SmoothAccuracyLoss(), BINARY, ONE)
    _, entropy = value_and_gradient(im.WeightedCrossentropy(), BINARY, ONE)
    np.testing.assert_allclose(accuracy, pt * entropy.numpy(), rtol=1e-10)


def test_one_positive_multilabel_is_cross_entropy_with_a_threshold_class():
    y = np.eye(CLASSES)[LABELS]
    expected = [np.log1p(np.exp(np.delete(z, t)).sum()) + np.log1p(np.exp(-z[t]))
                for z, t in zip(LOGITS, LABELS)]
    assert float(im.MultilabelCrossentropy()(y, LOGITS)) == pytest.approx(np.mean(expected))


def test_effective_number_runs_from_equal_to_inverse_frequency():
    np.testing.assert_allclose(im.effective_number_weights(COUNTS, 1 - 1e-13),
                               (w := 1 / np.array(COUNTS)) / w.mean(), rtol=1e-6)
    weights = im.inverse_frequency_weights(COUNTS)
    assert (weights * COUNTS).sum() == pytest.approx(sum(COUNTS))
    np.testing.assert_allclose(weights * COUNTS, 75 / 4)


def test_adjusted_loss_is_cross_entropy_with_the_bias_started_at_the_log_prior():
    """7615's "simplest implementation": step by step the same model."""
    x = RNG.normal(size=[60, 5]).astype("float32")
    y = RNG.choice(CLASSES, 60, p=PRIOR)
    for optimizer in (lambda: keras.optimizers.SGD(0.5), lambda: keras.optimizers.Adam(0.05)):
        outputs = []
        for loss, bias in ((im.LogitAdjustedCrossentropy(PRIOR), np.zeros(CLASSES)),
                           (im.WeightedCrossentropy(), np.log(PRIOR))):
            model = keras.Sequential([keras.layers.Dense(CLASSES, "linear", input_shape=(5,),
                                                         kernel_initializer="zeros")])
            model.layers[0].bias.assign(bias)
            model.compile(optimizer(), loss)
            model.fit(x, y, epochs=5, batch_size=20, shuffle=False, verbose=0)
            outputs.append(model.predict(x, verbose=0) - bias)
        np.testing.assert_allclose(*outputs, atol=1e-4)


def test_prediction_rules_agree_between_loss_and_post_hoc():
    f = LOGITS
    z = f + np.log(PRIOR)                            # what plain training would have given
    for rule in ("balanced", "overall"):
        a = im.prediction_scores(f, PRIOR, rule, "adjusted")
        b = im.prediction_scores(z, PRIOR, rule, "plain")
        np.testing.assert_allclose(a, b, atol=1e-12)
    np.testing.assert_allclose(im.adjust_logits(z, PRIOR), f, atol=1e-12)
    np.testing.assert_allclose(im.adjust_logits(tf.constant(z), PRIOR, new_prior=PRIOR), z)
    moved = softmax(im.adjust_logits(z, PRIOR, new_prior=[0.1, 0.2, 0.3, 0.4]))
    bayes = softmax(z) / PRIOR * [0.1, 0.2, 0.3, 0.4]
    np.testing.assert_allclose(moved, bayes / bayes.sum(-1, keepdims=True), rtol=1e-10)
    x = np.array([[0.3], [-2.0]])
    np.testing.assert_allclose(im.adjust_logits(x, [0.9, 0.1]), x + np.log(9))


def test_a_shifted_prior_is_found_from_unlabelled_data():
    """Two unit Gaussians at ±1: p(y|x) is known exactly under any prior."""
    old, new = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    rng = np.random.default_rng(1)
    y = rng.choice(2, 20000, p=new)
    x = rng.normal(2 * y - 1)
    p = sigmoid(2 * x)
    found = im.estimate_prior(np.stack([1 - p, p], -1), old)
    np.testing.assert_allclose(found, new, atol=0.01)

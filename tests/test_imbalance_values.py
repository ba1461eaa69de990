"""Values and gradients of the imbalance losses: textbook formulas in numpy, finite differences."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from bert4keras import backend as bert4keras_backend

from bert_theseus import imbalance as im
from bert_theseus.imbalance.closed_forms import log_not_softmax, target_log_odds
from bert_theseus.imbalance.subsets import log_symmetric_polynomials
from imbalance_losses import (BATCH, BINARY, CLASSES, COUNTS, EVERY, IDS, LABELS, LOGITS, MULTI,
                              ONE, ONE_LOGIT, PRIOR, SETS, sigmoid, softmax, value_and_gradient)


def reference(name):
    """Each loss as the textbook writes it, in numpy, from probabilities."""
    p, y = softmax(LOGITS), np.eye(CLASSES)[LABELS]
    pt, odds = p[np.arange(BATCH), LABELS], np.log(p / (1 - p))[np.arange(BATCH), LABELS]
    f1 = 2 * (y * p).mean(0) / (y + p).mean(0)
    rest = y * (1 - f1 / 2) * -np.log(p) + (1 - y) * f1 / 2 * -np.log(1 - p)
    smooth = 0.9 * y + 0.1 / CLASSES
    n = np.array(COUNTS)
    balanced = (1 - 0.99) / (1 - 0.99 ** n)
    ldam, prior_m = 0.5 * (n / 2) ** -0.25, -np.log(PRIOR)
    q = (1 - p) * p
    q_half = (1 - p) ** 0.5 * p
    after = lambda z: -np.log(softmax(z)[np.arange(BATCH), LABELS])     # noqa: E731
    return {
        "plain": -np.log(pt),
        "smoothed": -(smooth * np.log(p)).sum(-1),
        "weighted": np.array([0.2, 0.5, 2, 3])[LABELS] * -np.log(pt),
        "balanced": (balanced / balanced.mean())[LABELS] * -np.log(pt),
        "accuracy": 1 - pt,
        "F1": 1 - f1.mean(),
        "F1 micro": 1 - 2 * (y * p).sum() / (y + p).sum(),
        "F1 weighted": rest.mean(-1),
        "F1 weighted, factor": (rest * 2 / (y + p).mean(0)).mean(-1),
        "hard": np.where(pt > 0.5, 0, -np.log(pt)),
        "soft": softmax(-2 * LOGITS)[np.arange(BATCH), LABELS] * -np.log(pt),
        "soft odds": sigmoid(-2 * odds) * -np.log(pt),
        "focal": np.array([0.1, 0.2, 0.3, 0.4])[LABELS] * (1 - pt) ** 1.5 * -np.log(pt),
        "margin": after(3 * (LOGITS - y * ldam)),
        "ball": after(LOGITS - y * prior_m + (1 - y) * prior_m),
        "adjusted": after(LOGITS + 1.3 * np.log(PRIOR)),
        "dice": (1 - (2 * p * y + 1) / (p + y + 1)).mean(-1),
        "dice, self-adjusting": (1 - (2 * q * y + 1) / (q + y + 1)).mean(-1),
        "dice, batch": 1 - np.mean((2 * (q_half * y).mean(0) + 1) / ((q_half + y).mean(0) + 1)),
    }[name]


@pytest.mark.parametrize("name", MULTI)
def test_value_is_the_textbook_formula_for_integer_and_one_hot_labels(name):
    for labels in (LABELS, LABELS[:, None], np.eye(CLASSES)[LABELS]):
        assert float(MULTI[name]()(labels, LOGITS)) == pytest.approx(
            float(np.mean(reference(name))), rel=1e-9)


def test_binary_values_are_the_textbook_formulas():
    x, y = ONE[:, 0], BINARY[:, 0]
    p = sigmoid(x)
    pt = np.where(y == 1, p, 1 - p)
    f1 = 2 * (y * p).mean() / (y + p).mean()
    q = (1 - p) * p
    expected = {
        "plain": -(0.9 * y + 0.05) * np.log(p) - (0.95 - 0.9 * y) * np.log(1 - p),
        "weighted": np.where(y == 1, 3, 0.5) * -np.log(pt),
        "accuracy": 1 - (y * p + (1 - y) * (1 - p)),
        "F1": 1 - f1,
        "F1 weighted": -y * (1 - f1 / 2) * np.log(p) - (1 - y) * f1 / 2 * np.log(1 - p),
        "hard": np.where(pt > 0.7, 0, -np.log(pt)),
        "soft": np.where(y == 1, sigmoid(-2 * x), sigmoid(2 * x)) * -np.log(pt),
        "focal": np.where(y == 1, 0.25, 0.75) * (1 - pt) ** 2 * -np.log(pt),
        "margin": -np.log(sigmoid(np.where(y == 1, x, -x) - 1.0)),
        "adjusted": -np.log(sigmoid(np.where(y == 1, 1, -1) * (x + np.log(0.1 / 0.9)))),
        "dice": 1 - (2 * q * y + 1) / (q + y + 1),
    }
    for name, make in ONE_LOGIT.items():
        for labels in (BINARY, BINARY[:, 0]):
            assert float(make()(labels, ONE)) == pytest.approx(
                float(np.mean(expected[name])), rel=1e-9), name


def test_multilabel_is_the_article_s_function_and_sparse_is_dense():
    expected = np.mean([np.log1p(np.exp(z[y == 0]).sum()) + np.log1p(np.exp(-z[y == 1]).sum())
                        for z, y in zip(LOGITS, SETS)])
    assert float(im.MultilabelCrossentropy()(SETS, LOGITS)) == pytest.approx(expected, rel=1e-12)
    theirs = bert4keras_backend.multilabel_categorical_crossentropy(
        SETS.astype("float32"), LOGITS.astype("float32"))
    assert float(np.mean(theirs)) == pytest.approx(expected, rel=1e-5)
    indices = np.array([[0, 1, 0], [1, 2, -1], [3, 0, -1], [2, 3, 3], [-1, 0, 1], [3, 1, -1]])
    assert float(im.SparseMultilabelCrossentropy()(indices, LOGITS)) == pytest.approx(
        expected, rel=1e-12)


def test_a_class_that_serves_as_padding_is_left_out():
    padded, rest = [[0, 2, 3], [1, 0, 0]], [[0, 1, 1], [1, 0, 0]]
    assert float(im.SparseMultilabelCrossentropy(padding=0)(padded, LOGITS[:2])) == pytest.approx(
        float(im.MultilabelCrossentropy()(rest, LOGITS[:2, 1:])), rel=1e-12)


def test_subsets_are_those_one_can_list():
    for k, at_most in ((1, False), (2, False), (3, True), (4, True)):
        sets = [s for j in range(0 if at_most else k, k + 1)
                for s in itertools.combinations(range(CLASSES), j)]
        chosen = [sets[i % len(sets)] for i in range(BATCH)]
        y = np.array([[c in s for c in range(CLASSES)] for s in chosen], float)
        expected = [np.log(sum(np.exp(z[list(s)].sum()) for s in sets)) - z[list(c)].sum()
                    for z, c in zip(LOGITS, chosen)]
        assert float(im.SubsetCrossentropy(k, at_most)(y, LOGITS)) == pytest.approx(
            np.mean(expected), rel=1e-10)


def test_newton_s_identities_cancel_where_the_product_does_not():
    scores = np.linspace(-8, 8, 40)
    exact = np.poly(-np.exp(scores.astype("longdouble")))[:21].astype("float64")
    ours = np.exp(log_symmetric_polynomials(tf.constant(scores), 20))
    np.testing.assert_allclose(ours, exact, rtol=1e-9)
    power = [np.exp(j * scores).sum() for j in range(21)]
    newton = [1.0]
    for m in range(1, 21):
        newton.append(sum((-1) ** (j - 1) * newton[m - j] * power[j] for j in range(1, m + 1)) / m)
    assert abs(newton[20] / exact[20] - 1) > 1


@pytest.mark.parametrize("name, make, y, z", EVERY, ids=IDS)
def test_gradient_is_the_finite_difference(name, make, y, z):
    loss = make()
    if isinstance(loss, im.F1WeightedCrossentropy):      # F1 is a constant of its gradient
        loss = type(loss).from_config({**loss.get_config(), "estimate": "full"})
        loss.statistic.set(np.linspace(0.1, 0.2, z.shape[-1]), np.linspace(0.5, 0.7, z.shape[-1]))
    _, gradient = value_and_gradient(loss, y, z)
    for direction in np.random.default_rng(1).normal(size=[4, *z.shape]):
        low, high = (float(loss(y, z + step * direction)) for step in (-1e-5, 1e-5))
        assert (high - low) / 2e-5 == pytest.approx(np.sum(gradient * direction), abs=1e-6,
                                                    rel=1e-6)


def test_closed_forms_keep_what_rounding_loses():
    z = np.array([[40.0, 0.0, -3.0], [0.1, 0.2, 0.3], [-700.0, 5.0, 5.0]])
    exact = np.stack([np.logaddexp.reduce(np.delete(z, i, 1), -1) for i in range(3)], -1) - (
        np.logaddexp.reduce(z, -1)[:, None])
    ours = log_not_softmax(tf.constant(z)).numpy()
    np.testing.assert_allclose(ours, exact, rtol=1e-12, atol=1e-15)
    assert ours[0, 1] == pytest.approx(-math.exp(-40) / (1 + math.exp(-40)), rel=1e-12)
    assert exact[0, 1] == 0                                        # what rounding made of it
    y = tf.constant(np.eye(3)[[0, 1, 2]])
    x = target_log_odds(y, tf.constant(z)).numpy()
    assert x[0] == pytest.approx(40 - math.log1p(math.exp(-3)), rel=1e-14)

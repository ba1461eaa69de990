"""Numerics of the imbalance losses: extreme logits, sparse = dense, eager = graph = XLA."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings, strategies as st

from bert_theseus import imbalance as im
from bert_theseus.imbalance.labels import as_logits
from imbalance_losses import (BINARY, EVERY, IDS, LABELS, LOGITS, MULTI, ONE, ONE_LOGIT, SETS,
                              SEVERAL, value_and_gradient)


@pytest.mark.parametrize("name, make, y, z", EVERY, ids=IDS)
def test_finite_at_extreme_logits(name, make, y, z):
    rng = np.random.default_rng(2)
    signs = rng.choice([-1.0, 1.0], [20, *z.shape])
    cases = [(tf.float32, 1e4), (tf.float16, 65504.0), (tf.bfloat16, 3.38e38), (tf.float32, 0.0)]
    for (dtype, size), sign in itertools.product(cases, signs[:3]):
        value, gradient = value_and_gradient(make(), y, tf.cast(sign * size, dtype))
        assert gradient.dtype == dtype
        assert np.isfinite(float(value)) and np.all(np.isfinite(tf.cast(gradient, tf.float32)))


def test_the_extreme_test_can_fail():
    naive = -tf.math.log(tf.nn.sigmoid(tf.constant([-1e4])))
    assert not np.isfinite(naive.numpy()).all()


def test_extreme_values_are_right_and_their_gradient_is_not_cut():
    for dtype, rel in ((tf.float32, 1e-6), (tf.float16, 2e-3), (tf.bfloat16, 1e-2)):
        z = tf.cast([[1e4, -1e4, 5e3]], dtype)
        value, gradient = value_and_gradient(im.MultilabelCrossentropy(), [[0, 1, 0]], z)
        assert float(value) == pytest.approx(2e4, rel=rel)
        np.testing.assert_allclose(tf.cast(gradient, tf.float32), [[1, -1, 0]], atol=1e-6)
        value, gradient = value_and_gradient(
            im.SparseMultilabelCrossentropy(), [[1, -1]], z)
        assert float(value) == pytest.approx(2e4, rel=rel)
        np.testing.assert_allclose(tf.cast(gradient, tf.float32), [[1, -1, 0]], atol=1e-6)
        _, gradient = value_and_gradient(im.FocalCrossentropy(), [1], z)
        np.testing.assert_allclose(tf.cast(gradient, tf.float32), [[1, -1, 0]], atol=1e-6)


@given(st.lists(st.tuples(st.floats(-1e4, 1e4, width=32), st.booleans()), min_size=1, max_size=9))
@settings(max_examples=40, deadline=None)
def test_sparse_is_dense_at_any_logits(rows):
    z = np.array([[s for s, _ in rows] + [0.0]], "float32")
    y = np.array([[t for _, t in rows] + [False]], "float32")
    indices = np.flatnonzero(y[0])[::-1][None] if y.any() else np.array([[-1]])
    (dense, g1), (sparse, g2) = (
        value_and_gradient(loss, labels, z) for loss, labels in
        ((im.MultilabelCrossentropy(), y), (im.SparseMultilabelCrossentropy(), indices)))
    np.testing.assert_allclose(sparse, dense, rtol=1e-6)
    np.testing.assert_allclose(g2, g1, atol=1e-6)
    exact = np.logaddexp.reduce(np.append(z[y == 0].astype("float64"), 0)) + np.logaddexp.reduce(
        np.append(-z[y == 1].astype("float64"), 0))
    assert float(dense) == pytest.approx(exact, rel=1e-5, abs=1e-5)


def test_classes_switched_off_by_minus_infinity_do_not_hurt():
    z = tf.constant([[0.0, 1.0, -np.inf]])
    for name in ("plain", "weighted", "adjusted", "focal", "accuracy", "hard"):
        loss = MULTI[name]()
        if name in ("weighted", "adjusted", "focal"):
            loss = {"weighted": im.WeightedCrossentropy([1, 2, 3]), "focal": im.FocalCrossentropy(),
                    "adjusted": im.LogitAdjustedCrossentropy([0.5, 0.3, 0.2])}[name]
        value, gradient = value_and_gradient(loss, [0], z)
        assert np.isfinite(float(value)) and np.isfinite(gradient).all() and gradient[0, 2] == 0


@pytest.mark.parametrize("kind", ["classes", "one logit", "several"])
def test_eager_graph_and_xla_agree(kind):
    """All losses of a kind in one trace, value and gradient."""
    chosen = {"classes": (MULTI, LABELS, LOGITS), "one logit": (ONE_LOGIT, BINARY, ONE),
              "several": ({**SEVERAL, "sparse": im.SparseMultilabelCrossentropy}, SETS, LOGITS)}
    makers, y, z = chosen[kind]
    z = z.astype("float32")
    losses = {name: make() for name, make in makers.items()}
    labels = {name: np.argsort(-SETS)[:, :2] if name == "sparse" else y for name in losses}

    def run(z):
        return {name: value_and_gradient(loss, labels[name], z) for name, loss in losses.items()}

    eager = run(tf.constant(z))
    graph = tf.function(run).get_concrete_function(tf.TensorSpec(z.shape, z.dtype))
    for jit, compiled in ((False, graph), (True, tf.function(graph, jit_compile=True))):
        found = compiled(tf.constant(z))
        for name in losses:
            for a, b in zip(found[name], eager[name]):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=f"{name}, jit={jit}")


def test_bfloat16_beyond_float32_sums_keeps_its_gradient():
    z = tf.constant([[3.38e38, -3.38e38]], tf.bfloat16)
    _, gradient = value_and_gradient(im.MultilabelCrossentropy(), [[0, 1]], z)
    np.testing.assert_allclose(tf.cast(gradient, tf.float32), [[1, -1]])
    value = im.FocalCrossentropy(0.0)([1], tf.constant([[1e27, 2.0]], tf.bfloat16))
    assert float(value) == pytest.approx(1e25)                     # what counts from 1e25 on
    assert np.isfinite(as_logits(tf.constant([[np.inf, 0.0]], tf.bfloat16))).all()

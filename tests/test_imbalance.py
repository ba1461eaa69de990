"""The losses for class imbalance: reference values, laws, gradients, extremes."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from bert4keras import backend as bert4keras_backend
from hypothesis import given, settings, strategies as st

from bert_theseus import imbalance as im
from bert_theseus.backend import keras
from bert_theseus.imbalance.closed_forms import log_not_softmax, target_log_odds
from bert_theseus.imbalance.labels import as_logits
from bert_theseus.imbalance.subsets import log_symmetric_polynomials

COUNTS = [50, 20, 3, 2]
PRIOR = np.array(COUNTS) / 75
CLASSES, BATCH = 4, 6
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, [BATCH, CLASSES])
LABELS = np.array([0, 1, 2, 3, 0, 1])
BINARY = np.array([[1.], [0.], [0.], [1.], [0.], [0.]])
ONE = LOGITS[:, :1]

# every loss for several classes, and for one binary logit
MULTI = {
    "plain": lambda: im.WeightedCrossentropy(),
    "smoothed": lambda: im.WeightedCrossentropy(label_smoothing=0.1),
    "weighted": lambda: im.WeightedCrossentropy([0.2, 0.5, 2, 3]),
    "balanced": lambda: im.ClassBalancedCrossentropy(COUNTS, 0.99),
    "accuracy": lambda: im.SmoothAccuracyLoss(),
    "F1": lambda: im.SmoothF1Loss(),
    "F1 micro": lambda: im.SmoothF1Loss(average="micro"),
    "F1 weighted": lambda: im.F1WeightedCrossentropy(),
    "F1 weighted, factor": lambda: im.F1WeightedCrossentropy(leading_factor=True),
    "hard": lambda: im.HardTruncatedCrossentropy(),
    "soft": lambda: im.SoftTruncatedCrossentropy(2.0),
    "soft odds": lambda: im.SoftTruncatedCrossentropy(2.0, multiclass="odds"),
    "focal": lambda: im.FocalCrossentropy(1.5, alpha=[0.1, 0.2, 0.3, 0.4]),
    "margin": lambda: im.MarginCrossentropy(im.ldam_margins(COUNTS), scale=3.0),
    "ball": lambda: im.MarginCrossentropy(im.prior_margins(PRIOR), others=True),
    "adjusted": lambda: im.LogitAdjustedCrossentropy(PRIOR, 1.3),
    "dice": lambda: im.DiceLoss(),
    "dice, self-adjusting": lambda: im.DiceLoss(alpha=1.0),
    "dice, batch": lambda: im.DiceLoss(alpha=0.5, over="batch"),
}
ONE_LOGIT = {
    "plain": lambda: im.WeightedCrossentropy(label_smoothing=0.1),
    "weighted": lambda: im.WeightedCrossentropy([0.5, 3]),
    "accuracy": lambda: im.SmoothAccuracyLoss(),
    "F1": lambda: im.SmoothF1Loss(),
    "F1 weighted": lambda: im.F1WeightedCrossentropy(),
    "hard": lambda: im.HardTruncatedCrossentropy(0.7),
    "soft": lambda: im.SoftTruncatedCrossentropy(2.0),
    "focal": lambda: im.FocalCrossentropy(2.0, alpha=0.25),
    "margin": lambda: im.MarginCrossentropy([0.1, 0.9], others=True),
    "adjusted": lambda: im.LogitAdjustedCrossentropy([0.9, 0.1]),
    "dice": lambda: im.DiceLoss(alpha=1.0),
}
SEVERAL = {
    "multilabel": lambda: im.MultilabelCrossentropy(),
    "subsets": lambda: im.SubsetCrossentropy(2),
    "at most": lambda: im.SubsetCrossentropy(3, at_most=True),
}
SETS = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0],
                 [0, 1, 0, 1]])
EVERY = ([(f"{n} [classes]", f, LABELS, LOGITS) for n, f in MULTI.items()]
         + [(f"{n} [1]", f, BINARY, ONE) for n, f in ONE_LOGIT.items()]
         + [(n, f, SETS, LOGITS) for n, f in SEVERAL.items()]
         + [("sparse", im.SparseMultilabelCrossentropy, np.argsort(-SETS)[:, :2], LOGITS)])
IDS = [name for name, *_ in EVERY]


def value_and_gradient(loss, y, z):
    z = tf.convert_to_tensor(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = loss(y, z)
    return value, tape.gradient(value, z)


# ---------------------------------------------------------------- values, from probabilities

def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


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


# ---------------------------------------------------------------- gradients

@pytest.mark.parametrize("name, make, y, z", EVERY, ids=IDS)
def test_gradient_is_the_finite_difference(name, make, y, z):
    loss = make()
    if isinstance(loss, im.F1WeightedCrossentropy):      # F1 is a constant of its gradient
        loss = type(loss).from_config({**loss.get_config(), "estimate": "full"})
        loss.statistic.set(np.linspace(0.1, 0.2, z.shape[-1]), np.linspace(0.5, 0.7, z.shape[-1]))
    _, gradient = value_and_gradient(loss, y, z)
    step = 1e-5
    moved = np.stack([z + s * step * e.reshape(z.shape) for e in np.eye(z.size) for s in (1, -1)])
    values = [float(loss(y, m)) for m in moved]
    difference = (np.array(values[::2]) - np.array(values[1::2])) / (2 * step)
    np.testing.assert_allclose(np.ravel(gradient), difference, atol=1e-6, rtol=1e-6)


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


# ---------------------------------------------------------------- laws

def same(a, b, y=LABELS, z=LOGITS, rel=1e-9):
    (v1, g1), (v2, g2) = value_and_gradient(a, y, z), value_and_gradient(b, y, z)
    np.testing.assert_allclose(v1, v2, rtol=rel)
    np.testing.assert_allclose(g1, g2, rtol=rel, atol=1e-12)


def test_collapse_to_cross_entropy():
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for loss in (im.WeightedCrossentropy(), im.WeightedCrossentropy([1] * 4),
                 im.ClassBalancedCrossentropy(COUNTS, 0.0), im.FocalCrossentropy(0.0),
                 im.MarginCrossentropy(0.0), im.LogitAdjustedCrossentropy(PRIOR, tau=0.0),
                 im.LogitAdjustedCrossentropy([0.25] * 4), im.HardTruncatedCrossentropy(1 - 1e-16)):
        same(loss, plain)
    same(im.SubsetCrossentropy(1), plain_one_hot := keras.losses.CategoricalCrossentropy(
        from_logits=True), np.eye(CLASSES)[LABELS])
    binary = keras.losses.BinaryCrossentropy(from_logits=True)
    for loss in (im.WeightedCrossentropy(), im.LogitAdjustedCrossentropy([0.5, 0.5]),
                 im.FocalCrossentropy(0.0), im.MarginCrossentropy([0.0, 0.0], others=True)):
        same(loss, binary, BINARY, ONE)
    smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    same(im.WeightedCrossentropy(label_smoothing=0.2), smoothed, np.eye(CLASSES)[LABELS])
    with pytest.raises(AssertionError):
        same(im.FocalCrossentropy(0.01), plain)
    assert plain_one_hot is not None


def test_soft_truncation_at_k_to_zero_is_a_multiple_of_cross_entropy():
    for form, share in (("softmax", 1 / CLASSES), ("odds", 1 / 2)):
        value = float(im.SoftTruncatedCrossentropy(0.0, form)(LABELS, LOGITS))
        assert value == pytest.approx(share * float(im.WeightedCrossentropy()(LABELS, LOGITS)))


def test_soft_truncation_is_focal_loss_at_k_and_gamma_one():
    soft, focal = im.SoftTruncatedCrossentropy(1.0), im.FocalCrossentropy(1.0)
    same(soft, focal, BINARY, ONE)
    same(soft, focal, [0, 1, 0, 1, 0, 1], LOGITS[:, :2])
    same(im.SoftTruncatedCrossentropy(1.0, multiclass="odds"), focal)
    with pytest.raises(AssertionError):             # beyond two classes softmax(−x) is not 1 − p
        same(soft, focal)


def test_steep_soft_truncation_is_hard_truncation():
    same(im.SoftTruncatedCrossentropy(1e4), im.HardTruncatedCrossentropy(), BINARY, ONE)


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


def test_f1_dice_and_accuracy_are_siblings():
    for y, z in ((BINARY, ONE), (LABELS, LOGITS)):
        same(im.DiceLoss(over="batch", smooth=0.0), im.SmoothF1Loss(), y, z)
    same(im.SmoothF1Loss(average="micro"), im.SmoothAccuracyLoss())


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


# ---------------------------------------------------------------- numerics

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
@settings(max_examples=60, deadline=None)
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
    for jit in (False, True):
        compiled = tf.function(run, jit_compile=jit)(tf.constant(z))
        for name in losses:
            for a, b in zip(compiled[name], eager[name]):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=f"{name}, jit={jit}")


def test_bfloat16_beyond_float32_sums_keeps_its_gradient():
    z = tf.constant([[3.38e38, -3.38e38]], tf.bfloat16)
    _, gradient = value_and_gradient(im.MultilabelCrossentropy(), [[0, 1]], z)
    np.testing.assert_allclose(tf.cast(gradient, tf.float32), [[1, -1]])
    value = im.FocalCrossentropy(0.0)([1], tf.constant([[1e27, 2.0]], tf.bfloat16))
    assert float(value) == pytest.approx(1e25)                     # what counts from 1e25 on
    assert np.isfinite(as_logits(tf.constant([[np.inf, 0.0]], tf.bfloat16))).all()

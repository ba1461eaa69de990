"""Every loss for class imbalance with labels and logits to try it on; shared by its tests."""

import numpy as np
import tensorflow as tf

from bert_theseus import imbalance as im

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


def alike(a, b, y=LABELS, z=LOGITS, rel=1e-9) -> bool:
    """Whether two losses have the same value and the same gradient."""
    (v1, g1), (v2, g2) = value_and_gradient(a, y, z), value_and_gradient(b, y, z)
    return np.allclose(v1, v2, rtol=rel, atol=0) and np.allclose(g1, g2, rtol=rel, atol=1e-12)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))

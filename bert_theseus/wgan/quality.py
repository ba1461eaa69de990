"""How good samples are, beyond a distance: neighbours, modes, a classifier's opinion."""

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist


def nearest_neighbour_accuracy(real, fake) -> float:
    """Accuracy of the leave-one-out nearest neighbour in telling real from generated.

    real: [n, features…]; fake: [n, features…]. 0.5: cannot be told apart; 1: always; below 0.5
    the generated samples sit on top of the real ones (memorised, or on centres between them).

    >>> x = np.random.RandomState(0).randn(200, 2)
    >>> nearest_neighbour_accuracy(x[:100], x[100:] + 50)
    1.0
    """
    real, fake = (np.asarray(x, "float64").reshape(len(x), -1) for x in (real, fake))
    both = np.concatenate([real, fake])
    distances = cdist(both, both)
    np.fill_diagonal(distances, np.inf)
    is_real = np.arange(len(both)) < len(real)
    return float(np.mean(is_real[distances.argmin(1)] == is_real))


def mode_coverage(samples, centers, radius: float) -> dict:
    """Modes that are hit, and samples that hit one.

    samples: [n, features]; centers: [modes, features]. A mode is covered when at least a quarter
    of its fair share of the samples lies within ``radius`` of its centre.
    Returns {"mode coverage", "on a mode"}, both fractions.

    >>> mode_coverage([[0., 0.], [0., 1.]], [[0., 0.], [9., 9.]], 0.5)
    {'mode coverage': 0.5, 'on a mode': 0.5}
    """
    distances = cdist(np.asarray(samples, "float64"), centers)
    near = distances.min(1) <= radius
    counts = np.bincount(distances.argmin(1)[near], minlength=len(centers))
    covered = counts >= 0.25 * len(distances) / len(centers)
    return {"mode coverage": float(covered.mean()), "on a mode": float(near.mean())}


def classifier_opinion(images, labels) -> Callable[[np.ndarray], dict]:
    """Trains a logistic regression once; returns samples → {"confidence", "diversity"}.

    images: [n, features…]; labels: [n]. Confidence: mean probability of the likeliest class.
    Diversity: exp(entropy of the mean prediction) / classes, 1 when all classes come equally often.

    >>> x, y = np.eye(4).repeat(9, 0), np.arange(4).repeat(9)
    >>> opinion = classifier_opinion(x, y)(x[:9])
    >>> opinion["diversity"] < 0.5 < opinion["confidence"]
    True
    """
    from sklearn.linear_model import LogisticRegression
    images = np.asarray(images, "float64").reshape(len(images), -1)
    classifier = LogisticRegression(C=10., max_iter=2000).fit(images, labels)

    def opinion(samples) -> dict:
        chances = classifier.predict_proba(np.asarray(samples, "float64").reshape(len(samples), -1))
        mean = np.maximum(chances.mean(0), 1e-12)
        return {"confidence": float(chances.max(1).mean()),
                "diversity": float(np.exp(-np.sum(mean * np.log(mean))) / len(mean))}
    return opinion

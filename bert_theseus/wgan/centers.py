"""Centres of data, and the batch effect: statements 4 and 5 of kexue.fm/archives/8244.

    W(batch, other batch)   against   W(batch, copies of the mean),  W(batch, cluster centres)

Two random batches of high-dimensional data lie farther from each other than each lies from the
mean: an optimal generator in W between batches makes means, not data. Centres are k-means (least
squared distances) and geometric k-medians (least distances, the cost that W_1 has; the paper's).
"""

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist

from bert_theseus.errors import InputError
from bert_theseus.wgan.checks import check_batch_size
from bert_theseus.wgan.truth import exact_wasserstein


def geometric_median(points, iterations: int = 100) -> np.ndarray:
    """The point with the least sum of distances, by Weiszfeld: [n, features] → [features].

    >>> geometric_median([[0., 0.], [1., 0.], [5., 0.]]).round(3).tolist()
    [1.0, 0.0]
    """
    points = np.asarray(points, "float64")
    center = points.mean(0)
    for _ in range(iterations):
        weights = 1 / np.maximum(np.linalg.norm(points - center, axis=1), 1e-9)
        center = weights @ points / weights.sum()
    return center


def k_means(points, k: int, seed: int = 0) -> np.ndarray:
    """k-means centres (k-means++ start, Lloyd): [n, features] → [k, features]."""
    from sklearn.cluster import KMeans
    points = _enough(points, k)
    return KMeans(k, n_init=1, random_state=seed).fit(points).cluster_centers_


def k_medians(points, k: int, seed: int = 0, rounds: int = 15) -> np.ndarray:
    """Geometric k-median centres, started at k-means: [n, features] → [k, features].

    Every round gives each point to its nearest centre and moves each centre to the geometric
    median of its points; the mean distance to the nearest centre never grows.

    >>> x = np.random.RandomState(0).randn(60, 2)
    >>> mean = lambda centers: cdist(x, centers).min(1).mean()
    >>> bool(mean(k_medians(x, 5)) < mean(k_means(x, 5)))
    True
    """
    points, centers = _enough(points, k), k_means(points, k, seed)
    for _ in range(rounds):
        nearest = cdist(points, centers).argmin(1)
        centers = np.stack([geometric_median(points[nearest == i], 20) if np.any(nearest == i)
                            else centers[i] for i in range(k)])
    return centers


def batch_effect(data, batch_sizes: Sequence[int], seeds: Sequence[int], k: int = 10) -> list[dict]:
    """Distances of a real batch to another one, to the mean and to cluster centres.

    data: [n, features…]; two disjoint batches are drawn for each seed. Centres are those of all
    the data, weighted by how many points they serve. Returns one dict per batch size with
    "batch", "mean", "k-means", "k-median": a list over the seeds each, exact W_1.

    Raises InputError when twice the batch size exceeds the data, and for a batch of one.
    """
    data = np.asarray(data, "float64").reshape(len(data), -1)
    targets = {"mean": (data.mean(0)[None], None)}
    for name, centers in (("k-means", k_means(data, k)), ("k-median", k_medians(data, k))):
        targets[name] = centers, np.bincount(cdist(data, centers).argmin(1), minlength=k)
    return [_one_size(data, size, seeds, targets) for size in batch_sizes]


def _one_size(data, size: int, seeds, targets) -> dict:
    check_batch_size(size)
    if 2 * size > len(data):
        raise InputError(f"two batches of {size} from {len(data)} samples", "batch_effect",
                         "use smaller batches")
    record = {"batch_size": size, "features": data.shape[1], "batch": [],
              **{name: [] for name in targets}}
    for seed in seeds:
        order = np.random.RandomState(seed).permutation(len(data))
        batch, other = data[order[:size]], data[order[size:2 * size]]
        record["batch"].append(exact_wasserstein(batch, other))
        for name, (centers, weights) in targets.items():
            record[name].append(exact_wasserstein(batch, centers, y_weights=weights))
    return record


def distance_to_centers(samples, centers) -> float:
    """Mean distance of samples to their nearest centre: [n, features…], [k, features…] → number.

    >>> distance_to_centers([[0., 0.], [3., 4.]], [[0., 0.]])
    2.5
    """
    samples, centers = (np.asarray(x, "float64").reshape(len(x), -1) for x in (samples, centers))
    return float(cdist(samples, centers).min(1).mean())


def shift_beats_class(images, labels) -> float:
    """How often a one-pixel shift is farther, in pixels, than another class.

    images: [n, height, width]; labels: [n]. The fraction of images whose copy, shifted by one
    pixel to the right, lies farther from them than the nearest image of another label: what
    Euclidean distance on pixels calls near is not what looks alike.

    >>> images = np.zeros([2, 3, 3]); images[0, 0, 0] = images[1, 2, 0] = 1.
    >>> shift_beats_class(images, np.array([0, 1]))
    0.0
    """
    images, labels = np.asarray(images, "float64"), np.asarray(labels)
    shifted = np.concatenate([np.zeros_like(images[:, :, :1]), images[:, :, :-1]], 2)
    moved = np.linalg.norm((images - shifted).reshape(len(images), -1), axis=1)
    flat = images.reshape(len(images), -1)
    distances = np.where(labels[:, None] == labels, np.inf, cdist(flat, flat))
    return float(np.mean(moved > distances.min(1)))


def _enough(points, k: int) -> np.ndarray:
    points = np.asarray(points, "float64").reshape(len(points), -1)
    if not 1 <= k <= len(points):
        raise InputError(f"{k} centres for {len(points)} points", "k", "use 1 … number of points")
    return points

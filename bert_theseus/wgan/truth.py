"""The true Wasserstein distance: between two sets of samples, between Gaussians, on a line.

    W_p(x, y)^p = min_γ Σ_ij γ_ij |x_i − y_j|^p,  γ ≥ 0 with the two weight vectors as margins

kexue.fm/archives/8244 speaks of p = 1. Sets of samples: exactly, by network simplex (POT), in
float64. One feature: by sorting (scipy). Gaussians: W_2 in closed form; when the covariances are
equal it is |mean_a − mean_b|, and that is W_1 as well (the shift moves every point by the same
vector, and no plan can beat the distance of the means).
"""

import numpy as np
import scipy.linalg
import scipy.spatial.distance
import scipy.stats

from bert_theseus.errors import InputError


def exact_wasserstein(x, y, p: float = 1, x_weights=None, y_weights=None) -> float:
    """W_p between two weighted sets of points, by network simplex.

    x: [n, features…]; y: [m, features…] (further axes are flattened: images are taken as
    vectors, [n] as n points on a line); p ≥ 1; weights: [n], [m], normalised to sum 1, uniform by
    default. Cost: memory n·m, time about n·m·log; 1000 points against 1000 take ~0.1 s.

    Raises InputError for shapes that do not match, empty sets, NaN, p < 1, negative weights.

    >>> exact_wasserstein([[0., 0.], [1., 0.]], [[3., 4.], [4., 4.]])
    5.0
    """
    x, y = _points(x, "x"), _points(y, "y")
    if x.shape[1] != y.shape[1]:
        raise InputError(f"x has {x.shape[1]} features, y has {y.shape[1]}", "exact_wasserstein",
                         "give both sets the same features")
    if not p >= 1:
        raise InputError(f"p = {p}", "exact_wasserstein", "use p ≥ 1")
    weights = _weights(x_weights, len(x), "x_weights"), _weights(y_weights, len(y), "y_weights")
    if x.shape[1] == 1 and p == 1:
        return float(scipy.stats.wasserstein_distance(x[:, 0], y[:, 0], *weights))
    return _transport(x, y, p, *weights)


def gaussian_wasserstein(mean_a, cov_a, mean_b, cov_b) -> float:
    """W_2 between two Gaussians: W_2² = |a − b|² + tr(A + B − 2 (A^½ B A^½)^½).

    means: [features]; covariances: [features, features], symmetric, positive semi-definite.
    With equal covariances it is |a − b|, which is W_1 too.

    Raises InputError for shapes that do not match and for matrices that are no covariances.

    >>> gaussian_wasserstein([0., 0.], np.eye(2), [3., 4.], np.eye(2))
    5.0
    >>> round(gaussian_wasserstein([0.], [[1.]], [0.], [[9.]]), 6)      # |σ_a − σ_b|
    2.0
    """
    mean_a, mean_b = (np.asarray(mean, "float64") for mean in (mean_a, mean_b))
    cov_a, cov_b = _covariance(cov_a, mean_a, "cov_a"), _covariance(cov_b, mean_b, "cov_b")
    if mean_a.shape != mean_b.shape:
        raise InputError(f"means of shape {mean_a.shape} and {mean_b.shape}",
                         "gaussian_wasserstein", "give both the same features")
    root = _root(cov_a)
    squares = (np.sum((mean_a - mean_b) ** 2)
               + np.trace(cov_a + cov_b - 2 * _root(root @ cov_b @ root)))
    return float(np.sqrt(max(squares, 0.)))


def _transport(x, y, p, x_weights, y_weights) -> float:
    import ot.lp  # POT looks for every array library it knows; import it only when it is needed

    cost = ot.lp.emd2  # named here so that a missing network simplex fails before the matrix
    distances = scipy.spatial.distance.cdist(x, y)
    value, log = cost(x_weights, y_weights, distances ** p, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"the network simplex did not finish: {log['warning']}")
    return float(max(value, 0.) ** (1 / p))


def _points(points, name: str) -> np.ndarray:
    points = np.asarray(points, "float64")
    if points.ndim == 0 or points.size == 0:
        raise InputError(f"no points (shape {points.shape})", name, "give an array [n, features]")
    if not np.isfinite(points).all():
        raise InputError("NaN or infinity in the samples", name, "remove or repair them")
    return points.reshape(len(points), -1)


def _weights(weights, count: int, name: str) -> np.ndarray:
    weights = np.ones(count) if weights is None else np.asarray(weights, "float64")
    if weights.shape != (count,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise InputError(f"weights of shape {weights.shape} for {count} points", name,
                         "give one non-negative number a point, not all 0")
    return weights / weights.sum()


def _covariance(cov, mean: np.ndarray, name: str) -> np.ndarray:
    cov = np.asarray(cov, "float64")
    if mean.ndim != 1 or cov.shape != (mean.size, mean.size):
        raise InputError(f"covariance of shape {cov.shape} for a mean of shape {mean.shape}", name,
                         "give [features] and [features, features]")
    scale = max(np.abs(cov).max(), 1e-300)
    if not np.isfinite(cov).all() or np.abs(cov - cov.T).max() > 1e-8 * scale \
            or scipy.linalg.eigvalsh(cov).min() < -1e-8 * scale:
        raise InputError("not a covariance matrix", name,
                         "it must be finite, symmetric and positive semi-definite")
    return (cov + cov.T) / 2


def _root(matrix: np.ndarray) -> np.ndarray:
    """The positive semi-definite square root of a positive semi-definite matrix."""
    values, vectors = scipy.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.sqrt(np.maximum(values, 0.))) @ vectors.T

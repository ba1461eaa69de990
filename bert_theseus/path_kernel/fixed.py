"""How near is "SGD ≈ SVM"? The path kernel as a fixed kernel, with an α that knows no query.

The article: f_T = β(x) + Σ_i α_i(x) K(x, x_i) differs from a support vector machine in that α and
β depend on x, and α only weakly, being a K-weighted mean of a_i. So: how much of the contributions
is left if α_i may not depend on x,

    ᾱ_i = argmin Σ_q |c_i(q) − ᾱ_i K(q, x_i)|²,      explained = 1 − Σ |c − K ᾱ|² / Σ |c|²

and how well do β + Σ ᾱ_i K and a support vector machine on the same K follow the network?
"""

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.path_kernel.result import PathKernel


def fixed_alpha(result: PathKernel, queries=slice(None)) -> np.ndarray:
    """ᾱ [examples, outputs], least squares over some of the queries.

    result: with kernel="mean". Raises :class:`InputError` without it.

    >>> zero, kernel = np.zeros([2, 1]), np.array([[1.0], [2.0]])
    >>> result = PathKernel(zero, zero, 3 * kernel[..., None], kernel, zero)
    >>> fixed_alpha(result).tolist()
    [[3.0]]
    """
    kernel = _mean_kernel(result)[queries]
    total = (kernel**2).sum(0)[:, None]
    product = np.einsum("qn,qnd->nd", kernel, result.contributions[queries])
    return np.divide(product, total, where=total > 0, out=np.zeros_like(product))


def fixed_outputs(result: PathKernel, alpha: np.ndarray, queries=slice(None)) -> np.ndarray:
    """β + Σ_i ᾱ_i K(q, x_i), [queries, outputs]."""
    return result.beta[queries] + _mean_kernel(result)[queries] @ alpha


def explained(result: PathKernel, alpha: np.ndarray, queries=slice(None)) -> float:
    """Share of the contributions that K ᾱ explains (1: α does not depend on x at all)."""
    c = result.contributions[queries]
    rest = c - _mean_kernel(result)[queries][..., None] * alpha
    return float(1 - (rest**2).sum() / (c**2).sum())


def alpha_spread(result: PathKernel) -> float:
    """Median over examples of α's spread over queries beside its size, K-weighted, for the output
    each example pushes most.

    >>> zero, kernel = np.zeros([2, 1]), np.array([[1.0], [1.0]])
    >>> alpha_spread(PathKernel(zero, zero, np.array([[[1.0]], [[3.0]]]), kernel, zero))
    0.5
    """
    weight = np.abs(_mean_kernel(result))[..., None]
    weight = weight / weight.sum(0)
    mean = (weight * result.alpha).sum(0)                              # [examples, outputs]
    spread = np.sqrt((weight * (result.alpha - mean) ** 2).sum(0))
    most = np.abs(mean).argmax(1)[:, None]
    return float(np.median(np.take_along_axis(spread, most, 1)
                           / np.abs(np.take_along_axis(mean, most, 1))))


def support_vector_machine(train_kernel: np.ndarray, labels: np.ndarray,
                           query_kernel: np.ndarray, penalty: float = 1.0):
    """Labels that a support vector machine on a given kernel predicts, and its support vectors.

    train_kernel: [examples, examples]; query_kernel: [queries, examples]. Both are divided by the
    mean of the diagonal, so that ``penalty`` means the same for every kernel.
    Returns (labels [queries], indices of the support vectors).
    """
    from sklearn.svm import SVC
    scale = np.diagonal(train_kernel).mean()
    machine = SVC(kernel="precomputed", C=penalty).fit((train_kernel + train_kernel.T) / 2 / scale,
                                                       labels)
    return machine.predict(query_kernel / scale), machine.support_


def _mean_kernel(result):
    if result.kernel is None or result.kernel.ndim != 2:
        raise InputError("the mean path kernel is not there", "result", "fit with kernel='mean'")
    return result.kernel

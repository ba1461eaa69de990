"""The random directions ω_1 … ω_m of the feature map (kexue.fm 7921).

    ω_i ~ N(0, I_d):  direction uniform on the sphere, norm with density ∝ r^{d−1} e^{−r²/2}

Orthogonal directions keep every ω_i Gaussian by itself but spread them more evenly; beyond d of
them they come in blocks of d. The article's own proposal, which it does not test, spreads the
norms evenly too: P_d(r ≤ R_i) = i / (m + 1). Unlike the first two it is biased, since the largest
norm it can give is a quantile: see docs/performer.md for what that costs.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaincinv

from bert_theseus.errors import InputError

NORMS = ("chi", "equal_probability")
Seed = int | Sequence[int]      # what numpy's default_rng takes


def orthogonal_projection(num_features: int, head_size: int, seed: Seed,
                          norms: str = "chi") -> np.ndarray:
    """[num_features, head_size] rows, orthogonal within each block of head_size rows.

    norms: "chi", each row as long as a fresh Gaussian vector of that dimension, or
           "equal_probability", the article's R_i, dealt to the rows in random order.
    seed:  the same seed gives the same rows.
    Raises InputError for a size below 1 or another ``norms``.
    Source: kexue.fm 7921; arXiv 2009.14794, section 2.4.

    >>> rows = orthogonal_projection(num_features=8, head_size=8, seed=0)
    >>> gram = rows @ rows.T
    >>> bool(np.allclose(gram, np.diag(np.diag(gram)), atol=1e-5))
    True
    """
    _check_sizes(num_features, head_size)
    random = np.random.default_rng(seed)
    blocks = -(-num_features // head_size)
    directions = np.concatenate([_orthonormal(head_size, random) for _ in range(blocks)])
    lengths = _norms(norms, num_features, head_size, random)
    return (directions[:num_features] * lengths[:, None]).astype("float32")


def gaussian_projection(num_features: int, head_size: int, seed: Seed) -> np.ndarray:
    """[num_features, head_size] independent rows from N(0, I): the plain Monte Carlo draw.

    Raises InputError for a size below 1.

    >>> gaussian_projection(num_features=3, head_size=8, seed=0).shape
    (3, 8)
    """
    _check_sizes(num_features, head_size)
    return np.random.default_rng(seed).standard_normal((num_features, head_size)).astype("float32")


def equal_probability_norms(num_features: int, head_size: int) -> np.ndarray:
    """The article's R_1 < … < R_m with P_d(r ≤ R_i) = i / (m + 1), P_d the χ distribution.

    P_d(r ≤ R) is the regularised incomplete gamma function of (d/2, R²/2), inverted here.

    >>> equal_probability_norms(1, 2).round(4).tolist()      # the median: √(2 ln 2)
    [1.1774]
    """
    probabilities = np.arange(1, num_features + 1) / (num_features + 1)
    return np.sqrt(2 * gammaincinv(head_size / 2, probabilities))


def _orthonormal(size: int, random: np.random.Generator) -> np.ndarray:
    """Rows of a uniformly (Haar) distributed orthogonal matrix: QR, the signs of R taken out."""
    q, r = np.linalg.qr(random.standard_normal((size, size)))
    return (q * np.sign(np.diag(r))).T


def _norms(norms: str, num_features: int, head_size: int, random) -> np.ndarray:
    if norms == "chi":
        return np.linalg.norm(random.standard_normal((num_features, head_size)), axis=1)
    if norms == "equal_probability":
        return random.permutation(equal_probability_norms(num_features, head_size))
    raise InputError(f"unknown norms {norms!r}", "norms", f"use one of {', '.join(NORMS)}")


def _check_sizes(num_features: int, head_size: int) -> None:
    for name, size in (("num_features", num_features), ("head_size", head_size)):
        if int(size) != size or size < 1:
            raise InputError(f"{name} is {size}", name, "give a whole number of at least 1")

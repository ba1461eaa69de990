"""The random directions: their laws, not their looks."""

import numpy as np
import pytest
from scipy import stats

from bert_theseus.errors import InputError
from bert_theseus.performer import (equal_probability_norms, gaussian_projection,
                                    orthogonal_projection)


@pytest.mark.parametrize("num_features", [5, 16, 40])
@pytest.mark.parametrize("norms", ["chi", "equal_probability"])
def test_rows_are_orthogonal_within_blocks_of_head_size(num_features, norms):
    rows = orthogonal_projection(num_features, 16, seed=1, norms=norms).astype("float64")
    assert rows.shape == (num_features, 16)
    for start in range(0, num_features, 16):
        gram = rows[start:start + 16] @ rows[start:start + 16].T
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-5)


@pytest.mark.parametrize("make", [orthogonal_projection, gaussian_projection])
def test_each_row_by_itself_is_standard_normal(make):
    rows = make(4096, 8, seed=0).astype("float64")
    assert stats.kstest(rows.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(np.linalg.norm(rows, axis=1), stats.chi(8).cdf).pvalue > 1e-3


def test_directions_are_uniform_on_the_sphere():
    """First rows of many seeds: without the sign correction of QR they would favour one side."""
    first = np.array([orthogonal_projection(1, 3, seed)[0] for seed in range(2000)])
    assert stats.kstest(first[:, 0], "norm").pvalue > 1e-3
    assert stats.kstest(np.array([orthogonal_projection(3, 3, s)[2, 2] for s in range(2000)]),
                        "norm").pvalue > 1e-3


@pytest.mark.parametrize("num_features, head_size", [(1, 2), (7, 8), (256, 64)])
def test_equal_probability_norms_meet_the_articles_condition(num_features, head_size):
    norms = equal_probability_norms(num_features, head_size)
    expected = np.arange(1, num_features + 1) / (num_features + 1)
    np.testing.assert_allclose(stats.chi(head_size).cdf(norms), expected, rtol=1e-9)


def test_equal_probability_norms_are_dealt_in_random_order():
    rows = orthogonal_projection(64, 8, seed=0, norms="equal_probability")
    lengths = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(np.sort(lengths), equal_probability_norms(64, 8), rtol=1e-5)
    assert abs(stats.spearmanr(np.arange(64), lengths).statistic) < 0.5


def test_a_seed_draws_the_same_rows_and_another_seed_others():
    same = [orthogonal_projection(9, 4, seed=(1, 2)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert np.abs(same[0] - orthogonal_projection(9, 4, seed=(1, 3))).max() > 0.1


@pytest.mark.parametrize("arguments, message", [
    ((0, 8, 0), "num_features is 0"), ((8, 0, 0), "head_size is 0"), ((2.5, 8, 0), "is 2.5"),
    ((8, 8, 0, "uniform"), "unknown norms 'uniform'")])
def test_bad_sizes_are_one_line(arguments, message):
    with pytest.raises(InputError, match=message):
        orthogonal_projection(*arguments)

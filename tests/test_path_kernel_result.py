"""Products of the path kernel: top examples, support, deletion, joining, fixed kernels."""

import numpy as np
import pytest

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.path_kernel import (Deletion, PathKernel, PathKernelMachine, SGD, additivity,
                                      deletion_test, explained, fixed_alpha, fixed_outputs,
                                      support_vector_machine)
from bert_theseus.path_kernel.optimizers import as_optimizer
from bert_theseus.path_kernel.plots import plot_steps
from bert_theseus.path_kernel.report import Finished, Report
from bert_theseus.path_kernel.sentences import encode, sentences
from bert_theseus.path_kernel.statements import add_statements


def result_of(contributions, **fields):
    c = np.asarray(contributions, float)
    zero = np.zeros([c.shape[0], c.shape[2]])
    return PathKernel(**{"initial": zero, "decayed": zero, "contributions": c, "kernel": None,
                         "output": c.sum(1), **fields})


RESULT = result_of([[[1.0, 0.0], [-3.0, 2.0], [0.5, 1.0]], [[4.0, 1.0], [0.0, 0.0], [0.0, 0.1]]])


def test_top_examples_are_signed_and_of_the_largest_output():
    assert RESULT.top_examples(0, 2) == [(1, 2.0), (2, 1.0)]                 # output 1: 3 > −1.5
    assert RESULT.top_examples(0, 9, output=0) == [(1, -3.0), (0, 1.0), (2, 0.5)]
    assert RESULT.top_examples(0, 9, output=0, side="for") == [(0, 1.0), (2, 0.5)]
    assert RESULT.top_examples(0, 9, output=0, side="against") == [(1, -3.0)]
    with pytest.raises(InputError, match="no query 2"):
        RESULT.top_examples(2, 1)


def test_support_counts_the_fewest_that_carry_the_share():
    rng = np.random.default_rng(0)
    result = result_of(rng.normal(size=(5, 30, 1)))
    for share in (0.3, 0.9, 1.0):
        for q, count in enumerate(result.support(share)):
            sizes = np.sort(np.abs(result.contributions[q, :, 0]))[::-1]
            assert sizes[:count].sum() >= share * sizes.sum() * (1 - 1e-9)
            assert sizes[:count - 1].sum() < share * sizes.sum()
    assert RESULT.support(0.9, output=0).tolist() == [3, 1]


def test_saved_and_loaded():
    RESULT.save("path.npz")
    loaded = PathKernel.load("path.npz")
    np.testing.assert_array_equal(loaded.contributions, RESULT.contributions)
    assert loaded.kernel is None and loaded.max_residual == RESULT.max_residual


@pytest.fixture(scope="module")
def problem():
    """Two clouds, a small network, and a machine traced once."""
    rng = np.random.default_rng(0)
    y = np.arange(24) % 2
    x = (rng.normal(size=(24, 2)) + 2 * y[:, None] - 1).astype("float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(8, "tanh", input_shape=(2,)),
                              keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return PathKernelMachine(model, loss, reduction="sum"), model.get_weights(), x, y


OPTIONS = dict(optimizer=SGD(0.02), epochs=30, batch_size=None)


def test_training_without_the_top_examples_changes_more(problem):
    machine, start, x, y = problem
    test = deletion_test(machine, start, x, y, x[:2] * 0.2, n=4, draws=3, **OPTIONS)
    assert test.ratio > 1.2 and test.strict_ratio > 1 and test.ahead > 0.5
    assert np.all(test.top < 0) and np.corrcoef(test.top, test.predicted)[0, 1] > 0


def test_deletion_ratios_are_those_of_their_own_draws():
    test = Deletion(top=np.array([-2.0, 4.0]), predicted=np.zeros(2),
                    random=np.array([[1.0, -3.0], [0.0, 0.0]]), alike=np.full((2, 3), -2.0))
    assert (test.ratio, test.strict_ratio, test.ahead) == (3.0, 1.5, 0.75)


def test_leaving_out_all_but_one_is_training_on_one(problem):
    machine, start, x, y = problem
    machine.model.set_weights(start)
    alone = machine.train(x[:1], y[:1], x[:3], **OPTIONS)
    machine.model.set_weights(start)
    masked = machine.train(x, y, x[:3], sample_weight=np.arange(24) == 0, **OPTIONS)
    np.testing.assert_allclose(alone, masked, rtol=1e-4, atol=1e-6)


def test_two_data_sets_do_not_add_up_unless_the_model_forgets_nothing(problem):
    machine, start, x, y = problem
    test = additivity(machine, start, x, y, x[:5], 12, **OPTIONS)
    assert test.deviation > 0.1                                   # a network: the path is another
    linear = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    steady = PathKernelMachine(linear, lambda y, f: -f[:, 0] * (2.0 * y[:, 0] - 1), reduction="sum")
    test = additivity(steady, linear.get_weights(), x, y.astype("float32"), x[:5], 12, **OPTIONS)
    assert test.deviation < 1e-5                                  # constant K and a: they add up


def test_a_later_fit_adds_terms(problem):
    machine, start, x, y = problem
    machine.model.set_weights(start)
    first = machine.fit(x[:12], y[:12], x[:5], quadrature="simpson", **OPTIONS)
    second = machine.fit(x[12:], y[12:], x[:5], quadrature="simpson", **OPTIONS)
    both = first.then(second)
    assert both.contributions.shape == (5, 24, 2)
    np.testing.assert_array_equal(both.contributions[:, :12], first.contributions)
    assert both.max_residual < 1e-4 < np.abs(both.output - first.output).max()
    with pytest.raises(InputError, match="does not start"):
        second.then(first)


def test_the_machine_has_the_names_of_its_result(problem):
    machine, start, x, y = problem
    result = machine.fit(x, y, x[:2], **OPTIONS)
    assert machine.contributions is result.contributions
    assert machine.top_examples(0, 3) == result.top_examples(0, 3)
    with pytest.raises(AttributeError, match="after fit"):
        PathKernelMachine(machine.model, "mse").residual
    with pytest.raises(AttributeError, match="has no 'nonsense'"):
        machine.nonsense


def test_fixed_alpha_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    kernel, alpha = rng.normal(size=(9, 4)), rng.normal(size=(4, 2))
    exact = result_of(kernel[..., None] * alpha, kernel=kernel)
    np.testing.assert_allclose(fixed_alpha(exact), alpha)
    np.testing.assert_allclose(fixed_outputs(exact, alpha), exact.output, atol=1e-12)
    assert np.isclose(explained(exact, alpha), 1)
    noisy = result_of(exact.contributions + rng.normal(size=(9, 4, 2)), kernel=kernel)
    best = fixed_alpha(noisy)
    for other in (best + 0.01, best - 0.01, best * 1.01):
        assert explained(noisy, other) < explained(noisy, best)


def test_support_vector_machine_separates_what_the_kernel_separates():
    x, y = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1])
    labels, support = support_vector_machine(np.outer(x, x), y, np.outer([-3.0, 0.5], x), 100.0)
    assert labels.tolist() == [0, 1] and set(support) == {1, 2}


def test_keras_schedules_are_read():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.1)
    assert np.isclose(as_optimizer(keras.optimizers.SGD(schedule)).rate(1), 0.05)
    assert as_optimizer(keras.optimizers.legacy.SGD(0.5, decay=1.0)).rate(1) == 0.25
    assert as_optimizer("adam").beta_2 == 0.999


def test_sentences_mean_what_their_label_says():
    texts, labels = sentences(60, seed=3)
    assert len(set(texts)) == 60 and 10 < labels.sum() < 50
    for text, label in zip(texts, labels):
        praise = any(word in text for word in ("好吃", "新鲜", "便宜", "干净", "香", "可口"))
        assert label == (praise != ("不" in text))
    assert encode(texts)[:, -1].max() == 0 and encode(texts).min(0)[0] > 0


def test_finished_parts_are_taken_over_unless_the_settings_changed(tmp_path):
    settings = {"resume": False, "output_dir": "a", "seed": [1], "steps": 3}
    Finished(tmp_path, settings)("one", lambda: {"x": np.float32(1.5)})
    again = Finished(tmp_path, {**settings, "resume": True, "seed": [1, 2]})
    assert again("one", lambda: pytest.fail("made again")) == {"x": 1.5}
    assert Finished(tmp_path, settings)("one", lambda: {"x": 2.0}) == {"x": 2.0}
    with pytest.raises(InputError, match="other settings"):
        Finished(tmp_path, {**settings, "resume": True, "steps": 4})


def test_statements_are_judged_by_the_means_of_the_rows():
    report = Report()
    rows = {"full batch, left": 0.5, "full batch, simpson": 0.1, "mini-batches, left": 1.0}
    seeds = [{f"residual / change | {k}": v
              for k, v in {**rows, "mini-batches, simpson": s}.items()} for s in (1e-5, 1e-3)]
    report.add("all", seeds, seeds=[1, 2])
    add_statements(report, "all", slopes=None)
    assert [c["verdict"] for c in report.claims] == ["not", "holds"]
    assert "5.1e-04 (Simpson)" in report.claims[1]["numbers"]
    assert report.claims[1]["numbers"] in report.text() and "not" in report.text()


def test_tables_of_examples_are_written_as_markdown(tmp_path):
    report = Report(tables={"titles": [("text", "label"), ("好吃", "1")]})
    report.write_tables(tmp_path)
    assert (tmp_path / "titles.md").read_text(encoding="utf-8").split("\n")[2].startswith("| 好吃 |")


def test_slopes_of_the_step_size_plot_are_those_of_power_laws(tmp_path):
    rates = np.array([0.4, 0.2, 0.1])
    slopes = plot_steps(rates, {"left": 3 * rates, "simpson": rates**4}, tmp_path / "steps.png")
    assert np.isclose(slopes["left"], 1) and np.isclose(slopes["simpson"], 4)
    assert (tmp_path / "steps.png").read_bytes().startswith(b"\x89PNG")

"""Counting, timing and the study's pieces, and the script from its arguments to its table."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from bert4keras.models import build_transformer_model
from harness import assert_close

from bert_theseus import demo
from bert_theseus.backend import keras
from bert_theseus.checkpoint import bert_folder
from bert_theseus.clue import Example, get_task
from bert_theseus.errors import InputError
from bert_theseus.performer import build_performer_model, cost, data, softmax_attention, study
from bert_theseus.performer.journal import Journal

from running import refusal, run_script

CONFIG = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
              intermediate_size=32, hidden_act="gelu", max_position_embeddings=64)


def test_multiply_adds_are_those_of_the_products_one_by_one():
    n, heads, d, m = 50, 2, 8, 24
    hidden = heads * d
    block = cost.encoder_block(hidden, m, head_size=d)
    dense = n * sum(np.prod(w.shape) for w in block.trainable_weights if len(w.shape) == 2)
    scores, mixing = heads * n * n * d, heads * n * n * d
    projecting, summing, reading = 2 * heads * n * d * m, heads * n * m * d, heads * n * m * d
    assert cost.multiply_adds(n, hidden, None) == dense + scores + mixing
    assert cost.multiply_adds(n, hidden, m) == dense + projecting + summing + reading
    assert cost.multiply_adds(n, hidden, m, block=False) == projecting + summing + reading


@pytest.mark.parametrize("linear, exact, expected", [
    ([1, 1, 1], [2, 4, 8], 100), ([2, 2, 2], [1, 1, 1], None), ([2, 2, 2], [1, 4, 16], 141.42),
    ([1, 3, 1], [2, 1, 9], 251.98)])
def test_the_crossover_is_where_linear_is_faster_for_good(linear, exact, expected):
    found = cost.crossover([100, 200, 400], linear, exact)
    assert found == (None if expected is None else pytest.approx(expected, rel=0.02))


def test_a_step_of_both_blocks_takes_any_length_and_gives_gradients():
    for features in (8, None):
        call = cost.step(cost.encoder_block(16, features, head_size=8), 16)
        values = [call(length)() for length in (5, 70)]
        assert all(np.isfinite(v).all() for v in values) and len(values[0]) == 17
        alone = cost.step(cost.attention_only(16, features, head_size=8), 16, backward=False)
        assert np.isfinite(alone(9)())


def test_queries_and_keys_are_those_of_the_block(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    bert = build_transformer_model(str(tmp_path / "config.json"), return_keras_model=False)
    ids = np.random.default_rng(0).integers(1, 40, (2, 9))
    ids[1, 6:] = 0
    inputs = [tf.constant(ids, tf.float32), tf.zeros([2, 9])]
    query, key, value, mask = study.queries_and_keys(bert, inputs, 1)
    layer = bert.layers["Transformer-1-MultiHeadSelfAttention"]
    output = layer.o_dense(tf.reshape(softmax_attention(query, key, value, mask), [2, 9, 16]))
    expected = keras.Model(bert.inputs, layer.output)(inputs)
    assert_close(output[0], expected[0])
    assert_close(output[1, :6], expected[1, :6])


def test_the_error_counts_real_positions_only():
    qkv = np.random.default_rng(0).normal(size=(3, 2, 12, 2, 8)).astype("float32")
    mask = np.arange(12) < np.array([[12], [12]])
    padded = [np.pad(x, [(0, 0), (0, 5), (0, 0), (0, 0)], constant_values=7.0) for x in qkv]
    whole = study.approximation_error(*qkv, mask, "independent", 64, seed=1)
    assert whole == pytest.approx(study.approximation_error(
        *padded, np.pad(mask, [(0, 0), (0, 5)]), "independent", 64, seed=1), rel=1e-4)
    assert 0.01 < whole < 2


def test_concentration_is_the_mean_largest_weight():
    query = np.zeros((1, 2, 1, 2), "float32")
    key = np.zeros((1, 3, 1, 2), "float32")
    assert study.concentration(np.pad(query, [(0, 0), (0, 1), (0, 0), (0, 0)]), key,
                               [[1, 1, 0]]) == pytest.approx(0.5)


def test_copied_weights_are_all_that_training_changes(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    exact = build_transformer_model(str(tmp_path / "config.json"))
    linear = build_performer_model(str(tmp_path / "config.json"), num_features=16)
    study.copy_weights(exact, linear)
    for old, new in zip(exact.trainable_weights, linear.trainable_weights):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(InputError, match="other weights"):
        study.copy_weights(exact, build_performer_model(str(tmp_path / "config.json"),
                                                        num_hidden_layers=1))


def test_recovery_takes_exactly_the_steps_asked_for():
    seen = []

    class Three:
        def epoch(self, number):
            return [(number, i) for i in range(3)]
    values = study.recover(seen.append, Three(), [0, 2, 2, 7], lambda: len(seen))
    assert values == [0, 2, 2, 7]
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]


def test_a_joined_document_says_its_label_most_of_the_time():
    short = [Example(letter * 5, label=letter) for letter in "abc"]
    documents = data.joined(short, count=200, characters=600, seed=1, share=0.4)
    assert {len(d.text) for d in documents} == {600} and {d.label for d in documents} == set("abc")
    own = np.mean([d.text.count(d.label) / 600 for d in documents])
    assert own == pytest.approx(0.4 + 0.6 / 3, abs=0.01)
    again = data.joined(short, count=200, characters=600, seed=1, share=0.4)
    assert [d.text for d in again] == [d.text for d in documents]


def test_a_vocabulary_beyond_the_model_is_one_line(tmp_path):
    task = get_task(demo.TASK, demo.demo_task(tmp_path, train=3, dev=2, test=1))
    folder = demo.demo_bert(tmp_path / "bert", num_layers=1)
    config = json.loads(Path(folder, "bert_config.json").read_text())
    Path(folder, "bert_config.json").write_text(json.dumps(config | {"vocab_size": 6}))
    with pytest.raises(InputError, match="is none of 0 … 5"):
        data.checked_batches(task, task.load(tmp_path, "dev"), bert_folder(folder), 32, 2, False, 0)


def test_a_journal_of_other_settings_is_refused(tmp_path):
    path = tmp_path / "journal.json"
    first = Journal(path, False, {"m": 8, "task": "tnews"})
    first.measure("a", lambda: [("x", "ms", 1.0), ("y", "ms", 3.0)])
    first.measure("b", lambda: [("x", "ms", 2.0)])
    again = Journal(path, True, {"m": 8, "task": "tnews"})
    for cell in "ab":
        again.measure(cell, None)
    assert again.rows == first.take() == {("x", "ms"): [1.0, 2.0], ("y", "ms"): [3.0]}
    assert first.take() == {}
    assert Journal(path, False, {"m": 9}).cell("a", lambda: 2) == 2
    with pytest.raises(InputError, match=r"other settings \(m\)"):
        Journal(path, True, {"m": 10})
    path.write_text("no")
    with pytest.raises(InputError, match="no JSON"):
        Journal(path, True, {})


def _run(monkeypatch, *arguments):
    run_script(monkeypatch, "performer", *arguments)
    return json.loads(Path("output/performer/results.json").read_text())


def test_the_script_measures_every_part_and_resumes_to_the_same_rows(monkeypatch, capsys):
    small = ["--train_examples", "64", "0", "--dev_examples", "32", "--epochs", "1", "--features",
             "4", "--error_features", "2", "4", "8", "16", "--kernel", "favor", "--layers", "1",
             "--lengths", "128", "256"]
    first = _run(monkeypatch, *small)
    metrics = {row["metric"] for row in first["rows"]}
    assert {"error, m = 16", "slope", "largest weight", "accuracy", "ms a step", "ms"} <= metrics
    pictures = {path.name: path.stat().st_size for path in Path("output/performer").glob("*.png")}
    assert pictures.keys() == {"error.png", "exchange.png", "length.png", "training-relations.png"}
    assert min(pictures.values()) > 1000
    cells = json.loads(Path("output/performer/journal.json").read_text())["cells"]
    again = _run(monkeypatch, *small, "--resume")
    assert again["rows"] == first["rows"]
    assert json.loads(Path("output/performer/journal.json").read_text())["cells"] == cells
    assert "error, m = 16" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    (["--error_features", "0"], "error_features of 0"), (["--task", "tnews"], "without data"),
    (["--data_dir", "."], "tnews")])
def test_bad_arguments_are_one_line(monkeypatch, capsys, arguments, message):
    assert message in refusal(monkeypatch, capsys, "performer", *arguments)

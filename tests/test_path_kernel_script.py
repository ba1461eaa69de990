"""scripts/path_kernel.py: titles for and against, on sentences in TNEWS' layout; bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

from bert_theseus.backend import keras
from bert_theseus.path_kernel.result import PathKernel
from bert_theseus.path_kernel.sentences import sentences
from bert_theseus.path_kernel.titles import features, sides_agree, standardised, with_head

from running import refusal, run_script


def title_files(folder: Path) -> None:
    """80 training and 20 held-out sentences; praise is 100 (story), the rest 101 (culture)."""
    texts, labels = sentences(100, seed=0)
    lines = [json.dumps({"sentence": text, "label": str(101 - label), "label_desc": ""},
                        ensure_ascii=False) for text, label in zip(texts, labels)]
    (folder / "tnews").mkdir(parents=True)
    for split, part in (("train", lines[:80]), ("dev", lines[80:])):
        (folder / "tnews" / f"{split}.json").write_text("\n".join(part) + "\n", encoding="utf-8")


def test_titles_for_and_against(monkeypatch):
    title_files(Path("clue"))
    few = ["--task", "tnews", "--data_dir", "clue", "--seed", 1, "--maxlen", 16, "--queries", 4,
           "--output_dir", "out", "--epochs", 5]
    run_script(monkeypatch, "path_kernel", *few)
    text = Path("out/results.json").read_text(encoding="utf-8")
    record = json.loads(text)
    rows = {(row["name"], row["metric"]): row["value"] for row in record["rows"]}
    assert rows["tnews: last layer, simpson", "residual / change"] < 1e-4
    assert rows["tnews: α over x, median", "spread / size"] < 1e-4          # K does not move
    assert 1 < rows["tnews: carry 90 % of a query", "examples"] < 80
    assert record["claims"][0]["verdict"] == "holds"
    table = Path("out/titles.md").read_text(encoding="utf-8")
    assert len(table.splitlines()) == 2 + 4 * (1 + 3 + 3) and "+" in table
    train = Path("clue/tnews/train.json").read_text(encoding="utf-8").splitlines()
    titles = [json.loads(line)["sentence"] for line in train]
    assert any(title in table for title in titles)
    assert not any(title in text for title in titles)           # the record can be published


def test_pooled_features_are_the_mean_over_what_is_no_padding():
    bert = keras.Sequential([keras.layers.Embedding(9, 3, input_shape=(5,))])
    ids = np.array([[1, 2, 0, 0, 0], [3, 3, 4, 5, 0]])
    table = bert.get_weights()[0]
    expected = [(table[1] + table[2]) / 2, (2 * table[3] + table[4] + table[5]) / 4]
    model = with_head(bert, 2)
    np.testing.assert_allclose(features(bert, [ids]), expected, rtol=1e-6)
    kernel, bias = model.get_weights()[1:]
    np.testing.assert_allclose(model(ids), expected @ kernel + bias, rtol=1e-5)
    train, held = standardised(bert, [ids], [ids[:1]])
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), 1, rtol=1e-4)
    np.testing.assert_allclose(held, train[:1], rtol=1e-5)


def test_the_top_examples_are_counted_by_label():
    c = np.array([[[3.0, 0], [2.0, 0], [-1.0, 0], [-2.0, 0]]])
    result = PathKernel(np.zeros([1, 2]), np.zeros([1, 2]), c, None, c.sum(1))
    assert sides_agree(result, np.array([0, 1, 0, 1]), 1) == {"for": 1.0, "against": 1.0}
    assert sides_agree(result, np.array([0, 1, 0, 1]), 2) == {"for": 0.5, "against": 0.5}


@pytest.mark.parametrize("arguments, what", [
    (["--task", "tnews"], "no data, --data_dir"),
    (["--task", "digits", "--train_examples", 9], "9 training examples"),
    (["--task", "sentences", "--steps", 0], "epochs is 0"),
    (["--task", "tnews", "--data_dir", "nowhere"], "nowhere"),
    (["--bert_dir", "nowhere"], "the demo reads neither data nor a model"),
])
def test_bad_arguments_end_in_one_line(monkeypatch, capsys, arguments, what):
    assert what in refusal(monkeypatch, capsys, "path_kernel", *arguments)

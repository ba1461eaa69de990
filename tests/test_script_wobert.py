"""scripts/wobert.py from its arguments to its table, on a few rows and random models."""

import json
from pathlib import Path

import pytest

from bert_theseus.checkpoint import random_bert

from running import refusal, run_script

VOCAB = "[PAD] [UNK] [CLS] [SEP] [MASK] 我 们 在 北 京 大 学 。 ，".split()


def write(name, rows):
    folder = Path("data") / name
    folder.mkdir(parents=True)
    for split in ("train", "dev"):
        (folder / f"{split}.json").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def data():
    write("places", [{"sentence": "我们在北京。", "label": "a"},
                     {"sentence": "大学在北京，", "label": "b"}])
    Path("data/places/labels.json").write_text('{"label": "a"}\n{"label": "b"}')
    write("names", [{"text": "我们在北京", "label": {"place": {"北京": [[3, 4]]}}}])
    Path("data/names/labels.json").write_text('{"label": "place"}')
    write("csl", [{"content": "我们在北京大学。", "title": "北京"}])
    random_bert("chars", VOCAB, layers=1, hidden=8, heads=2, max_position=512)
    return ["--data_dir", "data", "--bert_dir", "chars", "--num_words", 50, "--epochs", 1, "--seed",
            4]


def test_classification_entities_and_titles_reach_one_table(monkeypatch, data):
    run_script(monkeypatch, "wobert", *data, "--task", "places", "names", "csl", "--beams",
               1, "--speed_texts", 2)
    record = json.loads(Path("output/wobert/results.json").read_text())
    rows = {(row["name"], row["metric"]): row for row in record["rows"]}
    assert {length for name, metric in rows if metric == "speed-up"
            for length in [name.split()[1]]} == {"128", "256", "512"}
    assert rows["WoBERT, 128 characters", "speed-up"]["published"] == 1.16
    for unit in ("BERT", "WoBERT"):
        assert 0 <= rows[f"{unit}, places", "accuracy"]["value"] <= 1
        assert 0 <= rows[f"{unit}, csl, beam 1", "Rouge-L"]["value"] <= 1
    assert {name for name, metric in rows if metric == "entity F1"} == {
        "BERT, names", "WoBERT, names", "WoBERT, words under inf as characters, names"}
    assert rows["BERT, csl, beam 1", "BLEU"]["published"] == pytest.approx(0.4552)
    assert Path("output/wobert/quality.png").stat().st_size > 5000


def test_a_task_that_is_not_there_is_one_line(monkeypatch, capsys, data):
    assert "nowhere" in refusal(monkeypatch, capsys, "wobert", *data, "--task", "nowhere")

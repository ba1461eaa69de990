"""scripts/theseus.py from its first argument to its table, on a little of the demo."""

import json
from pathlib import Path

import pytest

from running import refusal, run_script


def test_every_method_reaches_the_table_and_a_second_run_resumes(monkeypatch, capsys):
    few = ["--train_examples", 64, "--epochs", 1, 1, 1, "--seed", 3,
           "--successor_layers", 1, "--method", "theseus", "linear", "distillation"]
    run_script(monkeypatch, "theseus", *few)
    first = json.loads(Path("output/theseus/results.json").read_text())
    rows = {(row["name"], row["metric"]): row for row in first["rows"]}
    for name in ("fine-tuned, all 6 layers", "fine-tuned, all 6 layers, from random weights",
                 "bag of characters, logistic regression", "fine-tuned, first 1 layers",
                 "Theseus, 1 layers", "Theseus (linear rate), 1 layers", "distilled, 1 layers"):
        assert 0 <= rows[name, "accuracy"]["value"] <= 1 and rows[name, "accuracy"]["seeds"] == [3]
        assert 0 <= rows[name, "test accuracy"]["value"] <= 1
    sizes = {name: row["value"] for (name, metric), row in rows.items() if metric == "parameters"}
    assert sizes["Theseus, 1 layers"] == sizes["fine-tuned, first 1 layers"] < sizes[
        "fine-tuned, all 6 layers"]
    assert first["settings"]["replacing_rate"] == 0.5
    assert Path("output/theseus/theseus.png").stat().st_size > 5000
    left = Path("output/theseus/seed-3/Theseus-1-layers")
    assert (left / "model" / "bert" / "bert_config.json").is_file()
    assert len((left / "test_predict.json").read_text().splitlines()) == 720
    assert "Theseus, 1 layers" in capsys.readouterr().out

    run_script(monkeypatch, "theseus", *few, "--resume")
    again = json.loads(Path("output/theseus/results.json").read_text())
    timeless = [[row for row in record["rows"] if " ms" not in row["metric"]]
                for record in (first, again)]
    assert timeless[0] == timeless[1] and again["seconds"] < first["seconds"]


@pytest.mark.parametrize("arguments, message", [
    (["--replacing_rate", 1], "at the first step"),
    (["--replacing_rate", 1.5], "between 0 and 1"),
    (["--linear_b", 1], "at the first step"),
    (["--data_dir", "nowhere"], "nowhere"),
    (["--data_dir", "nowhere", "--bert_dir", "nothing"], "nothing"),
])
def test_bad_arguments_end_with_one_line(monkeypatch, capsys, arguments, message):
    assert message in refusal(monkeypatch, capsys, "theseus", *arguments)


def test_a_module_list_must_fit_before_anything_is_trained(monkeypatch, capsys):
    assert "cannot replace" in refusal(monkeypatch, capsys, "theseus", "--successor_layers", 7)
    assert not Path("output/theseus/seed-1").exists()

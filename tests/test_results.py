import json
import subprocess
import sys

import pytest

from bert_theseus.errors import InputError
from bert_theseus.published import bar_plot, measured_row, table, theseus
from bert_theseus.results import Row, replace_file, write_results
from bert_theseus.script import argument_parser, settings


def test_row_gives_mean_and_sample_deviation():
    row = Row("a", "accuracy", [0.5, 0.7], seeds=[1, 2]).as_dict()
    assert row["value"] == pytest.approx(0.6) and row["std"] == pytest.approx(0.1414, abs=1e-4)
    assert Row("a", "accuracy", [0.5]).std is None


def test_results_record_is_complete_and_replaces_the_old_one_whole(tmp_path):
    for value in (0.1, 0.2):
        path = write_results(tmp_path, 7575, {"seed": [1]}, [Row("a", "accuracy", [value])], 1.23)
    record = json.loads(path.read_text())
    assert record["rows"][0]["value"] == 0.2 and record["article"] == 7575
    assert {"python", "tensorflow", "tf_keras", "bert4keras", "device", "cores"} <= set(
        record["environment"])
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_failing_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail(beside):
        beside.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        replace_file(target, fail)
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_table_sets_measured_beside_published():
    rows = [measured_row(theseus.NUMBERS, "Theseus, 3 layers", "accuracy", [0.5, 0.52], [1, 2],
                         "iflytek"),
            Row("own", "seconds", [1.5])]
    text = table(rows)
    assert "59.36 %" in text and "51.00 ± 1.41 %" in text and "–" in text
    assert table(rows, markdown=True).count("|") == 5 * 4
    bar_plot(rows, "plot.png", "demo")
    assert open("plot.png", "rb").read(4) == b"\x89PNG"


def test_seed_option_replaces_default_then_adds():
    parser = argument_parser("x", seeds=(1, 2, 3))
    assert parser.parse_args([]).seed == [1, 2, 3]
    args = parser.parse_args(["--seed", "7", "--seed", "8"])
    assert args.seed == [7, 8] and settings(args)["seed"] == [7, 8]
    assert parser.parse_args([]).seed == [1, 2, 3]


def test_bad_input_is_one_line_and_status_2():
    code = ("from bert_theseus import script, errors\n"
            "def main(): raise errors.InputError('no such\\nfile', 'a.json:3', 'give another')\n"
            "script.run(main)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: no such file, a.json:3, give another\n"
    assert isinstance(InputError("x"), ValueError)

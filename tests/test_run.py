"""Scripts in the old way through ``python -m bert_theseus run``, and the doctor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert_theseus import __main__, _environment
from bert_theseus.checkpoint import random_bert

from running import run_file

SCRIPTS = Path(__file__).parent / "old_scripts"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"甲乙丙丁戊己"]


def run(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "bert_theseus", *map(str, arguments)],
                          capture_output=True, text=True, env={**os.environ, **environment})


def test_an_old_classification_script_learns(tmp_path):
    random_bert("bert", TOKENS, layers=1, hidden=16, heads=2, max_position=16)
    done = run("run", SCRIPTS / "classification.py", "bert")
    assert done.returncode == 0, done.stderr
    record = json.loads(Path("classification.json").read_text())
    assert record["losses"][-1] < 0.5 * record["losses"][0]
    assert record["best"] > 0.9 and record["again"] == pytest.approx(record["best"])
    assert record["predictions"] == [32, 2] and record["same_backend"]
    assert record["lr"] == pytest.approx(0.01)
    assert "val_acc: " in done.stdout


def test_an_old_seq2seq_script_learns_to_reverse(monkeypatch):
    run_file(monkeypatch, SCRIPTS / "seq2seq.py")
    record = json.loads(Path("seq2seq.json").read_text())
    assert record["losses"][-1] < 0.2 * record["losses"][0]
    assert record["answers"] == {"甲乙": "乙甲", "丁丙": "丙丁"}


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    """The families' record, as it is and with RECOMPUTE=1 (that one by the command)."""
    folder = tmp_path_factory.mktemp("families")
    done = run("run", SCRIPTS / "families.py", folder / "recomputed.json", RECOMPUTE="1")
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        run_file(patch, SCRIPTS / "families.py", folder / "plain.json")
    return [json.loads((folder / f"{name}.json").read_text()) for name in ("plain", "recomputed")]


NAMES = ["bert", "bert with_mlm", "bert with_nsp", "bert lm", "bert unilm",
         "bert hierarchical_position", "roformer", "nezha", "albert", "electra", "gpt", "t5"]


@pytest.mark.parametrize("name", NAMES)
def test_each_family_learns_and_recomputation_changes_nothing(families, name):
    plain, recomputed = families
    assert (plain["recompute"], recomputed["recompute"]) == (False, True)
    losses = plain[name]["losses"]
    assert losses[-1] < losses[0]
    for key in ("output", "norms", "losses"):
        np.testing.assert_allclose(recomputed[name][key], plain[name][key], rtol=1e-4, atol=1e-5)
    assert len(plain[name]["norms"]) > 10 and max(plain[name]["norms"]) > 1e-3


def test_who_sees_the_last_token(families):
    seen = {name: np.array(families[0][name]["seen"]) for name in NAMES
            if families[0][name]["seen"] is not None}
    for name in ("bert lm", "gpt"):
        assert (seen[name][:-1] < 1e-6).all() and seen[name][-1] > 1e-4, "not causal"
    assert (seen["bert unilm"][:-1] < 1e-6).all() and seen["bert unilm"][-1] > 1e-4
    for name in ("bert", "bert with_mlm", "roformer", "nezha", "albert",
                 "bert hierarchical_position"):
        assert (seen[name] > 1e-6).all(), f"{name} does not see everything"


def test_a_script_gets_its_arguments_its_folder_its_status_and_its_traceback(tmp_path):
    (tmp_path / "neighbour.py").write_text("value = 7\n")
    (tmp_path / "old.py").write_text(
        "import sys, neighbour\n"
        "print(__name__, __file__, sys.argv, neighbour.value)\n"
        "sys.argv[1:] == ['--exit'] and sys.exit(5)\n"
        "def fail():\n"
        "    raise RuntimeError('on purpose')\n"
        "fail()\n")
    script = str(tmp_path / "old.py")
    done = run("run", script, "--exit")
    assert done.stdout.strip() == f"__main__ {script} {[script, '--exit']} 7"
    assert (done.returncode, done.stderr) == (5, "")


@pytest.fixture
def bare_process(monkeypatch):
    """What ``run`` changes in a process of its own, given back after the test."""
    monkeypatch.setattr(sys, "argv", ["x"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def test_a_traceback_begins_in_the_script(bare_process, capsys):
    Path("old.py").write_text("def fail():\n    raise RuntimeError('on purpose')\nfail()\n")
    with pytest.raises(RuntimeError) as caught:
        __main__.main(["run", "old.py", "--seed", "1"])
    assert sys.argv == ["old.py", "--seed", "1"] and sys.path[0] == os.getcwd()
    sys.excepthook(RuntimeError, caught.value, caught.value.__traceback__)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[1] == '  File "old.py", line 3, in <module>'
    assert lines[-1] == "RuntimeError: on purpose"


def test_a_script_that_does_not_parse_is_shown_as_python_shows_it(bare_process, capsys):
    Path("broken.py").write_text("x = 1\ny = (\n")
    with pytest.raises(SyntaxError) as caught:
        __main__.main(["run", "broken.py"])
    sys.excepthook(SyntaxError, caught.value, caught.value.__traceback__)
    assert capsys.readouterr().err.startswith('  File "broken.py", line 2\n')


def test_a_missing_script_is_one_line(bare_process, capsys):
    with pytest.raises(SystemExit) as caught:
        __main__.main(["run", "nowhere.py"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: no such script, nowhere.py, give the path of a Python file\n")


def test_doctor_prints_what_it_finds(capsys):
    __main__.main(["doctor"])
    out = capsys.readouterr().out
    assert "bert4keras   0.11.5" in out and "CPU" in out and "threads" in out
    assert "smoke run" in out and out.endswith("all well\n")


def test_doctor_names_each_fault_and_ends_with_1(monkeypatch, capsys):
    monkeypatch.setattr(_environment, "faults", lambda: ["a is missing: b", "c is old: d"])
    with pytest.raises(SystemExit) as caught:
        __main__.main(["doctor"])
    assert caught.value.code == 1
    assert capsys.readouterr().err == "fault: a is missing: b\nfault: c is old: d\n"


@pytest.mark.parametrize("losses", [[1.0, 0.99], [1.0, float("nan")]])
def test_doctor_notices_that_nothing_is_learned(monkeypatch, capsys, losses):
    monkeypatch.setattr(__main__, "smoke_losses", lambda: losses)
    with pytest.raises(SystemExit):
        __main__.main(["doctor"])
    assert "does not lower the loss" in capsys.readouterr().err

"""Scripts run inside the test, as from the command line; a process of their own costs seconds."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run_file(monkeypatch, path, *arguments):
    """``python PATH ARGUMENTS…``; SystemExit where the script ends with a status."""
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")


def run_script(monkeypatch, name, *arguments):
    """``python scripts/NAME.py ARGUMENTS…``."""
    run_file(monkeypatch, SCRIPTS / f"{name}.py", *arguments)


def refusal(monkeypatch, capsys, name, *arguments):
    """The one line ``error: …`` with which a script, given bad input, ends with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        run_script(monkeypatch, name, *arguments)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert end.value.code == 2
    return line

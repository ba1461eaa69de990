"""A script of ``scripts/`` run inside the test, as from the command line."""

import importlib.util
import sys
from pathlib import Path


def run_script(monkeypatch, name, *arguments):
    """``python scripts/NAME.py ARGUMENTS…``."""
    path = Path(__file__).parents[1] / "scripts" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [path.name, *map(str, arguments)])
    spec = importlib.util.spec_from_file_location(f"script_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()

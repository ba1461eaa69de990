"""What a long study has measured so far, on disk, so that it can be interrupted."""

import json
from collections.abc import Callable
from pathlib import Path

from bert_theseus.errors import InputError
from bert_theseus.results import replace_file


class Journal:
    """Finished cells of a study in one JSON file: an interrupted study goes on where it stopped.

    ``rows``: (name, metric) → values, one a seed, of all that was measured since ``take``.
    settings: what a cell depends on; a journal of other settings is refused. Without ``resume``
    the study starts again.

    >>> Journal("cells.json", resume=False, settings={"m": 8}).cell("error", lambda: 0.5)
    0.5
    >>> Journal("cells.json", resume=True, settings={"m": 8}).cell("error", lambda: 1 / 0)
    0.5
    """

    def __init__(self, path, resume: bool, settings: dict):
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))
        self.cells = self._read() if resume and self.path.exists() else {}
        self.rows: dict[tuple[str, str], list[float]] = {}

    def measure(self, name: str, compute: Callable) -> None:
        """Adds a cell's values, a list of (name, metric, value), to ``rows``."""
        for row, metric, value in self.cell(name, compute):
            self.rows.setdefault((row, metric), []).append(value)

    def take(self) -> dict[tuple[str, str], list[float]]:
        """``rows``, which are then empty."""
        taken, self.rows = self.rows, {}
        return taken

    def cell(self, name: str, compute: Callable):
        """The cell's value (anything JSON can carry), computed if it is not there yet."""
        if name not in self.cells:
            self.cells[name] = compute()
            text = json.dumps({"settings": self.settings, "cells": self.cells}, indent=1)
            replace_file(self.path, lambda beside: beside.write_text(text, encoding="utf-8"))
        return self.cells[name]

    def _read(self) -> dict:
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError("the journal is no JSON", str(self.path), "delete it") from None
        old, new = record["settings"], self.settings
        if old != new:
            other = sorted(k for k in old.keys() | new if old.get(k) != new.get(k))
            raise InputError(f"the journal is of other settings ({', '.join(other)})",
                             str(self.path), "use another --output_dir, or leave --resume out")
        return record["cells"]

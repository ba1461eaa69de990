"""What a script of this room collects: rows, statements with verdicts, and finished parts.

>>> report = Report()
>>> report.add("digits", [{"accuracy | network": 0.5}, {"accuracy | network": 0.7}], seeds=[1, 2])
>>> round(report.mean("digits: network", "accuracy"), 2)
0.6
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert_theseus.errors import InputError
from bert_theseus.published import format_table, table
from bert_theseus.results import Row, replace_file


@dataclass
class Report:
    """Rows (one value a seed), statements of the article with verdicts, tables of examples."""

    rows: list[Row] = field(default_factory=list)
    claims: list[dict] = field(default_factory=list)
    tables: dict[str, list] = field(default_factory=dict)

    def add(self, name: str, measured: Sequence[Mapping[str, float]], seeds) -> None:
        """A row for each key of ``measured``, a mapping a seed: {"metric | what": value}."""
        for key in measured[0]:
            metric, what = key.split(" | ")
            values = [m[key] for m in measured]
            self.rows.append(Row(f"{name}: {what}", metric, values, seeds=seeds))

    def claim(self, statement: str, verdict_: str, numbers: str) -> None:
        """One statement of the article with its verdict."""
        self.claims.append({"statement": statement, "verdict": verdict_, "numbers": numbers})

    def mean(self, name: str, metric: str) -> float:
        """Mean over the seeds of the row of that name and metric."""
        return next(row.value for row in self.rows if (row.name, row.metric) == (name, metric))

    def text(self) -> str:
        """Everything as text: rows, statements, tables of examples."""
        parts = [table(self.rows)]
        if self.claims:
            parts.append(format_table([("the article says", "verdict", "measured")] + [
                (c["statement"], c["verdict"], c["numbers"]) for c in self.claims]))
        parts += [f"{name}\n{format_table(cells)}" for name, cells in self.tables.items()]
        return "\n\n".join(parts)

    def write_tables(self, folder: Path) -> None:
        """Each table of examples as Markdown, ``folder/NAME.md``."""
        for name, cells in self.tables.items():
            text = format_table(cells, markdown=True) + "\n"
            replace_file(Path(folder) / f"{name}.md",
                         lambda beside: beside.write_text(text, encoding="utf-8"))


class Finished:
    """Parts of a script's run that are done, kept in ``parts.json`` for ``--resume``.

    settings: all arguments; with ``resume`` the rest must be those of the interrupted run, else
    :class:`InputError`.

    >>> finished = Finished(Path("."), {"resume": False, "steps": 3})
    >>> finished("one", lambda: {"x": 1.0})
    {'x': 1.0}
    >>> Finished(Path("."), {"resume": True, "steps": 3})("one", lambda: None)
    {'x': 1.0}
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.path, self.parts = Path(folder) / "parts.json", {}
        self.settings = {k: str(v) for k, v in settings.items()
                         if k not in ("resume", "output_dir", "seed")}
        if settings["resume"] and self.path.is_file():
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["settings"] != self.settings:
                raise InputError("the interrupted run had other settings", str(self.path),
                                 "give the same arguments, or start without --resume")
            self.parts = kept["parts"]

    def __call__(self, key: str, make: Callable[[], dict]) -> dict:
        """The part of that name, made now or taken from the interrupted run."""
        if key not in self.parts:
            self.parts[key] = make()
            text = json.dumps({"settings": self.settings, "parts": self.parts}, default=float,
                              ensure_ascii=False)
            replace_file(self.path, lambda beside: beside.write_text(text, encoding="utf-8"))
        return self.parts[key]


def verdict(value: float, holds: float, approximately: float) -> str:
    """"holds" beyond the first threshold, "approximately" beyond the second, else "not"; larger
    is better if ``holds`` is the larger threshold, else smaller is.

    >>> verdict(0.5, holds=0.1, approximately=0.3)
    'not'
    """
    sign = 1 if holds >= approximately else -1
    if sign * value >= sign * holds:
        return "holds"
    return "approximately" if sign * value >= sign * approximately else "not"

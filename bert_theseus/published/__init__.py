"""The articles' numbers with their sources, and measured values set beside them.

One module per article (``published/theseus.py``, …) holds ``NUMBERS``, a tuple of
:class:`Published`. Nothing here is measured by us; what is measured comes as
:class:`bert_theseus.results.Row`.

>>> from bert_theseus.published import theseus
>>> lookup(theseus.NUMBERS, "Theseus, 3 layers", "accuracy", setting="iflytek").value
0.5936
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bert_theseus.results import Row, replace_file

KEXUE = "https://kexue.fm/archives/"


@dataclass(frozen=True)
class Published:
    """One number as published: ``name`` and ``metric`` as in :class:`Row`, its task or setting,
    its value (accuracies as fractions) and the address it stands at."""

    name: str
    metric: str
    value: float
    source: str
    setting: str = ""


def lookup(numbers: Sequence[Published], name: str, metric: str,
           setting: str = "") -> Published | None:
    """The published number of that name, metric and setting, or None where there is none."""
    wanted = (name, metric, setting)
    return next((n for n in numbers if (n.name, n.metric, n.setting) == wanted), None)


def measured_row(numbers: Sequence[Published], name: str, metric: str, values: Sequence[float],
                 seeds: Sequence[int] = (), setting: str = "") -> Row:
    """A :class:`Row` with the published number of the same name filled in, if there is one."""
    found = lookup(numbers, name, metric, setting)
    return Row(name, metric, values, found and found.value, found and found.source, seeds)


def table(rows: Sequence[Row], markdown: bool = False) -> str:
    """Rows as a text table: name, metric, published, measured (mean ± standard deviation)."""
    cells = [("name", "metric", "published", "measured")]
    cells += [(row.name, row.metric, _number(row.published, row.metric), _measured(row))
              for row in rows]
    return format_table(cells, markdown)


def wide_table(rows: Sequence[Row], markdown: bool = False) -> str:
    """One line a name, one column a metric; before the first one what was published, if anything.

    >>> print(wide_table([Row("a", "accuracy", [0.5], published=0.6), Row("a", "ms", [2.0])]))
    name  accuracy (published)  accuracy  ms
    ----  --------------------  --------  ---
    a     60.00 %               50.00 %   2
    """
    metrics, names = (list(dict.fromkeys(values)) for values in
                      ((row.metric for row in rows), (row.name for row in rows)))
    found = {(row.name, row.metric): row for row in rows}
    cells = [("name", f"{metrics[0]} (published)", *metrics)]
    for name in names:
        first = found.get((name, metrics[0]))
        cells.append((name, _number(first and first.published, metrics[0]), *(
            _measured(found[name, metric]) if (name, metric) in found else "–"
            for metric in metrics)))
    if not any(row.published is not None for row in rows):
        cells = [(name, *rest) for name, _, *rest in cells]
    return format_table(cells, markdown)


def format_table(cells: Sequence[Sequence[str]], markdown: bool = False) -> str:
    """Cells (the first row is the head) as an aligned text or Markdown table.

    >>> print(format_table([("name", "F1"), ("BERT", "0.5")]))
    name  F1
    ----  ---
    BERT  0.5
    """
    cells = [[str(cell) for cell in row] for row in cells]
    widths = [max(display_width(cell) for cell in column) for column in zip(*cells)]
    lines = [[cell + " " * (width - display_width(cell)) for cell, width in zip(row, widths)]
             for row in cells]
    lines.insert(1, ["-" * max(width, 3) for width in widths])
    if markdown:
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in lines)


def display_width(text: str) -> int:
    """Columns a text takes in a terminal: Chinese characters take two."""
    import unicodedata
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return "–"
    if metric in PERCENT:
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


PERCENT = {"accuracy", "dev accuracy", "test accuracy", "F1", "entity F1", "dev F1", "test F1",
           "test entity F1", "Rouge-L", "Rouge-1", "Rouge-2", "BLEU"}


def _measured(row: Row) -> str:
    text = _number(row.value, row.metric)
    if row.std is None or len(set(row.values)) == 1 and row.metric not in PERCENT:
        return text
    return f"{text.removesuffix(' %')} ± {_number(row.std, row.metric)}"


def bar_plot(rows: Sequence[Row], path: str | Path, title: str, metric: str | None = None) -> None:
    """Draws published and measured values side by side, with error bars, into a PNG.

    Rows of another metric than ``metric`` (default: the first row's) are left out: bars of
    different units do not share an axis.
    """
    from matplotlib.figure import Figure

    metric = metric or rows[0].metric
    rows = [row for row in rows if row.metric == metric]
    scale = 100 if metric in PERCENT else 1
    shift = 0.19 if any(row.published is not None for row in rows) else 0
    figure = Figure(figsize=(7, 1.1 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for i, row in enumerate(rows):
        axes.barh(i + shift, scale * row.value, 0.36, xerr=scale * (row.std or 0), capsize=3,
                  color="tab:blue", label="measured")
        if row.published is not None:
            axes.barh(i - shift, scale * row.published, 0.36, color="lightgray", label="published")
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric} (%)" if scale == 100 else metric)
    axes.set_title(title)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    figure.legend(unique.values(), unique.keys(), loc="outside upper right", ncols=2,
                  frameon=False)
    replace_file(path, figure.savefig)

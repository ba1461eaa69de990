"""Pictures of a Performer study, drawn from its rows: error, recovery, training, time by length."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert_theseus.performer.kernels import KERNELS
from bert_theseus.results import Row, replace_file

_ERROR = re.compile(r"error, m = (\d+)$")
_RECOVERY = re.compile(r"(not exchanged|exchanged, m = \d+), after (\d+) % of the steps$")
_TRAINING = re.compile(rf"(.+), (exact|{'|'.join(KERNELS)})$")
_HIGHEST = 5        # relative errors above are useless, and of no use to see
_LENGTH = re.compile(r"(linear|exact) block, length (\d+)$")


def draw(rows: Sequence[Row], folder: Path) -> None:
    """One picture a part, and one a task in training; a part that was left out has none."""
    for plot in (error_plot, recovery_plot, training_plots, length_plot):
        plot(rows, folder)


def error_plot(rows: Sequence[Row], folder: Path) -> None:
    """Relative error against the number of features, one panel a source: ``error.png``."""
    found = [((*row.name.split(", ", 1), m[1]), row) for row in rows
             if (m := _ERROR.match(row.metric))]
    sources = list(dict.fromkeys(groups[0] for groups, _ in found))
    if not found:
        return
    figure, panels = _panels(len(sources))
    for axis, source in zip(panels, sources):
        for way in dict.fromkeys(groups[1] for groups, _ in found):
            _line(axis, [(int(g[2]), row) for g, row in found if g[:2] == (source, way)
                         and row.value <= _HIGHEST], way,
                  ls="--" if way.startswith("equal") else "-")      # it lies on another line
        axis.set(xscale="log", yscale="log", xlabel="random features m",
                 title=source.replace("block", "the model's block"))
        _plain_ticks(axis, sorted({int(g[2]) for g, _ in found}))
        axis.axhline(1, color="gray", ls="--", lw=0.8)
        axis.text(0.97, 0.97, _beyond([(g[1], int(g[2])) for g, row in found
                                       if g[0] == source and row.value > _HIGHEST]),
                  fontsize=8, ha="right", va="top", transform=axis.transAxes)
    panels[0].set_ylim(top=_HIGHEST)
    panels[0].set_ylabel(f"relative error, up to {_HIGHEST}")
    panels[-1].legend(frameon=False, fontsize=8, loc="lower left")
    replace_file(folder / "error.png", figure.savefig)


def _beyond(points: Sequence[tuple[str, int]]) -> str:
    """One line a way whose errors are not drawn. points: (way, number of features)."""
    found = {way: sorted(m for w, m in points if w == way) for way, _ in points}
    return "\n".join(f"{way}: above {_HIGHEST} at m = {m[0]}" + (f" … {m[-1]}" if m[1:] else "")
                     for way, m in found.items())


def recovery_plot(rows: Sequence[Row], folder: Path) -> None:
    """Accuracy after the exchange, and without one, against further training: ``exchange.png``."""
    found = [(m.groups(), row) for row in rows if (m := _RECOVERY.match(row.name))]
    if not found:
        return
    figure, (axis,) = _panels(1)
    for name in dict.fromkeys(groups[0] for groups, _ in found):
        points = [(int(g[1]), row) for g, row in found if g[0] == name]
        _line(axis, points, name, 100, **({} if "=" in name else {"color": "gray", "ls": "--"}))
    axis.set(xlabel="further training, % of the fine-tuning steps", ylabel="accuracy (%)",
             title="Attention exchanged in a fine-tuned model")
    axis.legend(frameon=False, fontsize=8)
    replace_file(folder / "exchange.png", figure.savefig)


def training_plots(rows: Sequence[Row], folder: Path) -> None:
    """Accuracy and time of each kernel, one picture a task: ``training-TASK.png``."""
    from matplotlib.figure import Figure
    found = [(m.groups(), row) for row in rows if row.metric in ("accuracy", "ms a step")
             and (m := _TRAINING.match(row.name))]
    for task in dict.fromkeys(groups[0] for groups, _ in found):
        kernels = list(dict.fromkeys(g[1] for g, _ in found if g[0] == task))
        figure = Figure(figsize=(8, 1.3 + 0.35 * len(kernels)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axis, metric, scale in zip(panels, ("accuracy", "ms a step"), (100, 1)):
            chosen = [row for g, row in found if g[0] == task and row.metric == metric]
            axis.barh(kernels, [scale * row.value for row in chosen], 0.6, capsize=3,
                      xerr=[scale * (np.nan if row.std is None else row.std) for row in chosen])
            axis.set_xlabel("accuracy, % of dev" if scale == 100 else metric)
        panels[0].invert_yaxis()
        figure.suptitle(f"Same start, {task}")
        replace_file(folder / f"training-{task.replace(' ', '-')}.png", figure.savefig)


def length_plot(rows: Sequence[Row], folder: Path) -> None:
    """Time of a block against length, with the article's estimate: ``length.png``."""
    found = [(m.groups(), row) for row in rows if (m := _LENGTH.match(row.name))]
    if not found:
        return
    figure, (axis,) = _panels(1)
    for way in ("exact", "linear"):
        _line(axis, [(int(g[1]), row) for g, row in found if g[0] == way], way)
    axis.axvline(5000, color="tab:red", ls=":", label="article's estimate, 5000")
    axis.set(xscale="log", yscale="log", xlabel="length", ylabel="ms, forward-backward",
             title="A block of hidden size 256, 256 features")
    _plain_ticks(axis, sorted({int(g[1]) for g, _ in found} | {5000}))
    axis.legend(frameon=False)
    replace_file(folder / "length.png", figure.savefig)


def _panels(count: int):
    from matplotlib.figure import Figure
    figure = Figure(figsize=(max(5.6, 3.1 * count), 3.8), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, sharey=True)[0]


def _line(axis, points, label: str, scale: float = 1, **style) -> None:
    points = sorted(points, key=lambda point: point[0])
    deviations = [scale * min(row.std or 0, 0.9 * row.value) for _, row in points]
    axis.errorbar([x for x, _ in points], [scale * row.value for _, row in points], deviations,
                  marker="o", ms=4, capsize=3, label=label, **style)
    axis.grid(alpha=0.3)


def _plain_ticks(axis, values) -> None:
    from matplotlib.ticker import NullLocator
    shown = values if len(values) < 7 else values[::2]
    axis.set_xticks(shown, [str(value) for value in shown])
    axis.xaxis.set_minor_locator(NullLocator())

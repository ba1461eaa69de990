"""The studies as pictures. Labels are English: matplotlib ships no Chinese font."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert_theseus.results import replace_file

_COLUMNS = 4


def _figure(panels: int, width: float = 3.2, height: float = 2.7, columns: int = _COLUMNS):
    from matplotlib.figure import Figure
    columns = min(columns, panels)
    lines = -(-panels // columns)
    figure = Figure(figsize=(width * columns, height * lines), layout="constrained", dpi=80)
    axes = np.atleast_1d(figure.subplots(lines, columns)).ravel()
    for unused in axes[panels:]:
        unused.set_visible(False)
    return figure, axes[:panels]


def _band(axes, x, values, label: str, color: str, style: str = "-") -> None:
    """Mean over the seeds and one standard deviation around it. values: [moments, seeds]."""
    mean, std = np.mean(values, 1), np.std(values, 1)
    axes.plot(x, mean, style, color=color, label=label)
    axes.fill_between(x, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)


def training_plot(training: dict, path: str | Path, title: str) -> None:
    """One panel a method: estimate and exact distance on batches and on large sets, by step."""
    figure, panels = _figure(len(training), height=2.5)
    for axes, (name, result) in zip(panels, training.items()):
        steps = [r["step"] for r in result["records"]]
        series = (("exact", "exact W, batch", "tab:blue", "-"),
                  ("large exact", "exact W, large sets", "tab:green", "-"),
                  ("estimate", "critic's estimate, batch", "tab:red", "--"))
        for key, label, color, style in series:
            _band(axes, steps, [r[key] for r in result["records"]], label, color, style)
        axes.axhline(0, color="gray", linewidth=0.5)
        nats = " (estimate: nats)" if name.startswith("gan") else ""
        axes.set_title(name + nats, fontsize=9)
        axes.set_xlabel("generator step", fontsize=8)
        axes.tick_params(labelsize=8)
    for axes in panels[::_COLUMNS]:
        axes.set_ylabel("in units of the data", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    replace_file(path, figure.savefig)


def quality_plot(training: dict, path: str | Path, title: str) -> None:
    """Estimation error against 1-NN accuracy at the end: one point a method and seed."""
    from bert_theseus.wgan.statements import final, mean_error
    figure, (axes,) = _figure(1, 7.5, 4.5)
    names = [name for name in training if not name.startswith("gan")]
    for number, name in enumerate(names):
        axes.scatter(mean_error(training[name]), final(training[name], "1-NN accuracy"), s=22,
                     label=name, marker="os^Dv*P"[number % 7])
    axes.axhline(0.5, color="gray", linewidth=0.7)
    axes.set_xscale("log")
    axes.set_xlabel("estimation error |estimate / exact − 1| in training")
    axes.set_ylabel("1-NN accuracy of samples (0.5 is best)")
    axes.set_title(title)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    replace_file(path, figure.savefig)


def static_plot(records: Sequence[dict], path: str | Path) -> None:
    """Estimate / exact over dimension and over sample size, one line a method."""
    lines = _static_lines(records)
    figure, panels = _figure(len(lines), 5.5, 4.2)
    for axes, (label, part) in zip(panels, lines.items()):
        x = [record["dimension" if label == "dimension" else "count"] for record in part]
        for number, method in enumerate(part[0]["estimates"]):
            _band(axes, x, [np.divide(r["estimates"][method], r["exact"]) for r in part], method,
                  f"C{number}", "o-")
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(value) for value in x])
        fixed = "count" if label == "dimension" else "dimension"
        axes.set_xlabel(f"{label} ({fixed} {part[0][fixed]})")
        axes.set_ylabel("estimate / exact W of the same samples")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.suptitle("Critics trained to the end between two fixed sets")
    replace_file(path, figure.savefig)


def _static_lines(records: Sequence[dict]) -> dict[str, list[dict]]:
    """Records that differ in dimension only, and those that differ in sample count only."""
    counts = [record["count"] for record in records]
    dimensions = [record["dimension"] for record in records]
    count, dimension = (max(set(values), key=values.count) for values in (counts, dimensions))
    lines = {"dimension": [r for r in records if r["count"] == count],
             "sample count": [r for r in records if r["dimension"] == dimension]}
    lines = {label: sorted(part, key=lambda r: (r["dimension"], r["count"]))
             for label, part in lines.items()}
    return {label: part for label, part in lines.items() if len(part) > 1} or \
        {"dimension": list(records)}


def batch_plot(effects: dict[str, list[dict]], path: str | Path) -> None:
    """W(batch, batch) over W(batch, target), by batch size, one panel a data set."""
    figure, panels = _figure(len(effects), 3.4, 2.9, columns=3)
    for axes, (label, sizes) in zip(panels, effects.items()):
        x = [e["batch_size"] for e in sizes]
        for target, color in (("mean", "tab:blue"), ("k-means", "tab:orange"),
                              ("k-median", "tab:green")):
            _band(axes, x, [np.divide(e["batch"], e[target]) for e in sizes], target, color, "o-")
        axes.axhline(1, color="black", linewidth=0.8)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(value) for value in x])
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("batch size", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, [f"W(batch, batch) / W(batch, {label})" for label in labels],
                  loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle("Above 1: two real batches are farther apart than a batch and the target")
    replace_file(path, figure.savefig)


def points_plot(real, samples: dict[str, np.ndarray], path: str | Path, title: str) -> None:
    """Generated points (red) on real ones (gray), one panel a method, first run."""
    figure, panels = _figure(len(samples), 2.6, 2.6)
    for axes, (name, runs) in zip(panels, samples.items()):
        axes.scatter(*np.asarray(real).T, s=2, color="lightgray")
        axes.scatter(*np.asarray(runs[0]).T, s=6, color="tab:red")
        axes.set_title(name, fontsize=9)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlim(-3, 3)
        axes.set_ylim(-3, 3)
    figure.suptitle(title)
    replace_file(path, figure.savefig)


def images_plot(samples: dict[str, np.ndarray], shape: Sequence[int], path: str | Path,
                title: str, side: int = 6) -> None:
    """side × side images for every entry, first run. shape: [height, width(, channels)]."""
    figure, panels = _figure(len(samples), 2.5, 2.7)
    for axes, (name, runs) in zip(panels, samples.items()):
        axes.imshow(_grid(np.asarray(runs[0]), shape, side), cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(name, fontsize=9)
        axes.axis("off")
    figure.suptitle(title)
    replace_file(path, figure.savefig)


def _grid(images: np.ndarray, shape: Sequence[int], side: int) -> np.ndarray:
    images = images[:side * side].reshape(-1, *shape)
    blank = np.zeros((side * side - len(images), *shape), images.dtype)
    images = np.concatenate([images, blank]).clip(0, 1)
    images = np.pad(images, [(0, 0), (1, 1), (1, 1)] + [(0, 0)] * (len(shape) - 2))
    rows = [np.concatenate(images[i * side:(i + 1) * side], 1) for i in range(side)]
    grid = np.concatenate(rows, 0)
    return grid[..., 0] if grid.ndim == 3 and grid.shape[-1] == 1 else grid

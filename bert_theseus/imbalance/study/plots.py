"""The pictures: pull over p, balanced accuracy over imbalance, head against tail."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from bert_theseus import imbalance as im
from bert_theseus.results import replace_file

SHOWN = {"cross-entropy": "black", "class weights": "tab:blue", "focal": "tab:orange",
         "hard truncated": "tab:brown", "smooth F1": "tab:pink", "F1-weighted": "tab:red",
         "margin (LDAM)": "tab:purple", "logit adjusted": "tab:green",
         "cross-entropy, adjusted post hoc": "tab:cyan"}

IN_THIRDS = ("cross-entropy", "focal", "class weights", "F1-weighted", "logit adjusted",
             "logit adjusted, rule overall")


def gradient_curves(points: int = 200) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Loss → (of a positive at p, of a negative at p): the pull of one binary logit to its label.

    That is −d loss / d logit for y = 1, d loss / d logit for y = 0; below 0 a loss pulls to the
    wrong side. The prior of the positive is 0.1, F~ is held at 0.3; by automatic differentiation.
    """
    p = np.linspace(0.002, 0.998, points)
    x = tf.constant(np.log(p / (1 - p))[:, None])
    f1 = {kind: kind("full", **more) for kind, more in (
        (im.F1WeightedCrossentropy, {"reduction": "none"}), (im.SmoothF1Loss, {}))}
    for loss in f1.values():
        loss.statistic.set([0.3 * 0.5], [1.0])
    each = {"reduction": "none"}
    losses = {"cross-entropy": im.WeightedCrossentropy(**each),
              "class weights 1 : 9": im.WeightedCrossentropy([0.2, 1.8], **each),
              "F1-weighted, F=0.3": f1[im.F1WeightedCrossentropy],
              "margin 1 on y = 1": im.MarginCrossentropy([0.0, 1.0], **each),
              "logit adjusted": im.LogitAdjustedCrossentropy([0.9, 0.1], **each),
              "smooth accuracy": im.SmoothAccuracyLoss(**each),
              "smooth F1, F=0.3": f1[im.SmoothF1Loss],
              "hard truncated": im.HardTruncatedCrossentropy(**each),
              "soft truncated, k=3": im.SoftTruncatedCrossentropy(3.0, **each),
              "focal, gamma=2": im.FocalCrossentropy(2.0, **each),
              "dice": im.DiceLoss(**each),
              "dice, self-adjusting": im.DiceLoss(1.0, **each)}
    return {name: tuple(_slope(loss, x, y) for y in (1.0, 0.0)) for name, loss in losses.items()}


def _slope(loss, x, y):
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(tf.fill(x.shape, tf.cast(y, x.dtype)), x)
    gradient = tape.gradient(value, x).numpy()[:, 0]
    return (1 - 2 * y) * gradient * (1 if value.shape.rank else len(x))     # of one example


def plot_gradients(path) -> None:
    """The pull to the label over p, weights in the left column, modified losses in the right."""
    from matplotlib.figure import Figure
    curves = gradient_curves()
    p = np.linspace(0.002, 0.998, len(next(iter(curves.values()))[0]))
    outside = list(curves)[:5]
    figure = Figure(figsize=(9.5, 6.2), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    colours = dict(zip(curves, ("black", "tab:blue", "tab:red", "tab:purple", "tab:green",
                                "tab:gray", "tab:cyan", "tab:brown", "tab:olive", "tab:orange",
                                "tab:pink", "tab:purple")))
    for column, names in enumerate((outside, ["cross-entropy", *list(curves)[5:]])):
        for row, kind in enumerate(("positives (y = 1, rare)", "negatives (y = 0)")):
            axis = axes[row, column]
            for name in names:
                axis.plot(p, curves[name][row], label=name, color=colours[name],
                          linewidth=2 if name == "cross-entropy" else 1.4)
            axis.set_title(kind, fontsize=10)
            axis.set_ylabel("pull to the label")
            axis.axhline(0, color="black", linewidth=0.5)
            axis.grid(alpha=0.3)
        axes[1, column].set_xlabel("p, predicted probability of y = 1")
        axes[0, column].legend(fontsize=8, frameon=False)
    figure.suptitle("What weights (left) and modified losses (right) do to the gradient",
                    fontsize=11)
    _save(figure, path, dpi=90)


def plot_over_imbalance(results: dict, path, measure: str = "balanced accuracy") -> None:
    """measure over imbalance, one panel a task; results: task → imbalance → chosen()."""
    from matplotlib.figure import Figure
    columns = min(3, len(results))
    lines = -(-len(results) // columns)
    figure = Figure(figsize=(max(3.2 * columns, 7), 1 + 2.9 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    axes = grid.ravel()
    for unused in axes[len(results):]:
        unused.set_visible(False)
    for axis, (task, groups) in zip(axes, results.items()):
        ratios = sorted(groups)
        for i, (family, colour) in enumerate(SHOWN.items()):
            if all(family in groups[r] for r in ratios):
                values = np.array([groups[r][family]["test"][measure] for r in ratios])
                spread = values.std(1, ddof=1) if values.shape[1] > 1 else None
                axis.errorbar(np.array(ratios) * 1.025 ** (i - 4), 100 * values.mean(1),
                              None if spread is None else 100 * spread, color=colour, label=family,
                              marker="o", markersize=3, linewidth=1.3, capsize=2)
        axis.set_xscale("log")
        axis.set_xticks(ratios, [f"{r:g}" for r in ratios])
        axis.set_xlim(ratios[0] / 1.4, ratios[-1] * 1.4)
        axis.minorticks_off()
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("imbalance")
        axis.grid(alpha=0.3)
    for axis in grid[:, 0]:
        axis.set_ylabel(f"{measure} (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    _save(figure, path, dpi=90)


def plot_thirds(groups: dict, folder, task: str) -> None:
    """thirds_TASK.png: which third of the classes is predicted, at the imbalance nearest to 100.

    groups: imbalance → chosen(). Two classes have no thirds: no picture.
    """
    from matplotlib.figure import Figure
    ratio = min(groups, key=lambda r: abs(np.log(r / 100)))
    found = {f: groups[ratio][f]["thirds"] for f in IN_THIRDS if f in groups[ratio]}
    if not np.isfinite(list(found.values())).all():
        return
    names = ("head", "middle", "tail")
    figure = Figure(figsize=(2.3 * len(found), 3.1), layout="constrained")
    for axis, (loss, table) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items()):
        axis.imshow(100 * np.array(table), cmap="Blues", vmin=0, vmax=100)
        for i, j in np.ndindex(3, 3):
            share = 100 * table[i][j]
            axis.text(j, i, f"{share:.0f}", ha="center", va="center",
                      color="white" if share > 55 else "black")
        axis.set_xticks(range(3), names)
        axis.set_yticks(range(3), names)
        axis.set_title(loss.replace(", ", ",\n"), fontsize=9)
        axis.set_xlabel("predicted")
    figure.axes[0].set_ylabel("true")
    figure.suptitle(f"{task} 1:{ratio:g}, share of true classes (rows) predicted (%)", fontsize=10)
    _save(figure, Path(folder) / f"thirds_{task.replace(', ', '_').replace(' ', '_')}.png", dpi=90)


def _save(figure, path, dpi):
    replace_file(path, lambda beside: figure.savefig(beside, dpi=dpi))

"""Pictures of a path kernel; every function writes one PNG."""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from bert_theseus.path_kernel.result import PathKernel
from bert_theseus.results import replace_file


def plot_reconstruction(results: Mapping[str, PathKernel], path: str | os.PathLike) -> None:
    """Reconstructed against true change of the outputs, one panel a quadrature rule."""
    figure, panels = _panels(len(results), 3.4, 3.4)
    for axes, (name, result) in zip(panels, results.items()):
        true = (result.output - result.initial).ravel()
        axes.axline((0, 0), slope=1, color="lightgray", zorder=0)
        axes.scatter(true, (result.reconstruction - result.initial).ravel(), s=5, alpha=0.5)
        axes.set(title=f"{name}: largest residual {result.max_residual:.2g}",
                 xlabel="true output − initial output")
        axes.title.set_fontsize(10)
    panels[0].set_ylabel("sum of the contributions")
    replace_file(path, figure.savefig)


def plot_alpha(result: PathKernel, query: int, path: str | os.PathLike, n: int = 6) -> None:
    """α of a query's top examples over training (from the snapshots of a fit with
    kernel="mean"), and their contributions."""
    output = int(result.output[query].argmax())
    top = [c.index for c in result.top_examples(query, n, output)]
    steps = [step for step, *_ in result.snapshots]
    contributions = np.array([c[query, top, output] for _, c, _ in result.snapshots])
    kernel = np.array([k[query, top] for *_, k in result.snapshots])
    alpha = np.divide(contributions, kernel, where=kernel != 0, out=np.zeros_like(kernel))
    figure, (left, right) = _panels(2, 4.2, 3.4)
    for axes, values, title in ((left, alpha, "α so far (K-weighted mean of −∂l/∂f)"),
                                (right, contributions, "contribution so far")):
        for i, column in zip(top, values.T):
            axes.plot(steps, column, marker=".", label=f"example {i}")
        axes.axhline(0, color="lightgray", zorder=0)
        axes.set(title=f"{title}, query {query}, output {output}", xlabel="step")
        axes.title.set_fontsize(9)
    right.legend(fontsize=7, frameon=False)
    replace_file(path, figure.savefig)


def plot_top_pictures(result: PathKernel, queries: Sequence[int], query_images: np.ndarray,
                      images: np.ndarray, labels: np.ndarray, path: str | os.PathLike,
                      n: int = 4) -> None:
    """A row a query: its picture, the examples for and against its predicted class."""
    figure, panels = _panels(1 + 2 * n, 0.95, 1.25, rows=len(queries))
    for row, query in zip(np.reshape(panels, [len(queries), -1]), queries):
        output = int(result.output[query].argmax())
        sides = [result.top_examples(query, n, output, side) for side in ("for", "against")]
        _picture(row[0], query_images[query], f"query\n→ {output}", "black")
        for axes, (i, value), color in zip(
                row[1:], sides[0] + sides[1],
                ["tab:blue"] * len(sides[0]) + ["tab:red"] * len(sides[1])):
            _picture(axes, images[i], f"label {labels[i]}\n{value:+.2f}", color)
        for axes in row[1 + len(sides[0]) + len(sides[1]):]:
            axes.set_axis_off()
    replace_file(path, figure.savefig)


def plot_kernels(kernels: Mapping[str, np.ndarray], labels: np.ndarray,
                 path: str | os.PathLike) -> None:
    """Kernels [examples, examples] side by side, examples sorted by label, one scale.

    Few colours, since the picture of hundreds of examples is nearly noise to the PNG's compression.
    """
    from matplotlib import colormaps
    order = np.argsort(labels, kind="stable")
    edges = np.flatnonzero(np.diff(labels[order])) + 0.5
    names, counts = np.unique(labels, return_counts=True)
    middles = counts.cumsum() - (counts + 1) / 2
    figure, panels = _panels(len(kernels), 3.3, 3.4)
    normal = {name: kernel / np.sqrt(np.outer(np.diagonal(kernel), np.diagonal(kernel)))
              for name, kernel in kernels.items()}
    lowest = min(kernel.min() for kernel in normal.values())
    for axes, (name, kernel) in zip(panels, normal.items()):
        image = axes.imshow(kernel[np.ix_(order, order)], vmin=lowest, vmax=1,
                            cmap=colormaps["magma"].resampled(12), interpolation="nearest")
        for edge in edges:
            axes.axhline(edge, color="white", lw=0.3)
            axes.axvline(edge, color="white", lw=0.3)
        axes.set(title=name, xlabel="training examples by label")
        axes.set_xticks(middles, names, fontsize=9)
        axes.set_yticks(middles, names, fontsize=9)
        axes.tick_params(length=0)
    figure.colorbar(image, ax=list(panels), label="K / √(K(x,x) K(x',x'))", shrink=0.8)
    replace_file(path, lambda beside: figure.savefig(beside, dpi=72))


def plot_steps(rates: Sequence[float], residuals: Mapping[str, Sequence[float]],
               path: str | os.PathLike) -> dict[str, float]:
    """Residual over learning rate, log–log; returns the slope of each rule."""
    figure, (axes,) = _panels(1, 5.0, 3.8)
    slopes = {}
    for name, values in residuals.items():
        slopes[name] = float(np.polyfit(np.log(rates), np.log(values), 1)[0])
        axes.loglog(rates, values, marker="o", label=f"{name}: slope {slopes[name]:.2f}")
    axes.set(xlabel="learning rate (rate × steps fixed)", ylabel="norm of the residual",
             title="The kernel machine is exact as the step goes to 0")
    axes.set_xticks(rates, [f"{rate:.3g}" for rate in rates])
    axes.set_xticks([], minor=True)
    axes.legend(frameon=False)
    replace_file(path, figure.savefig)
    return slopes


def _picture(axes, image, title, color):
    axes.imshow(image, cmap="gray_r")
    axes.set_title(title, fontsize=7, color=color)
    axes.set_xticks([])
    axes.set_yticks([])


def _panels(columns, width, height, rows=1):
    from matplotlib.figure import Figure
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()

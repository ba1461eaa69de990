"""The curves of a pre-training run."""

from collections.abc import Sequence
from pathlib import Path

from bert_theseus.results import replace_file


def plot_curves(metrics: Sequence[dict], path: str | Path, causal_steps: int = 0) -> None:
    """Draws loss and masked accuracy over the steps, training and held-out, into a PNG.

    metrics: as :class:`~bert_theseus.wobert.pretraining.Pretrainer` keeps them; causal_steps:
    the left-to-right steps at the beginning, drawn dotted, since their loss is another.

    >>> plot_curves([{"step": 1, "loss": 2.0, "accuracy": 0.1}], "curves.png")
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "accuracy"),
                                ("cross-entropy", "accuracy")):
        for part, style, label in (
                ([m for m in metrics if m["step"] <= causal_steps], ":", "next token (warm-up)"),
                ([m for m in metrics if m["step"] > causal_steps], "-", "masked, training")):
            if part:
                axes.plot([m["step"] for m in part], [m[key] for m in part], style,
                          color="tab:blue", label=label)
        seen = [m for m in metrics if f"unseen_{key}" in m and m["step"] > causal_steps]
        if seen:
            axes.plot([m["step"] for m in seen], [m[f"unseen_{key}"] for m in seen], "o-",
                      color="tab:orange", markersize=3, label="masked, held-out text")
        axes.set_xlabel("step")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    replace_file(path, figure.savefig)

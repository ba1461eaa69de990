"""The article's statements, each put to a measurement on one training problem.

    statement                                             measured as
    f_T = f_0 + Σ_i ∫ a K dt, exact as the rate → 0       slope of the residual over the rate
    stochastic gradients: the path is noisy, rest stands  residual with mini-batches
    α depends weakly on x                                 contributions explained by K ᾱ
    SGD ≈ SVM                                             labels of an SVM on the path kernel
    gradient products find the explaining examples        deletion of the top examples
    incremental learning: add terms                       residual of two fits joined
    (a reader) two data sets' kernels add up              deviation of training on both

Verdicts come from the numbers by the thresholds of :func:`verdict`.

>>> verdict(0.99, holds=0.95, approximately=0.7)
'holds'
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.path_kernel import fixed, plots
from bert_theseus.path_kernel.data import length, take
from bert_theseus.path_kernel.machine import PathKernelMachine
from bert_theseus.path_kernel.optimizers import SGD, Adam
from bert_theseus.path_kernel.result import PathKernel
from bert_theseus.path_kernel.studies import additivity, deletion_test
from bert_theseus.path_kernel.tangent import tangent_kernel
from bert_theseus.path_kernel.titles import argument_table
from bert_theseus.results import Row, replace_file

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@dataclass
class Problem:
    """A model with data, for one seed.

    x, y: training examples; queries, answers: held-out ones; rate, steps: of full-batch SGD.
    pictures: (height, width) if the inputs are pictures: the kernel is then studied as a whole.
    texts: (text, label) of the training examples and the queries, if the inputs are texts.
    """

    name: str
    model: keras.Model
    x: Any
    y: np.ndarray
    queries: Any
    answers: np.ndarray
    rate: float
    steps: int
    pictures: tuple[int, int] | None = None
    texts: list[tuple[str, str]] | None = None
    start: list[np.ndarray] = field(init=False)
    machine: PathKernelMachine = field(init=False)
    summed: PathKernelMachine = field(init=False)

    def __post_init__(self):
        self.start, self.machine = self.model.get_weights(), PathKernelMachine(self.model, LOGITS)
        self.summed = PathKernelMachine(self.model, LOGITS, reduction="sum")

    def sharing(self, other: "Problem") -> "Problem":
        """This problem on the model of another seed's, which is compiled already."""
        self.model, self.machine, self.summed = other.model, other.machine, other.summed
        return self

    def fit(self, queries=None, optimizer=None, epochs: int | None = None,
            batch_size: int | None = None, **options) -> PathKernel:
        """A fit from the same initial weights."""
        self.model.set_weights(self.start)
        return self.machine.fit(
            self.x, self.y, self.queries if queries is None else queries,
            optimizer or SGD(self.rate), epochs or self.steps, batch_size, **options)


@dataclass
class Report:
    """Rows (one value a seed), claims and further tables of a script."""

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

    def mean(self, name: str) -> float:
        """Mean of the row of that name."""
        return next(row.value for row in self.rows if row.name == name)


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


def share(result: PathKernel) -> float:
    """Largest residual as a share of the largest change of an output."""
    return result.max_residual / float(np.abs(result.output - result.initial).max())


def measure(problem: Problem, seed: int, folder: Path | None, top: int = 3) -> dict:
    """All numbers of one seed; plots and tables of ``top`` examples if there is a ``folder``."""
    (numbers, kept), slopes, tables = reconstructions(problem), None, {}
    if folder:
        plots.plot_reconstruction({k: kept[k] for k in ("left", "simpson", "Adam")},
                                  folder / f"{problem.name}_reconstruction.png")
    if problem.texts:
        held, labels = problem.texts[len(problem.y):][:3], {label for _, label in problem.texts}
        tables[problem.name] = argument_table(kept["simpson"], held, problem.texts, sorted(labels),
                                              top)
    if problem.pictures:
        more, result, kernels = as_fixed_kernel(problem)
        numbers.update(more)
        numbers.update(leaving_out(problem, 10, 3, seed))
        numbers.update(two_sets(problem))
        if folder:
            _draw(problem, result, kernels, folder, top)
            slopes = step_sizes(problem, folder / f"{problem.name}_step_size.png")
    return {"numbers": numbers, "slopes": slopes, "tables": tables}


def _draw(problem, result, kernels, folder, top):
    """α over training, top examples as pictures, the kernel at start, path and end."""
    n, picture = len(problem.x), lambda x: x.reshape(-1, *problem.pictures)
    plots.plot_alpha(result, n, folder / f"{problem.name}_alpha.png")
    plots.plot_top_pictures(
        result, range(n, n + 4), picture(_joined(problem.x, problem.queries)),
        picture(problem.x), problem.y, folder / f"{problem.name}_top_examples.png", top)
    plots.plot_kernels({k: v[:n] for k, v in kernels.items()}, problem.y,
                       folder / f"{problem.name}_kernels.png")


def reconstructions(problem: Problem, few: int = 20) -> tuple[dict, dict[str, PathKernel]]:
    """Residual / change of a few queries for rules and optimizers."""
    rows = slice(0, few)
    queries, measured, kept = take(problem.queries, rows), {}, {}
    for rule in ("left", "midpoint", "simpson"):
        kept[rule] = problem.fit(queries, quadrature=rule)
        measured[f"residual / change | full batch, {rule}"] = share(kept[rule])
    epochs = max(1, problem.steps // 10)
    batch = -(-length(problem.x) // 10)
    for name, optimizer in (("mini-batches", SGD(problem.rate)),
                            ("momentum 0.9", SGD(problem.rate / 10, 0.9)),
                            ("momentum and l2", SGD(problem.rate / 10, 0.9, l2=1e-3)),
                            ("Adam", Adam(3e-3))):
        result = problem.fit(queries, optimizer=optimizer, epochs=epochs, batch_size=batch,
                             quadrature="simpson")
        measured[f"residual / change | {name}, simpson"] = share(result)
        kept[name] = result
    noisy = problem.fit(queries, epochs=epochs, batch_size=batch)
    measured["residual / change | mini-batches, left"] = share(noisy)
    measured["examples | carry 90 % of a query"] = float(kept["simpson"].support().mean())
    return measured, kept


def step_sizes(problem: Problem, path: Path, few: int = 20) -> dict[str, float]:
    """Slope of the residual over the learning rate, steps × rate fixed; plots it.

    The network is rebuilt in float64: Simpson's residual is below float32's rounding.
    """
    model = keras.models.clone_model(problem.model, clone_function=_in_float64)
    model.set_weights(problem.start)
    machine, queries = PathKernelMachine(model, LOGITS), take(problem.queries, slice(0, few))
    steps = np.array([1, 2, 4]) * max(5, problem.steps // 8)
    rates, residuals = 0.5 * problem.rate * steps[0] / steps, {}
    for rule in ("left", "midpoint", "simpson"):
        residuals[rule] = []
        for rate, count in zip(rates, steps):
            model.set_weights(problem.start)
            result = machine.fit(problem.x, problem.y, queries, SGD(float(rate)), int(count), None,
                                 quadrature=rule)
            residuals[rule].append(float(np.linalg.norm(result.residual)))
    return plots.plot_steps(rates, residuals, path)


def _in_float64(layer):
    return type(layer).from_config({**layer.get_config(), "dtype": "float64"})


def as_fixed_kernel(problem: Problem) -> tuple[dict, PathKernel, dict[str, np.ndarray]]:
    """"SGD ≈ SVM": the network beside machines on its path kernel, on held-out queries.

    Returns (numbers, the fit with the training examples and the queries as queries, kernels).
    """
    n = length(problem.x)
    everything = _joined(problem.x, problem.queries)
    problem.model.set_weights(problem.start)
    kernels = {"start": tangent_kernel(problem.model, everything, problem.x, True).mean(-1)}
    result = problem.fit(everything, kernel="mean", snapshots=20)
    kernels["path"] = result.kernel
    kernels["end"] = tangent_kernel(problem.model, everything, problem.x, True).mean(-1)
    network, train, held = result.output.argmax(1), slice(0, n), slice(n, None)
    alpha = fixed.fixed_alpha(result, train)
    own = fixed.fixed_outputs(result, alpha, held).argmax(1)
    measured = {"accuracy | network": np.mean(network[held] == problem.answers),
                "accuracy | path kernel, α without x": np.mean(own == problem.answers),
                "agreement | path kernel, α without x": np.mean(own == network[held])}
    for name, kernel in {**kernels, "RBF": _rbf(everything, problem.x)}.items():
        labels, support = fixed.support_vector_machine(kernel[train], problem.y, kernel[held], 10.0)
        measured[f"accuracy | SVM, {name} kernel"] = np.mean(labels == problem.answers)
        measured[f"agreement | SVM, {name} kernel"] = np.mean(labels == network[held])
        if name == "path":
            measured["examples | support vectors, path kernel"] = float(len(support))
    measured["explained | contributions by α without x"] = fixed.explained(result, alpha, held)
    measured["spread / size | α over x, median"] = fixed.alpha_spread(result)
    return {key: float(value) for key, value in measured.items()}, result, kernels


def _joined(a, b):
    return np.concatenate([a, b])


def _rbf(a, b):
    """exp(−γ |a − b|²), γ as scikit-learn's "scale"."""
    from sklearn.metrics.pairwise import rbf_kernel
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return rbf_kernel(a, b, gamma=1 / (b.shape[1] * b.var()))


def leaving_out(problem: Problem, n: int, few: int, seed: int) -> dict[str, float]:
    """Deletion test on a few queries."""
    test = deletion_test(problem.machine, problem.start, problem.x, problem.y,
                         take(problem.queries, slice(0, few)), n, seed=seed,
                         optimizer=SGD(problem.rate), epochs=problem.steps, batch_size=None)
    return {f"output | change without {n} top examples": float(np.abs(test.top).mean()),
            f"output | change without {n} random ones": float(np.abs(test.random).mean()),
            "ratio | top over random": test.ratio,
            "ratio | guessed over real change": float(test.predicted.mean() / test.top.mean())}


def two_sets(problem: Problem, few: int = 20) -> dict[str, float]:
    """Two halves trained apart beside both, and one after the other as one machine."""
    n, queries = length(problem.x), take(problem.queries, slice(0, few))
    machine = problem.summed
    options = {"optimizer": SGD(problem.rate / n), "epochs": problem.steps, "batch_size": None}
    apart = additivity(machine, problem.start, problem.x, problem.y, queries, n // 2, **options)
    problem.model.set_weights(problem.start)
    fits = [machine.fit(take(problem.x, half), problem.y[half], queries, quadrature="simpson",
                        **options) for half in (slice(0, n // 2), slice(n // 2, None))]
    return {"deviation | kernels of two halves, added": apart.deviation,
            "error / change | outputs of two halves, added": apart.sum_error,
            "residual / change | second half after the first, terms joined":
                share(fits[0].then(fits[1]))}


def claims(report: Report, name: str, slopes: Mapping[str, float] | None) -> None:
    """The article's statements with verdicts, from the means over the seeds."""
    mean = lambda what: report.mean(f"{name}: {what}")  # noqa: E731
    if slopes:
        report.claim("f_T is the kernel sum, exactly as the rate → 0",
                     verdict(-abs(slopes["left"] - 1), -0.15, -0.4),
                     ", ".join(f"{rule}: residual ∝ rate^{s:.2f}" for rule, s in slopes.items()))
    left, simpson = mean("full batch, left"), mean("full batch, simpson")
    report.claim(f"the sum at the real, finite rate ({name})", verdict(left, 0.01, 0.2),
                 f"residual {left:.1%} of the change (left point), {simpson:.1e} (Simpson)")
    noisy, exact = mean("mini-batches, left"), mean("mini-batches, simpson")
    report.claim(f"SGD: the path is noisy, the rest stands ({name})", verdict(exact, 1e-3, 0.1),
                 f"mini-batches: {noisy:.1%} (left point), {exact:.1e} (Simpson)")
    if not slopes:
        return
    kept = mean("contributions by α without x")
    report.claim("α depends weakly on x", verdict(kept, 0.95, 0.7),
                 f"one α for all x explains {kept:.1%} of held-out contributions; median spread of "
                 f"α over x {mean('α over x, median'):.0%} of its size")
    agree = next(row.value for row in report.rows if row.metric == "agreement"
                 and row.name == f"{name}: SVM, path kernel")
    report.claim("SGD ≈ SVM", verdict(agree, 0.98, 0.85),
                 f"an SVM on the path kernel gives the network's label for {agree:.1%}")
    ratio, guessed = mean("top over random"), mean("guessed over real change")
    report.claim("gradient products find the explaining examples", verdict(ratio, 2.0, 1.2),
                 f"leaving them out changes the output {ratio:.1f}× as much as random ones; the "
                 f"contributions alone would say {guessed:.1f}× the real change")
    joined = mean("second half after the first, terms joined")
    report.claim("incremental learning adds terms", verdict(joined, 1e-3, 0.1),
                 f"residual of the joined sum {joined:.1e} of the change")
    added = mean("kernels of two halves, added")
    report.claim("(a reader) two data sets' kernels add up", verdict(added, 0.01, 0.1),
                 f"contributions off by {added:.0%}, outputs by "
                 f"{mean('outputs of two halves, added'):.0%} of the change")

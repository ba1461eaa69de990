"""Measurements on one training problem: a model with data, fitted in every way the room knows.

    what                                                  measured as
    f_T = f_0 + Σ_i ∫ a K dt, exact as the rate → 0       slope of the residual over the rate
    stochastic gradients, momentum, decay, Adam           residual beside the change
    α depends weakly on x                                 contributions explained by K ᾱ
    K is a matrix for vector outputs                      its part that is no multiple of 1
    SGD ≈ SVM                                             labels of an SVM on the path kernel
    gradient products find the explaining examples        training without the top examples
    incremental learning: add terms                       residual of two fits joined
    two data sets' kernels add up                         deviation of training on both

``statements`` turns the numbers into verdicts.
"""

from collections.abc import Callable, Sequence
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
from bert_theseus.path_kernel.report import Finished, Report
from bert_theseus.path_kernel.result import PathKernel
from bert_theseus.path_kernel.statements import add_statements
from bert_theseus.path_kernel.studies import additivity, deletion_test
from bert_theseus.path_kernel.tangent import tangent_kernel
from bert_theseus.path_kernel.titles import argument_table

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FEW = 10
"""Queries of the measurements that need many fits."""


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
        if len(self.y) < 50 or len(self.answers) < FEW:
            raise InputError(f"{len(self.y)} training examples and {len(self.answers)} queries",
                             self.name, f"give at least 50, and leave {FEW} queries")
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


def share(result: PathKernel) -> float:
    """Largest residual as a share of the largest change of an output."""
    return result.max_residual / float(np.abs(result.output - result.initial).max())


def study(name: str, make: Callable[[int], Problem], seeds: Sequence[int], folder: Path,
          report: Report, finished: Finished, top: int = 3) -> None:
    """All measurements of ``make(seed)`` into the report, plots of the first seed into the folder.

    The model of the first seed, which is compiled, serves the others with their own weights.
    """
    made: list[Problem] = []

    def one(seed):
        """All numbers of one seed, see :func:`measure`."""
        problem = make(seed)
        made.append(problem.sharing(made[0]) if made else problem)
        return measure(made[-1], seed, folder if seed == seeds[0] else None, top)
    parts = [finished(f"{name}, seed {seed}", lambda seed=seed: one(seed)) for seed in seeds]
    report.add(name, [part["numbers"] for part in parts], seeds)
    report.tables.update(parts[0]["tables"])
    add_statements(report, name, parts[0]["slopes"])


def measure(problem: Problem, seed: int, folder: Path | None, top: int = 3) -> dict:
    """All numbers of one seed; plots if there is a ``folder``."""
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
        numbers.update({**more, **matrix_share(problem), **leaving_out(problem, 5, seed),
                        **two_sets(problem)})
        if folder:
            _draw(problem, result, kernels, folder, top)
            slopes = step_sizes(problem, folder / f"{problem.name}_step_size.png")
    return {"numbers": numbers, "slopes": slopes, "tables": tables}


def _draw(problem, result, kernels, folder, top):
    """α over training, top examples as pictures, the kernel at start, path and end."""
    n, picture = len(problem.x), lambda x: x.reshape(-1, *problem.pictures)
    plots.plot_alpha(result, n, folder / f"{problem.name}_alpha.png")
    plots.plot_top_pictures(
        result, range(n, n + 4), picture(np.concatenate([problem.x, problem.queries])),
        picture(problem.x), problem.y, folder / f"{problem.name}_top_examples.png", top)
    plots.plot_kernels({k: v[:n] for k, v in kernels.items()}, problem.y,
                       folder / f"{problem.name}_kernels.png")


def reconstructions(problem: Problem) -> tuple[dict, dict[str, PathKernel]]:
    """Residual / change of a few queries for rules and optimizers, and the network's accuracy."""
    queries, measured, kept = take(problem.queries, slice(0, FEW)), {}, {}
    for rule in ("left", "midpoint", "simpson"):
        kept[rule] = problem.fit(queries, quadrature=rule)
        measured[f"residual / change | full batch, {rule}"] = share(kept[rule])
    right = problem.model.predict(problem.queries, verbose=0).argmax(1) == problem.answers
    measured["accuracy | network"] = float(np.mean(right))
    epochs, batch = max(1, problem.steps // 10), -(-length(problem.x) // 10)
    for name, optimizer in (("mini-batches", SGD(problem.rate)),
                            ("momentum 0.9", SGD(problem.rate / 10, 0.9)),
                            ("momentum and l2", SGD(problem.rate / 10, 0.9, l2=1e-3)),
                            ("Adam", Adam(3e-3))):
        kept[name] = problem.fit(queries, optimizer, epochs, batch, quadrature="simpson")
        measured[f"residual / change | {name}, simpson"] = share(kept[name])
    measured["residual / change | mini-batches, left"] = share(
        problem.fit(queries, epochs=epochs, batch_size=batch))
    measured["examples | carry 90 % of a query"] = float(kept["simpson"].support().mean())
    return measured, kept


def step_sizes(problem: Problem, path: Path) -> dict[str, float]:
    """Slope of the residual over the learning rate, steps × rate fixed; plots it.

    The network is rebuilt in float64: Simpson's residual is below float32's rounding.
    """
    model = keras.models.clone_model(problem.model, clone_function=_in_float64)
    model.set_weights(problem.start)
    machine, queries = PathKernelMachine(model, LOGITS), take(problem.queries, slice(0, FEW))
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
    everything = np.concatenate([problem.x, problem.queries])
    problem.model.set_weights(problem.start)
    kernels = {"start": tangent_kernel(problem.model, everything, problem.x, True).mean(-1)}
    result = problem.fit(everything, kernel="mean", snapshots=20)
    kernels["path"] = result.kernel
    kernels["end"] = tangent_kernel(problem.model, everything, problem.x, True).mean(-1)
    train, held = slice(0, n), slice(n, None)
    alpha = fixed.fixed_alpha(result, train)
    labels = {"path kernel, α(x) of the article": result.reconstruction[held].argmax(1),
              "path kernel, one α for all x": fixed.fixed_outputs(result, alpha, held).argmax(1)}
    measured = {}
    for name, kernel in {**kernels, "RBF": _rbf(everything, problem.x)}.items():
        labels[f"SVM, {name} kernel"], support = fixed.support_vector_machine(
            kernel[train], problem.y, kernel[held], 10.0)
        if name == "path":
            measured["examples | support vectors, path kernel"] = len(support)
    network = result.output[held].argmax(1)
    for name, found in labels.items():
        measured[f"accuracy | {name}"] = np.mean(found == problem.answers)
        measured[f"agreement | {name}"] = np.mean(found == network)
    sums = result.contributions[held].sum(1)
    measured["explained | contributions by one α for all x"] = fixed.explained(result, alpha, held)
    measured["spread / size | α over x, median"] = fixed.alpha_spread(result)
    measured["spread / spread | β over x, beside the sum"] = (
        result.beta[held].std(0).mean() / sums.std(0).mean())
    return {key: float(value) for key, value in measured.items()}, result, kernels


def _rbf(a, b):
    """exp(−γ |a − b|²), γ as scikit-learn's "scale"."""
    from sklearn.metrics.pairwise import rbf_kernel
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    return rbf_kernel(a, b, gamma=1 / (b.shape[1] * b.var()))


def matrix_share(problem: Problem) -> dict[str, float]:
    """How much of the D × D tangent kernel at the start is no multiple of the unit matrix."""
    problem.model.set_weights(problem.start)
    kernel = tangent_kernel(problem.model, problem.queries[:FEW], problem.x)
    outputs = kernel.shape[-1]
    multiple = np.trace(kernel, axis1=2, axis2=3)[..., None, None] / outputs * np.eye(outputs)
    return {"share | of K's norm that is no multiple of the unit matrix":
            float(np.linalg.norm(kernel - multiple) / np.linalg.norm(kernel))}


def leaving_out(problem: Problem, n: int, seed: int, few: int = 4, draws: int = 5
                ) -> dict[str, float]:
    """Deletion test on a few queries."""
    test = deletion_test(problem.machine, problem.start, problem.x, problem.y,
                         take(problem.queries, slice(0, few)), n, draws, seed=seed,
                         optimizer=SGD(problem.rate), epochs=problem.steps, batch_size=None)
    random = np.abs(test.random).mean(0)                                      # [draws]
    return {f"output | change without {n} top examples": float(np.abs(test.top).mean()),
            f"output | change without {n} random ones": float(random.mean()),
            f"output | its deviation over {draws} draws": float(random.std(ddof=1)),
            f"output | change without {n} random ones of the same labels":
                float(np.abs(test.alike).mean()),
            "ratio | top over random": test.ratio,
            "ratio | top over random of the same labels": test.strict_ratio,
            "share | of draws in which top changes more than random": test.ahead,
            "ratio | guessed over real change": float(test.predicted.mean() / test.top.mean())}


def two_sets(problem: Problem) -> dict[str, float]:
    """Two halves trained apart beside both, and one after the other as one machine."""
    n, queries = length(problem.x), take(problem.queries, slice(0, FEW))
    options = {"optimizer": SGD(problem.rate / n), "epochs": problem.steps, "batch_size": None}
    apart = additivity(problem.summed, problem.start, problem.x, problem.y, queries, n // 2,
                       **options)
    problem.model.set_weights(problem.start)
    fits = [problem.summed.fit(take(problem.x, half), problem.y[half], queries,
                               quadrature="simpson", **options)
            for half in (slice(0, n // 2), slice(n // 2, None))]
    return {"deviation | kernels of two halves, added": apart.deviation,
            "error / change | outputs of two halves, added": apart.sum_error,
            "residual / change | second half after the first, terms joined":
                share(fits[0].then(fits[1]))}

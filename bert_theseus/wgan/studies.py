"""The article's claims as measurements: one function a study, resumable method by method.

Every study returns a :class:`Study`: rows for ``results.json``, tables as text, verdicts on the
statements and the raw records. What one method took minutes for is kept in a file of its own
under ``parts/``; with ``resume`` a part of the same settings is read instead of computed, and
since every part depends on its settings alone the result is that of an uninterrupted run.
"""

import csv
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bert_theseus.results import Row, replace_file
from bert_theseus.wgan import centers, statements
from bert_theseus.wgan.data import World, digits, shifted_gaussians
from bert_theseus.wgan.methods import get_method
from bert_theseus.wgan.static import STATIC_METHODS, static_estimates
from bert_theseus.wgan.training import train

log = logging.getLogger(__name__)


@dataclass
class Study:
    """What a study found. ``records`` goes into results.json as it is."""

    rows: list[Row] = field(default_factory=list)
    verdicts: list[statements.Verdict] = field(default_factory=list)
    records: dict = field(default_factory=dict)
    samples: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, other: "Study") -> "Study":
        """Takes over what another study found."""
        self.rows += other.rows
        self.verdicts += other.verdicts
        self.records.update(other.records)
        self.samples.update(other.samples)
        return self


@dataclass(frozen=True)
class Parts:
    """Finished parts of a run, on disk. ``resume``: use those of the same settings."""

    folder: Path
    resume: bool = False

    def get(self, name: str, settings: dict, compute: Callable[[], dict]) -> dict:
        """The part ``name`` (a dict of JSON values, "samples" an array), computed or read."""
        path = self.folder / "parts" / f"{name}.json"
        settings = json.loads(json.dumps(settings))
        if self.resume and path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("settings") == settings:
                return {**stored, **({"samples": np.asarray(stored["samples"], "float32")}
                                     if "samples" in stored else {})}
        part = compute()
        text = json.dumps({**part, "settings": settings}, default=lambda array: array.tolist())
        replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))
        return part


def training_study(world: World, methods: Sequence[str], seeds: Sequence[int], steps: int,
                   learning_rate: float, parts: Parts, batch_size: int = 64,
                   penalty_weight: float = 10.) -> Study:
    """Statements 1, 2, 3, 6: every method trained in one world with the truth beside it.

    penalty_weight: of the penalties centred at 1 (two- and one-sided).
    """
    results, settings = {}, {"world": world.name, "seeds": list(seeds), "steps": steps,
                             "learning_rate": learning_rate, "batch_size": batch_size}
    for number, name in enumerate(methods, 1):
        log.info("%s: %s (%d of %d)", world.name, name, number, len(methods))
        method = get_method(name)
        if method.constraint in ("gradient", "one_sided"):
            method = get_method(name, weight=penalty_weight)
        results[name] = parts.get(
            f"training-{name}", {**settings, "weight": method.weight},
            lambda method=method: train(world, method, seeds, steps, batch_size=batch_size,
                                        learning_rate=learning_rate))
    study = Study(samples={name: result["samples"] for name, result in results.items()})
    study.records = {"training": {name: {"records": result["records"], "end": result["end"]}
                                  for name, result in results.items()}}
    for name, result in results.items():
        study.rows += training_rows(name, result, seeds)
    if {"gradient_penalty", "c_transform", "gan"} <= set(results) and len(seeds) > 1:
        study.verdicts = statements.training_verdicts(results)
    return study


def training_rows(name: str, result: dict, seeds: Sequence[int]) -> list[Row]:
    """The end of a run as rows: every measure, and the estimate over the exact distance."""
    last, rows = result["records"][-1], []
    if get_method(name).objective != "gan":
        rows.append(Row(name, "estimate / exact, batch",
                        np.divide(last["estimate"], last["exact"]), seeds=seeds))
        rows.append(Row(name, "estimate / exact, large sets",
                        np.divide(last["large estimate"], last["large exact"]), seeds=seeds))
        rows.append(Row(name, "estimation error in training", statements.mean_error(result),
                        seeds=seeds))
    for end in ("before", "after") if result["end"] else ():
        rows.append(Row(name, f"estimate / exact, generator frozen, {end} the critic's end",
                        np.divide(result["end"][end], result["end"]["exact"]), seeds=seeds))
    return rows + [Row(name, metric, values, seeds=seeds) for metric, values in last.items()
                   if metric not in ("step", "estimate", "large estimate")]


def static_study(sizes: Sequence[tuple[int, int]], seeds: Sequence[int], parts: Parts,
                 methods: Sequence[str] = STATIC_METHODS, steps: int = 600) -> Study:
    """Statement 1 between fixed sets, over (dimension, count): estimate / exact W_1."""
    records = []
    for dimension, count in sizes:
        log.info("fixed sets: dimension %d, %d samples", dimension, count)
        settings = {"seeds": list(seeds), "methods": list(methods), "steps": steps}
        records.append(parts.get(f"static-{dimension}-{count}", settings, lambda: static_estimates(
            dimension, count, seeds, methods, steps)))
    study = Study(records={"static": records})
    for record in records:
        where = f"d={record['dimension']} n={record['count']}"
        study.rows.append(Row("exact W of the samples / of the distributions", where,
                              np.divide(record["exact"], record["population"]), seeds=seeds))
        for kind, what in (("estimates", "estimate / exact"), ("certified", "certified / exact")):
            study.rows += [Row(f"{method}, {what}", where, np.divide(values, record["exact"]),
                               seeds=seeds) for method, values in record[kind].items()]
    if len(seeds) > 1:
        study.verdicts = [statements.static_verdict(records)]
    return study


def batch_study(dimensions: Sequence[int], batch_sizes: Sequence[int], seeds: Sequence[int],
                parts: Parts, with_digits: bool = True) -> Study:
    """Statement 4, over dimension and batch size: Gaussians, and the digits."""
    sets = {f"Gaussian d={d}": shifted_gaussians(d, 2000)[0] for d in dimensions}
    if with_digits:
        sets["digits 8×8"] = digits()[0]
    study = Study(records={"batch_effect": {}})
    settings = {"seeds": list(seeds), "batch_sizes": list(batch_sizes)}
    for number, (label, data) in enumerate(sets.items()):
        log.info("batch effect: %s", label)
        effects = parts.get(f"batch-{number}", {**settings, "data": label}, lambda data=data: {
            "sizes": centers.batch_effect(data, batch_sizes, seeds)})["sizes"]
        study.records["batch_effect"][label] = effects
        study.rows += [Row(f"{label}, batch {e['batch_size']}", f"W(batch, batch) / W(batch, {t})",
                           np.divide(e["batch"], e[t]), seeds=seeds)
                       for e in effects for t in ("mean", "k-means", "k-median")]
        if len(seeds) > 1:
            study.verdicts += statements.batch_verdicts(effects, label)
    return study


def centers_study(world: World, samples: dict[str, np.ndarray], seeds: Sequence[int],
                  k: int = 64) -> Study:
    """Statement 5: samples of every method beside k-means centres; k is the batch size."""
    middle = centers.k_means(world.train, k)
    held_out = centers.distance_to_centers(world.held_out, middle)
    distances = {name: [centers.distance_to_centers(run, middle) for run in runs]
                 for name, runs in samples.items()}
    study = Study(samples={"k-means centres": middle[None],
                           "k-median centres": centers.k_medians(world.train, k)[None]})
    study.rows = [Row(name, "distance to the nearest k-means centre / real data's",
                      np.divide(values, held_out), seeds=seeds)
                  for name, values in distances.items()]
    if {"c_transform", "gradient_penalty"} <= set(samples) and len(seeds) > 1:
        study.verdicts = [statements.center_verdict(distances, held_out)]
    return study


def pixel_study() -> Study:
    """Statement 5, on the digits: a one-pixel shift against the nearest other digit."""
    images, labels = digits()
    share = centers.shift_beats_class(images.reshape(-1, 8, 8), labels)
    return Study([Row("one-pixel shift farther than the nearest other digit", "share", [share])],
                 [statements.pixel_verdict(share, len(images))])


def write_steps(training: dict, path: Path) -> None:
    """Every record of every method and seed, one line a number, as CSV."""
    def write(beside):
        with open(beside, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("method", "step", "run", "name", "value"))
            writer.writerows((method, record["step"], i, name, value)
                             for method, result in training.items() for record in result["records"]
                             for name, values in record.items() if name != "step"
                             for i, value in enumerate(values))
    replace_file(path, write)

"""From groups to what is kept: saved groups, rows of results.json, tables."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.imbalance.study.measures import MEASURES, paired_test, verdict
from bert_theseus.imbalance.study.runs import chosen
from bert_theseus.published import format_table
from bert_theseus.results import Row, replace_file

ARRAYS = ("dev", "test", "thirds")
TABLE = ("accuracy", "balanced accuracy", "macro F1", "worst recall", "calibration error")


def kept_group(path: Path, settings: dict, resume: bool, make: Callable[[], dict]) -> dict:
    """The group at ``path`` if it is to be resumed and there, else ``make()``, saved there.

    Raises InputError where the saved group was made with other settings.
    """
    if resume and path.exists():
        with np.load(path) as saved:
            record = json.loads(str(saved["record"]))
            arrays = {name: saved[name] for name in ARRAYS}
        if record.pop("settings") != settings:
            raise InputError("the saved group was made with other settings", str(path),
                             "repeat them, or leave --resume out")
        return {**record, **arrays}
    group = make()
    record = json.dumps({**{k: v for k, v in group.items() if k not in ARRAYS},
                         "settings": settings})
    replace_file(path, lambda beside: np.savez_compressed(
        beside, record=record, **{name: group[name] for name in ARRAYS}))
    return group


def kept_features(path: Path, settings: dict, resume: bool, make: Callable[[], dict]) -> dict:
    """The features at ``path`` if they are to be resumed and there, else ``make()``, saved there.

    Features made with other settings are made anew.
    """
    key = json.dumps(settings)
    if resume and path.exists():
        with np.load(path) as saved:
            if str(saved["settings"]) == key:
                return {split: saved[split] for split in saved.files if split != "settings"}
    features = make()
    replace_file(path, lambda beside: np.savez(beside, settings=key, **features))
    return features


def rows_of(name: str, found: dict, seeds) -> list[Row]:
    """A row for each loss and measure of a group; found: family → what :func:`chosen` gave."""
    return [Row(f"{name}, {family}", measure, values["test"][measure], seeds=seeds)
            for family, values in found.items() for measure in MEASURES
            if np.isfinite(values["test"][measure]).all()]


def against_cross_entropy(found: dict, measures=("accuracy", "balanced accuracy", "macro F1")):
    """family → measure → paired test against cross-entropy with its verdict."""
    base = found["cross-entropy"]["test"]
    tests = {family: {m: paired_test(values["test"][m], base[m]) for m in measures}
             for family, values in found.items() if family != "cross-entropy"}
    return {family: {m: {**t, "verdict": verdict(t)} for m, t in each.items()}
            for family, each in tests.items()}


def group_table(found: dict, markdown: bool = False) -> str:
    """Losses by measures, mean ± deviation in %, and whether balanced accuracy gained."""
    tests = against_cross_entropy(found)
    cells = [("loss", "setting", "steps", *TABLE, "balanced accuracy against cross-entropy")]
    for family, values in found.items():
        cells.append((family, values["setting"] or "–", values["steps"],
                      *(mean_and_deviation(values["test"][m]) for m in TABLE),
                      _against(tests.get(family))))
    return format_table(cells, markdown)


def mean_and_deviation(values) -> str:
    """In %, e.g. 51.2 ± 0.8; without deviation for a single value."""
    text = f"{100 * np.mean(values):.1f}"
    return text + (f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def _against(tests) -> str:
    if tests is None:
        return "–"
    test = tests["balanced accuracy"]
    p = "" if test["p"] is None else f", p = {test['p']:.2g}"
    return f"{100 * test['difference']:+.1f}{p}: {test['verdict']}"


def claims_table(judged, markdown: bool = False) -> str:
    """Article, statement, verdict and the votes behind it."""
    cells = [("article", "statement", "verdict", "groups", "behind it")]
    for claim in judged:
        behind = ", ".join(f"{key} {claim[key]}" for key in (
            "significantly above", "significantly below", "within margin", "needs more steps")
            if key in claim)
        cells.append((claim["article"], claim["statement"], claim["verdict"], claim["groups"],
                      behind))
    return format_table(cells, markdown)


def tables_of(groups: dict, criterion: str = "balanced accuracy") -> dict:
    """name → family → chosen by ``criterion``, for groups that have that measure."""
    which = MEASURES.index(criterion)
    return {name: chosen(group, criterion) for name, group in groups.items()
            if np.isfinite(group["test"][..., which]).all()}

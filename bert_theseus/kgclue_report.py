"""Evaluation of a decoder on questions, and what a run leaves: table, plots, predictions."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bert_theseus.kgclue import (Calibration, Question, calibration_error, coverage_accuracy,
                                 kgclue_metric, normalize, triple, write_leaderboard)
from bert_theseus.published import Published, bar_plot, measured_row, table, wide_table
from bert_theseus.results import Row, replace_file, write_results
from bert_theseus.seq2seq import ConstrainedDecoder

NAME = "Seq2Seq + prefix tree"


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What was best on dev, and the calibration fitted to it there: how questions are answered
    from then on. Kept as ``calibration.json`` in the output folder.

    >>> Chosen(rule="none").but(beam=5).beam
    5
    """

    rule: str = "look-ahead"
    beam: int = 3
    seed: int = 1
    calibration: Calibration = Calibration()

    @classmethod
    def read(cls, folder: Path) -> "Chosen":
        """What ``write`` left in the folder; the article's setting where nothing was evaluated."""
        path = folder / "calibration.json"
        if not path.is_file():
            return cls()
        record = json.loads(path.read_text())
        return cls(**record | {"calibration": Calibration(**record["calibration"])})

    def write(self, folder: Path) -> None:
        """Leaves it in the folder, for ``read``."""
        text = json.dumps(dataclasses.asdict(self))
        replace_file(folder / "calibration.json", lambda beside: beside.write_text(text))

    def but(self, **wanted) -> "Chosen":
        """With another rule, beam or seed; the calibration holds for none but its own."""
        other = dataclasses.replace(self, **wanted)
        return other if other == self else dataclasses.replace(other, calibration=Calibration())


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a decoder made of a set of questions.

    metric: see ``kgclue_metric``. triples: first answers. probabilities, right: [questions] of
    the first answer's object. seconds: of searching.
    """

    metric: dict[str, float]
    triples: list[tuple[str, str, str]]
    probabilities: np.ndarray
    right: np.ndarray
    seconds: float

    @classmethod
    def run(cls, decoder: ConstrainedDecoder, questions: Sequence[Question],
            progress: bool = False) -> "Evaluation":
        """Answers all questions and compares the first answers."""
        decoder.answer([questions[0].text])  # traces the model, which is not to be timed
        answers, step, start = [], 8 * decoder.batch_size, time.perf_counter()
        for first in tqdm(range(0, len(questions), step), f"{decoder.rule}, beam "
                          f"{decoder.beam_size}", disable=not progress):
            answers += decoder.answer([q.text for q in questions[first:first + step]])
        seconds = time.perf_counter() - start
        triples = [triple(found) for found in answers]
        probabilities = np.array([found[0].probability if found else 0.0 for found in answers])
        right = np.array([normalize(one[2]) == normalize(q.object)
                          for one, q in zip(triples, questions)])
        expected = [(q.subject, q.predicate, q.object) for q in questions]
        return cls(kgclue_metric(triples, expected), triples, probabilities, right, seconds)

    @classmethod
    def kept(cls, path: Path, identity: Sequence, resume: bool,
             run: Callable[[], "Evaluation"]) -> "Evaluation":
        """What ``run`` returns, kept in ``path``; with ``resume`` what is kept there already, if
        it was made of the same: identity, any values that say of what."""
        identity = hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()
        if resume and path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.pop("identity") == identity:
                arrays = {name: np.array(record[name]) for name in ("probabilities", "right")}
                return cls(**record | arrays)
        found = run()
        record = {name: value.tolist() if isinstance(value, np.ndarray) else value
                  for name, value in vars(found).items()}
        text = json.dumps({"identity": identity, **record}, ensure_ascii=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))
        return found


def report(folder: Path, settings: dict, found: dict, sets: dict, abstain: float,
           start: float, numbers: Sequence[Published] = ()) -> str:
    """Writes results.json, plots, predictions, calibration; returns the table as text.

    found: (set, rule, beam, seed) → Evaluation. sets: set → its questions. numbers: what was
    published for these sets.
    """
    results = _rows(found, numbers)
    chosen = _best_setting(found)
    devs = _of(found, "dev", *chosen)
    calibrations = {s: Calibration.fit(e.probabilities, e.right) for s, e in devs.items()}
    tests = _of(found, "test", *chosen)
    confidence = _confidence_rows(tests, calibrations, abstain)
    seed = max(devs, key=lambda s: devs[s].metric["score"])
    Chosen(*chosen, seed, calibrations[seed]).write(folder)
    write_leaderboard(folder / "kgclue_predict.json", sets["test"], tests[seed].triples)
    write_results(folder, 8802, settings, results + confidence, time.time() - start,
                  chosen={"rule": chosen[0], "beam": chosen[1], "seed": seed})
    bar_plot([row for row in results if row.name.startswith("test")], folder / "score.png",
             "test, score by rule and beam", "score")
    _coverage_plot(tests, calibrations, folder / "coverage.png", chosen)
    return f"{wide_table(results)}\n\n{table(confidence)}"


def _settings(found: dict) -> list[tuple]:
    return list(dict.fromkeys(key[:3] for key in found))


def _of(found: dict, split: str, rule: str, beam: int) -> dict[int, Evaluation]:
    return {key[3]: e for key, e in found.items() if key[:3] == (split, rule, beam)}


def _best_setting(found: dict) -> tuple[str, int]:
    """Rule and beam with the best mean score on dev."""
    means = {(rule, beam): np.mean([e.metric["score"] for e in
                                    _of(found, "dev", rule, beam).values()])
             for split, rule, beam in _settings(found) if split == "dev"}
    return max(means, key=means.get)


def _rows(found: dict, numbers: Sequence[Published]) -> list[Row]:
    rows = []
    for split, rule, beam in _settings(found):
        own = _of(found, split, rule, beam)
        name = f"{split}, {rule}, beam {beam}"
        for metric in ("score", "EM-O", "F1-O", "EM-S", "EM-P"):
            row = measured_row(numbers, NAME, metric, [e.metric[metric] for e in own.values()],
                               list(own), split)
            fits = rule == "look-ahead" and beam == 3
            rows.append(dataclasses.replace(row, name=name) if fits else dataclasses.replace(
                row, name=name, published=None, source=None))
        rows.append(Row(name, "questions per second", [len(e.right) / e.seconds
                                                       for e in own.values()], seeds=list(own)))
    return rows


def _confidence_rows(tests: dict, calibrations: dict, abstain: float) -> list[Row]:
    seeds = list(tests)
    raw = [calibration_error(e.probabilities, e.right) for e in tests.values()]
    mended = [calibration_error(calibrations[s](e.probabilities), e.right)
              for s, e in tests.items()]
    rows = [Row("test, probability of the search", "calibration error", raw, seeds=seeds),
            Row("test, calibrated on dev", "calibration error", mended, seeds=seeds)]
    for share in (0.5, 0.8):
        kept = [e.right[np.argsort(-e.probabilities, kind="stable")[:round(share * len(e.right))]]
                for e in tests.values()]
        rows.append(Row(f"test, the surest {share:.0%} of the questions", "EM-O",
                        [float(right.mean()) for right in kept], seeds=seeds))
    if abstain:
        given = [calibrations[s](e.probabilities) >= abstain for s, e in tests.items()]
        right = [float(e.right[g].mean()) if g.any() else 0.0
                 for g, e in zip(given, tests.values())]
        rows += [Row(f"test, abstaining below {abstain}", "coverage",
                     [float(g.mean()) for g in given], seeds=seeds),
                 Row(f"test, abstaining below {abstain}", "EM-O of those answered", right,
                     seeds=seeds)]
    return rows


def _coverage_plot(tests: dict, calibrations: dict, path: Path, chosen: tuple) -> None:
    """Accuracy of the answers given against the share of questions answered, and reliability."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for seed, e in tests.items():
        share, accuracy = coverage_accuracy(e.probabilities, e.right)
        left.plot(100 * share[20:], 100 * accuracy[20:], label=f"seed {seed}")
        for values, style in ((e.probabilities, ":"), (calibrations[seed](e.probabilities), "-")):
            right.plot(*_reliability(values, e.right), style, marker=".", color=left.lines[-1].
                       get_color(), label=f"seed {seed}, " + ("search" if style == ":" else
                                                              "calibrated"))
    left.set(xlabel="questions answered (%)", ylabel="of these right (%)",
             title=f"test, {chosen[0]}, beam {chosen[1]}")
    right.plot([0, 1], [0, 1], color="lightgray", zorder=0)
    right.set(xlabel="probability", ylabel="share right", title="calibration")
    left.legend(frameon=False)
    right.legend(frameon=False, fontsize="x-small")
    replace_file(path, figure.savefig)


def _reliability(probabilities: np.ndarray, right: np.ndarray) -> tuple[list, list]:
    place = np.minimum((probabilities * 10).astype(int), 9)
    bins = [place == i for i in range(10) if (place == i).sum() >= 5]
    return [probabilities[b].mean() for b in bins], [right[b].mean() for b in bins]

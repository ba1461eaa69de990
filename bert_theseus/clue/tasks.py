"""The tasks of CLUE: which fields make the text, which labels there are, how it is scored."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bert_theseus.clue.files import find_file, find_folder, read_rows
from bert_theseus.clue.tagging import entities_of
from bert_theseus.errors import InputError

logger = logging.getLogger(__name__)


@dataclass
class Example:
    """One row: its text, a second text in pair tasks, its label, and the row itself.

    label: one of the task's labels; CLUENER's {type: {surface: [[start, end]]}} in tagging;
           None where the row has none (CLUE's own test files).
    id:    the row's ``id``, or its number from 0, as the leaderboard wants it.
    """

    text: str
    text2: str | None = None
    label: str | dict | None = None
    id: int = 0
    raw: dict = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Task:
    """A CLUE task, or own data in CLUE's layout.

    name, kind:   kind is "single", "pair" or "tagging".
    fields:       names of the row's fields that make the text (and the second text).
    labels:       in CLUE's order; a label's id is its position. Entity types in tagging.
    metric:       "accuracy" or "entity F1": the first key of what ``evaluate`` returns.
    descriptions: label → its name in CLUE's labels.json (under the field ``description_field``).
    folders:      names its folder may have.
    left_out:     labels whose rows are left out, with the count logged (OCNLI's "-").
    submission:   the file name that the leaderboard wants.
    texts:        row → (text, second text or None), where that is more than reading the fields.

    >>> get_task("ocnli").labels
    ('entailment', 'neutral', 'contradiction')
    >>> get_task("cluener").tags[:3], get_task("cluener").num_outputs
    (('O', 'B-address', 'I-address'), 21)
    """

    name: str
    kind: str
    fields: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str = "accuracy"
    descriptions: dict = field(default_factory=dict)
    description_field: str | None = None
    folders: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    submission: str | None = None
    texts: Callable[[dict], tuple[str, str | None]] | None = field(default=None, compare=False)

    @property
    def tags(self) -> tuple[str, ...]:
        """Tagging: O, then B- and I- of every entity type. Empty for the other kinds."""
        if self.kind != "tagging":
            return ()
        return ("O", *(mark + label for label in self.labels for mark in ("B-", "I-")))

    @property
    def num_outputs(self) -> int:
        """Units of the output layer: labels, or tags in tagging."""
        return len(self.tags) or len(self.labels)

    def label_id(self, label: str) -> int:
        """The id of a label; ValueError for one the task does not have."""
        return self.labels.index(label)

    def folder(self, data_dir: str | os.PathLike) -> Path:
        """The task's folder in ``data_dir``."""
        return find_folder(data_dir, (self.name, *self.folders))

    def load(self, data_dir: str | os.PathLike, split: str = "train",
             tolerant: bool = False) -> list[Example]:
        """The examples of a split, checked.

        split:    "train", "dev", "test", or the stem of another file in the task's folder.
        tolerant: faulty rows are left out, with their count and the first fault logged;
                  otherwise the first one raises.

        Labels are required in train and dev; in other splits all rows have one, or none has.
        Raises InputError with file and line.
        """
        stems = (split, "train.50k") if (self.name, split) == ("ocnli", "train") else (split,)
        return _load(self, find_file(self.folder(data_dir), stems),
                     split in ("train", "dev"), tolerant)


def _load(task: Task, path: Path, labelled: bool | None, tolerant: bool) -> list[Example]:
    labelled, examples, faults, left_out = labelled or None, [], [], 0
    for number, row in read_rows(path):
        if labelled is None:
            labelled = "label" in row
        try:
            example = _example(task, row, len(examples) + left_out, f"{path}:{number}", labelled)
        except InputError as error:
            if not tolerant:
                raise
            faults.append(error)
            continue
        if example.label in task.left_out:
            left_out += 1
        else:
            examples.append(example)
    _report(path, faults, left_out, task)
    if not examples:
        raise InputError("no usable row", str(path), "the file is empty or all its rows are faulty")
    return examples


def _report(path: Path, faults: list, left_out: int, task: Task) -> None:
    if left_out:
        logger.info("%s: %d rows with label %s left out", path, left_out,
                    " or ".join(map(repr, task.left_out)))
    if faults:
        logger.warning("%s: %d faulty rows left out, the first: %s", path, len(faults), faults[0])


def _example(task: Task, row: dict, number: int, where: str, labelled: bool) -> Example:
    for name in task.fields:
        if name not in row:
            raise InputError(f"no field {name!r}", where, f"the row has {', '.join(row) or 'none'}")
    text, text2 = _texts(task, row, where)
    for name, value in zip(task.fields, (text, text2) if task.kind == "pair" else (text,)):
        if not isinstance(value, str):
            raise InputError(f"field {name!r} is not a text", where)
        if not value.strip():
            raise InputError(f"field {name!r} is empty", where, "delete the row")
    label = _label(task, row, text, where) if labelled else None
    if not labelled and "label" in row:
        raise InputError("a label after rows without one", where, "label all rows or none")
    return Example(text, text2, label, row.get("id", number), row)


def _texts(task: Task, row: dict, where: str) -> tuple[str, str | None]:
    if task.texts is None:
        return row[task.fields[0]], row[task.fields[1]] if task.kind == "pair" else None
    try:
        return task.texts(row)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"fields {' and '.join(map(repr, task.fields))} are not as CLUE has them "
                         f"({type(error).__name__}: {error})", where) from None


def _label(task: Task, row: dict, text: str, where: str) -> str | dict:
    if "label" not in row:
        raise InputError("no field 'label'", where, f"the row has {', '.join(row)}")
    if task.kind == "tagging":
        return _check_entities(task, row["label"], text, where)
    label = row["label"]
    label = str(label).lower() if isinstance(label, bool) else str(label)
    if label not in task.labels and label not in task.left_out:
        raise InputError(f"unknown label {label!r}", where, f"{task.name} has {_some(task.labels)}")
    return label


def _check_entities(task: Task, label: object, text: str, where: str) -> dict:
    try:
        spans = entities_of(label)
        surfaces = [(surface, start, end) for places in label.values()
                    for surface, positions in places.items() for start, end in positions]
    except (AttributeError, TypeError, ValueError):
        raise InputError("'label' is not {type: {surface: [[start, end], …]}}", where) from None
    for kind, _, _ in spans:
        if kind not in task.labels:
            raise InputError(f"unknown entity type {kind!r}", where,
                             f"{task.name} has {_some(task.labels)}")
    for surface, start, end in surfaces:
        if not 0 <= start <= end < len(text) or text[start:end + 1] != surface:
            raise InputError(f"entity {surface!r} does not stand at [{start}, {end}]", where,
                             "positions count characters from 0, the end is inclusive")
    return label


def _some(labels: tuple[str, ...]) -> str:
    return ", ".join(labels) if len(labels) <= 20 else f"{labels[0]} … {labels[-1]}"


def _mark_spans(row: dict) -> tuple[str, None]:
    """CLUEWSC's text with the noun between underscores and the pronoun in brackets, as in CLUE's
    own baseline. ValueError where a span does not stand at its index."""
    text, target = row["text"], row["target"]
    marks = [(target["span1_index"], target["span1_text"], "_", "_"),
             (target["span2_index"], target["span2_text"], "[", "]")]
    inserts = []
    for start, surface, before, after in marks:
        if not surface or start < 0 or text[start:start + len(surface)] != surface:
            raise ValueError(f"{surface!r} does not stand at {start}")
        inserts += [(start + len(surface), 0, after), (start, 1, before)]
    for position, _, mark in sorted(inserts, reverse=True):
        text = text[:position] + mark + text[position:]
    return text, None


def _abstract_and_keywords(row: dict) -> tuple[str, str]:
    keywords = row["keyword"]
    return row["abst"], "；".join(keywords) if isinstance(keywords, list) else keywords


_TNEWS = {"100": "news_story", "101": "news_culture", "102": "news_entertainment",
          "103": "news_sports", "104": "news_finance", "106": "news_house", "107": "news_car",
          "108": "news_edu", "109": "news_tech", "110": "news_military", "112": "news_travel",
          "113": "news_world", "114": "news_stock", "115": "news_agriculture", "116": "news_game"}
_NLI = ("entailment", "neutral", "contradiction")
_PAIR = ("sentence1", "sentence2")

TASKS = {task.name: task for task in (
    Task("tnews", "single", ("sentence",), tuple(_TNEWS), descriptions=_TNEWS,
         description_field="label_desc", folders=("tnews_public",),
         submission="tnews11_predict.json"),
    Task("iflytek", "single", ("sentence",), tuple(map(str, range(119))),
         description_field="label_des", folders=("iflytek_public",),
         submission="iflytek_predict.json"),
    Task("afqmc", "pair", _PAIR, ("0", "1"), folders=("afqmc_public", "AFQMC"),
         submission="afqmc_predict.json"),
    Task("ocnli", "pair", _PAIR, _NLI, folders=("ocnli_public", "OCNLI"), left_out=("-",),
         submission="ocnli_50k_predict.json"),
    Task("cmnli", "pair", _PAIR, _NLI, folders=("cmnli_public", "CMNLI"), left_out=("-",),
         submission="cmnli_predict.json"),
    Task("csl", "pair", ("abst", "keyword"), ("0", "1"), folders=("csl_public", "CSL"),
         submission="csl_predict.json", texts=_abstract_and_keywords),
    Task("cluewsc", "single", ("text", "target"), ("true", "false"),
         folders=("cluewsc2020", "cluewsc2020_public", "cluewsc_public"),
         submission="cluewsc11_predict.json", texts=_mark_spans),
    Task("cluener", "tagging", ("text",), ("address", "book", "company", "game", "government",
                                           "movie", "name", "organization", "position", "scene"),
         metric="entity F1", folders=("cluener_public", "cluener2020"),
         submission="cluener_predict.json"),
)}


def get_task(name: str, data_dir: str | os.PathLike | None = None) -> Task:
    """The CLUE task of that name; with ``data_dir`` also own data in CLUE's layout.

    data_dir: if given, the task's labels are read from its ``labels.json`` where there is one
              (one ``{"label": …, "label_desc": …}`` a line). For a name CLUE does not have, the
              kind follows from the fields of the first row of train.json: ``sentence`` single,
              ``sentence1``/``sentence2`` pair, ``text`` with a dictionary as label tagging.

    Raises InputError for an unknown name, naming the choices.

    >>> get_task("tnews").label_id("116")
    14
    """
    if data_dir is None:
        if name not in TASKS:
            raise InputError(f"unknown task {name!r}", None, f"use one of {', '.join(TASKS)}, or "
                             "give the folder that holds your own data")
        return TASKS[name]
    folder = find_folder(data_dir, (name, *(TASKS[name].folders if name in TASKS else ())))
    task = TASKS.get(name) or _own_task(name, folder)
    return _with_labels_of(task, folder)


def _own_task(name: str, folder: Path) -> Task:
    path = find_file(folder, ("train",))
    number, row = next(read_rows(path), (1, {}))
    if "sentence1" in row and "sentence2" in row:
        return Task(name, "pair", _PAIR, ())
    if "sentence" in row:
        return Task(name, "single", ("sentence",), ())
    if "text" in row and isinstance(row.get("label"), dict):
        return Task(name, "tagging", ("text",), (), metric="entity F1")
    raise InputError("no text in the row", f"{path}:{number}",
                     "name it 'sentence', or 'sentence1' and 'sentence2', or 'text' for entities")


def _with_labels_of(task: Task, folder: Path) -> Task:
    if task.name not in TASKS or any(folder.glob("labels.json*")):
        path, labels = find_file(folder, ("labels",)), {}
        for number, row in read_rows(path):
            label, description = _label_row(row, f"{path}:{number}", labels)
            labels[label] = description
        known = sorted(labels, key=task.labels.index) if set(labels) == set(task.labels) else labels
        if len(labels) < (1 if task.kind == "tagging" else 2):
            raise InputError("fewer than two labels", str(path))
        return replace(task, labels=tuple(known), descriptions=dict(task.descriptions, **labels))
    return task


def _label_row(row: dict, where: str, seen: dict) -> tuple[str, str]:
    if "label" not in row:
        raise InputError("no field 'label'", where, f"the row has {', '.join(row) or 'none'}")
    label = str(row["label"])
    if label in seen:
        raise InputError(f"label {label!r} for the second time", where)
    return label, str(row.get("label_desc", row.get("label_des", label)))

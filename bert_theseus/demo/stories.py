"""A task that needs depth: a book is handed on from person to person; who has it in the end?

It is told in Chinese sentences, in CLUE's own files.

    赵有书，赵给钱，孙给李，钱给孙。        →  孙

A hand-over counts only if its giver has the book at that moment (``孙给李`` above does not), so
the answer is a chain

    holder(0) = first,   holder(i) = receiver(i) if giver(i) = holder(i − 1) else holder(i − 1)

in which ``MIN_LINKS`` to ``MAX_LINKS`` links count. Each link needs the result of the one before:
deeper models follow longer chains, which is what module replacing should keep.

>>> folder = demo_task("demo", seed=1, train=3, dev=1, test=1)
>>> from bert_theseus.clue import get_task
>>> task = get_task(TASK, folder)
>>> [(e.text, e.label) for e in task.load(folder, "dev")] == [
...     (text, follow(text)) for text in [task.load(folder, "dev")[0].text]]
True
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bert_theseus.results import replace_file

TASK = "relations"
"""The demo task's name: ``get_task(TASK, demo_task(folder))``."""
PEOPLE = "赵钱孙李"
LINES = 4
MIN_LINKS, MAX_LINKS = 1, 3
LAYERS, HIDDEN, HEADS = 6, 64, 4
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_story(random: np.random.Generator) -> tuple[str, str]:
    """A story and the one who has the book in the end.

    >>> text, holder = make_story(np.random.default_rng(0))
    >>> holder == follow(text)
    True
    """
    links = random.integers(MIN_LINKS, MAX_LINKS + 1)
    counting = set(random.permutation(LINES)[:links].tolist())
    holder = str(random.choice(list(PEOPLE)))
    lines = [f"{holder}有书"]
    for i in range(LINES):
        others = [person for person in PEOPLE if person != holder]
        giver = holder if i in counting else str(random.choice(others))
        receiver = str(random.choice([person for person in PEOPLE if person != giver]))
        lines.append(f"{giver}给{receiver}")
        holder = receiver if i in counting else holder
    return "，".join(lines) + "。", holder


def follow(text: str) -> str:
    """Who has the book at the end of a story, read sentence by sentence.

    >>> follow("赵有书，赵给钱，孙给李，钱给孙。")
    '孙'
    """
    first, *lines = text.rstrip("。").split("，")
    holder = first[0]
    for giver, _, receiver in lines:
        holder = receiver if giver == holder else holder
    return holder


def demo_task(folder: str | os.PathLike, seed: int = 0, train: int = 8000, dev: int = 1000,
              test: int = 1000) -> str:
    """Writes ``folder/relations/{train,dev,test,labels}.json`` and returns ``folder``.

    No story of dev or test is in train. The same seed and sizes give the same files to the byte.
    """
    random, seen, splits = np.random.default_rng(seed), set(), {}
    for split, size in (("test", test), ("dev", dev), ("train", train)):
        rows, held_out = splits.setdefault(split, []), frozenset(seen)
        while len(rows) < size:
            text, holder = make_story(random)
            if text not in held_out:
                rows.append((text, holder))
                seen.add(text)
    return write_task(folder, TASK, splits, PEOPLE)


def write_task(folder: str | os.PathLike, name: str, splits: dict[str, list[tuple[str, str]]],
               labels: Iterable[str]) -> str:
    """Writes (sentence, label) rows as ``folder/name/{split}.json`` and labels.json."""
    for split, rows in splits.items():
        _write(Path(folder) / name / f"{split}.json",
               [{"id": i, "sentence": text, "label": label}
                for i, (text, label) in enumerate(rows)])
    _write(Path(folder) / name / "labels.json", [{"label": label} for label in labels])
    return str(folder)


def _write(path: Path, rows: list[dict]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8", newline="\n"))


def demo_vocab() -> tuple[str, ...]:
    """Every token the demo task can hold, [PAD] first."""
    return (*SPECIAL, *PEOPLE, *"有书给，。")


def demo_config(num_layers: int = LAYERS) -> dict:
    """A ``bert_config.json`` for a model that learns the demo task within a minute."""
    return {"vocab_size": len(demo_vocab()), "hidden_size": HIDDEN,
            "num_hidden_layers": num_layers, "num_attention_heads": HEADS,
            "intermediate_size": 2 * HIDDEN, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 64,
            "type_vocab_size": 2}


def demo_bert(folder: str | os.PathLike, num_layers: int = LAYERS, seed: int = 0) -> str:
    """Writes a randomly initialised BERT for the demo task as a published folder; returns it."""
    from bert4keras.models import build_transformer_model

    from bert_theseus.backend import set_seed
    from bert_theseus.checkpoint import save_bert

    set_seed(seed)
    config = demo_config(num_layers)
    names = {"max_position_embeddings": "max_position", "type_vocab_size": "segment_vocab_size"}
    bert = build_transformer_model(return_keras_model=False,
                                   **{names.get(k, k): v for k, v in config.items()})
    return str(save_bert(bert, folder, demo_vocab(), config))

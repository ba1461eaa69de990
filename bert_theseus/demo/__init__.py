"""Data the project makes itself, and the small models it ships, so that everything runs offline.

``stories``: who has the book in the end? Needs depth, no knowledge; with random models of its own.
``kinds``:   which kind of thing does a word name? Needs what pre-training teaches.
"""

from pathlib import Path

from bert_theseus.demo.kinds import KINDS, WORDS, kinds_task
from bert_theseus.demo.stories import (PEOPLE, TASK, demo_bert, demo_config, demo_task, demo_vocab,
                                       follow, make_story)
from bert_theseus.errors import InputError

__all__ = ["KINDS", "PEOPLE", "TASK", "WORDS", "demo_bert", "demo_config", "demo_task",
           "demo_vocab", "follow", "kinds_task", "make_story", "shipped_model"]

SETTINGS = {"maxlen": 32, "learning_rate": 3e-4, "epochs": [5, 5, 3]}
"""What scripts/theseus.py sets when it runs on ``kinds``."""


def shipped_model(name: str) -> Path:
    """The folder of a model that comes with the package: ``tiny_zh``, ``tiny_wo``.

    Raises InputError naming those there are.

    >>> (shipped_model("tiny_zh") / "vocab.txt").is_file()
    True
    """
    assets = Path(__file__).parents[1] / "assets"
    folder = assets / name
    if not (folder / "bert_config.json").is_file():
        there = sorted(p.parent.name for p in assets.glob("*/bert_config.json"))
        raise InputError(f"no shipped model {name!r}", str(assets),
                         f"there is {', '.join(there) or 'none'}")
    return folder

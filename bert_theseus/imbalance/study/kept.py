"""What a run keeps for ``--resume``: finished groups, features, logits of finished trainings."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.results import replace_file

ARRAYS = ("dev", "test", "thirds")


def kept_group(path: Path, settings: dict, resume: bool, make: Callable[[], dict]) -> dict:
    """The group at ``path`` if it is to be resumed and there, else ``make()``, saved there.

    Raises InputError where the saved group was made with other settings.
    """
    if resume and path.exists():
        with np.load(path) as saved:
            record = json.loads(str(saved["record"]))
            arrays = {name: saved[name] for name in ARRAYS if name in saved.files}
        if record.pop("settings") != settings:
            raise InputError("the saved group was made with other settings", str(path),
                             "repeat them, or leave --resume out")
        return {**record, **arrays}
    group = make()
    record = json.dumps({**{k: v for k, v in group.items() if k not in ARRAYS},
                         "settings": settings})
    replace_file(path, lambda beside: np.savez_compressed(
        beside, record=record, **{n: group[n] for n in ARRAYS if n in group}))
    return group


def kept_arrays(path: Path, settings: dict, resume: bool, make: Callable[[], dict]) -> dict:
    """The arrays at ``path`` if they are to be resumed and there, else ``make()``, saved there.

    Arrays made with other settings are made anew.
    """
    key = json.dumps(settings, default=str)
    if resume and path.exists():
        with np.load(path) as saved:
            if str(saved["settings"]) == key:
                return {name: saved[name] for name in saved.files if name != "settings"}
    arrays = make()
    replace_file(path, lambda beside: np.savez(beside, settings=key, **arrays))
    return arrays

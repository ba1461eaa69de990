"""When a run is saved, where, and which settings it must be continued with."""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.results import replace_file
from bert_theseus.training.state import (load_arrays, load_weights, refuse_other_settings,
                                         remove_leftovers, save_weights)

SAVING_SHARE = 0.05
"""Without ``save_steps`` at most about this share of the time goes into saving."""


class SaveTimer:
    """Says after each step whether to save: every ``save_steps`` steps, or, where that is None,
    as soon as the time since the last save is 20 times what a save takes."""

    def __init__(self, save_steps: int | None = None):
        if save_steps is not None and save_steps < 1:
            raise InputError(f"save_steps {save_steps}", "save_steps", "use 1 or more, or None")
        self.save_steps, self.steps = save_steps, 0
        self.cost, self.last = 0.0, time.perf_counter()

    def due(self) -> bool:
        """Called once a step."""
        self.steps += 1
        if self.save_steps is not None:
            return self.steps % self.save_steps == 0
        return time.perf_counter() - self.last >= self.cost / SAVING_SHARE

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Measures what a save takes."""
        began = time.perf_counter()
        yield
        self.last = time.perf_counter()
        self.cost = self.last - began


class RunFolder:
    """The files of a run: ``state.npz`` while it goes on; ``weights.npz``, the best weights so
    far; ``history.json`` once it is finished."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.state = self.path / "state.npz"
        self.weights = self.path / "weights.npz"
        self.record = self.path / "history.json"

    def open(self, resume: bool, settings: dict, model) -> dict | None:
        """Makes the folder ready. A finished run to be resumed: sets the model's weights and
        returns its history. Raises InputError if the settings are others than the saved ones."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder ({error.strerror})", str(self.path)) from None
        remove_leftovers(self.path)
        if not resume:
            for file in (self.record, self.state, self.weights):
                file.unlink(missing_ok=True)
        elif self.record.is_file():
            return self._finished(settings, model)
        elif self.state.is_file():
            refuse_other_settings(load_arrays(self.state)[1]["settings"], settings, self.state)
        return None

    def _finished(self, settings: dict, model) -> dict:
        try:
            saved = json.loads(self.record.read_text(encoding="utf-8"))
            saved_settings, history = saved["settings"], saved["history"]
        except (ValueError, KeyError):
            raise InputError("not a run's record", str(self.record),
                             "delete it to start anew") from None
        refuse_other_settings(saved_settings, settings, self.record)
        load_weights(model, self.weights)
        return history

    def save_weights(self, model, record: dict) -> None:
        """Keeps the model's weights, with what was measured of them."""
        save_weights(model, self.weights, record)

    def finish(self, model, settings: dict, history: dict) -> None:
        """Gives the model the kept weights, writes the record, deletes the state."""
        load_weights(model, self.weights)
        text = json.dumps({"settings": settings, "history": history}, ensure_ascii=False, indent=1)
        replace_file(self.record, lambda beside: beside.write_text(text + "\n", encoding="utf-8"))
        self.state.unlink(missing_ok=True)


def run_settings(model, batches, epochs: int, seed: int, **more) -> dict:
    """What must be the same for a run to go on: model shapes, optimizer, data, epochs, seed."""
    shapes = [list(w.shape) for w in model.weights]
    trainable = [list(w.shape) for w in model.trainable_weights]
    optimizer = model.optimizer.get_config()
    settings = {"epochs": epochs, "seed": seed, **more,
                "parameters": sum(int(np.prod(shape)) for shape in shapes),
                "trainable parameters": sum(int(np.prod(shape)) for shape in trainable),
                "weight shapes": _digest(shapes), "optimizer": type(model.optimizer).__name__,
                "optimizer settings": optimizer, "steps per epoch": len(batches),
                **(batches.fingerprint() if hasattr(batches, "fingerprint") else {})}
    return json.loads(json.dumps(settings, default=_plain))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _plain(value: object):
    """JSON for what an optimizer's settings may hold: numpy numbers and arrays, or just a type."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return value.get_config() if hasattr(value, "get_config") else type(value).__name__

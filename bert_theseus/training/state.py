"""The whole state of a training run as one file, and what a finished run leaves.

A training step is a compiled function; everything it can remember from one step to the next is a
variable it captures: weights, optimizer slots and iterations, learning rate, running metrics,
replacing rate, states of random generators. A snapshot holds all of them plus Python's and numpy's
random state, the callbacks' state and the history. What is captured is read off the function
itself, so that no kind of state can be forgotten.
"""

import json
import os
import random
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.results import replace_file


def save_arrays(path: str | os.PathLike, arrays: Sequence[np.ndarray], record: dict) -> None:
    """Arrays and a JSON record in one file, on the disk before it gets its name.

    >>> save_arrays("a.npz", [np.arange(3)], {"step": 7})
    >>> load_arrays("a.npz")
    ([array([0, 1, 2])], {'step': 7})
    """
    text = np.frombuffer(json.dumps(record).encode(), "uint8")

    def write(beside: Path) -> None:
        with open(beside, "wb") as file:
            np.savez(file, record=text, **{f"{i:05d}": a for i, a in enumerate(arrays)})
            file.flush()
            os.fsync(file.fileno())

    replace_file(path, write)


def load_arrays(path: str | os.PathLike) -> tuple[list[np.ndarray], dict]:
    """What :func:`save_arrays` wrote; InputError for a file that is something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            record = json.loads(file["record"].tobytes().decode())
            return [file[name] for name in sorted(file.files) if name != "record"], record
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"not a saved state ({error})", str(path),
                         "delete it to start anew") from None


def save_weights(model, path: str | os.PathLike, record: dict | None = None) -> None:
    """The model's weights in order, with shapes checked again by :func:`load_weights`."""
    save_arrays(path, model.get_weights(), record or {})


def load_weights(model, path: str | os.PathLike) -> dict:
    """Sets the model's weights to the saved ones and returns their record.

    Raises InputError where number or shapes differ.
    """
    arrays, record = load_arrays(path)
    _check_shapes([w.shape for w in model.weights], [w.name for w in model.weights], arrays, path)
    model.set_weights(arrays)
    return record


def _check_shapes(shapes, names, arrays, path) -> None:
    if len(shapes) != len(arrays):
        raise InputError(f"{len(arrays)} weights for a model of {len(shapes)}", str(path),
                         "build the model as it was when they were saved")
    for shape, name, array in zip(shapes, names, arrays):
        if tuple(shape) != array.shape:
            raise InputError(f"{name} is {list(array.shape)} here, {list(shape)} in the model",
                             str(path), "build the model as it was when they were saved")


class RunState:
    """Variables, random states, callbacks and history of a run: saved whole, restored whole.

    variables: all variables that a step reads or writes.
    holders:   name → object with ``get_state()``/``set_state(state)`` (JSON), a
               ``tf.random.Generator`` or a ``tf.Variable``.
    settings:  what a run that goes on must share; see :func:`refuse_other_settings`.
    """

    def __init__(self, variables: Sequence[tf.Variable], holders: Mapping[str, object],
                 settings: dict):
        self.variables, self.settings = list(variables), settings
        self.variables += [v for v in map(_variable_of, holders.values()) if v is not None
                           and not any(v is other for other in self.variables)]
        self.holders = {name: h for name, h in holders.items() if _variable_of(h) is None}

    def save(self, path: Path, history: dict) -> None:
        """Writes everything beside and renames it."""
        record = {"settings": self.settings, "history": history, "random": _random_states(),
                  "holders": {name: get_state(h) for name, h in self.holders.items()}}
        save_arrays(path, [v.numpy() for v in self.variables], record)

    def restore(self, path: Path) -> dict:
        """Sets everything to what was saved, after checking that it fits; returns the history."""
        arrays, record = load_arrays(path)
        refuse_other_settings(record["settings"], self.settings, path)
        names = [v.name for v in self.variables]
        _check_shapes([v.shape for v in self.variables], names, arrays, path)
        for variable, array in zip(self.variables, arrays):
            variable.assign(array)
        for name, holder in self.holders.items():
            set_state(holder, record["holders"].get(name))
        _set_random_states(record["random"])
        return record["history"]


def refuse_other_settings(saved: dict, now: dict, path: Path) -> None:
    """InputError naming the first setting that differs between the saved run and this one."""
    for key in (*now, *(set(saved) - set(now))):
        if saved.get(key) != now.get(key):
            raise InputError(
                f"cannot go on with other settings: {key} was {_short(saved.get(key))}, is now "
                f"{_short(now.get(key))}", str(path),
                "use the old settings, another output folder, or start anew without --resume")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"


def _variable_of(holder: object) -> tf.Variable | None:
    if isinstance(holder, tf.random.Generator):
        return holder.state
    return holder if isinstance(holder, tf.Variable) else None


_PLAIN = (bool, int, float, str, type(None), np.integer, np.floating)


def get_state(holder: object):
    """``holder.get_state()``, or its attributes that are plain numbers and texts.

    The latter makes Keras' own callbacks (patience counters, best values) go on where they were.
    """
    if hasattr(holder, "get_state"):
        return holder.get_state()
    return {key: value.item() if isinstance(value, np.generic) else value
            for key, value in vars(holder).items() if isinstance(value, _PLAIN)}


def set_state(holder: object, state) -> None:
    """The inverse of :func:`get_state`."""
    if hasattr(holder, "set_state"):
        holder.set_state(state)
    elif state:
        vars(holder).update(state)


def _random_states() -> dict:
    name, keys, *rest = np.random.get_state()
    return {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}


def _set_random_states(states: dict) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, "uint32"), *rest))


def remove_leftovers(folder: Path) -> None:
    """Deletes half-written files that a killed run left beside the real ones."""
    for path in folder.glob(".*.npz"):
        path.unlink(missing_ok=True)

"""The record every script leaves: ``results.json`` with settings, environment and rows.

>>> row = Row("Theseus, 3 layers", "accuracy", [0.55, 0.57], published=0.5936)
>>> round(row.value, 2), round(row.std, 4)
(0.56, 0.0141)
"""

import importlib.metadata
import json
import os
import shutil
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_PACKAGES = ("tensorflow", "tf_keras", "bert4keras", "numpy")


@dataclass
class Row:
    """One measured quantity: a value per seed, beside the number the article gives.

    name:      what was measured, e.g. a method.
    metric:    e.g. "accuracy", "seconds", "ratio".
    values:    one value per seed (a single value is fine).
    published: the article's number, or None where it gives none.
    source:    where the published number stands.
    seeds:     the seeds, in the order of ``values``.
    """

    name: str
    metric: str
    values: Sequence[float]
    published: float | None = None
    source: str | None = None
    seeds: Sequence[int] = ()

    @property
    def value(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Sample standard deviation; None for a single value, which has none."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    def as_dict(self) -> dict:
        """The row as it stands in results.json."""
        return {"name": self.name, "metric": self.metric, "value": self.value, "std": self.std,
                "values": [float(value) for value in self.values], "seeds": list(self.seeds),
                "published": self.published, "source": self.source}


def environment() -> dict:
    """Versions, device and cores: what a number depends on besides its settings."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **versions,
            "device": _device(), "cores": len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity") else os.cpu_count()}


def _device() -> str:
    import tensorflow as tf
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"CPU ({platform.machine()})"
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")


def write_results(output_dir: str | os.PathLike, article: int, settings: dict,
                  rows: Sequence[Row], seconds: float, **more) -> Path:
    """Writes ``output_dir/results.json``, whole or not at all; returns its path.

    settings: every argument of the run; ``more``: further tables of the script, as JSON.
    """
    record = {"article": article, "settings": settings, "environment": environment(),
              "rows": [row.as_dict() for row in rows], "seconds": round(seconds, 1), **more}
    path = Path(output_dir) / "results.json"
    text = json.dumps(record, ensure_ascii=False, indent=1, default=str) + "\n"
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))
    return path


def replace_file(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Calls ``write(beside)`` on a path in the same folder, then renames it to ``path``.

    A kill leaves either the old file or the new one. ``beside`` keeps the suffix of ``path``,
    so that writers that look at it (numpy, matplotlib, h5) behave.

    >>> replace_file("note.txt", lambda beside: beside.write_text("whole"))
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def replace_folder(folder: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """The same for a folder: ``write`` fills one beside, which then takes the name.

    >>> replace_folder("notes", lambda beside: (beside / "one.txt").write_text("whole"))
    >>> [path.name for path in Path("notes").iterdir()]
    ['one.txt']
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside, old = (folder.with_name(f".{folder.name}.{os.getpid()}{end}") for end in ("", ".old"))
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        write(beside)
        if folder.exists():
            os.replace(folder, old)
        os.replace(beside, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)

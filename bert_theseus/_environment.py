"""Which environments cannot be repaired, and the one line that mends each. No TensorFlow here."""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping

BERT4KERAS = "0.11.5"
_TENSORFLOW = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos",
               "tensorflow-rocm", "tf-nightly")
_CHATTER = re.compile(rb"I0000 |WARNING: All log messages before absl::InitializeLog"
                      rb"|To enable the following instructions:")


def check() -> None:
    """Raises ImportError with the first of ``faults()``, if there is one."""
    for fault in faults():
        raise ImportError(fault)


def faults(version: Callable[[str], str] = importlib.metadata.version,
           modules: Mapping[str, object] | None = None) -> list[str]:
    """What stands in the way of Keras 2 and bert4keras, one line with its fix for each.

    version: name of a distribution → its version, PackageNotFoundError where there is none.
    modules: what is imported so far (``sys.modules``).
    """
    return [*_version_faults(version), *_import_faults(sys.modules if modules is None else modules)]


def _version_faults(version) -> Iterator[str]:
    found = {name: _version_or_none(version, name) for name in ("tf_keras", "bert4keras")}
    tensorflow = next(filter(None, (_version_or_none(version, name) for name in _TENSORFLOW)), None)
    if tensorflow is None:
        yield "TensorFlow is missing: pip install --no-deps -r requirements.txt"
    elif found["tf_keras"] is None or _minor(found["tf_keras"]) != _minor(tensorflow):
        have = f"is {found['tf_keras']}" if found["tf_keras"] else "is missing"
        yield (f"tf_keras {have}, TensorFlow is {tensorflow}: "
               f"pip install --no-deps 'tf_keras=={_minor(tensorflow)}.*'")
    if found["bert4keras"] != BERT4KERAS:
        have = f"is {found['bert4keras']}" if found["bert4keras"] else "is missing"
        yield f"bert4keras {have}: pip install --no-deps bert4keras=={BERT4KERAS}"


def _import_faults(modules) -> Iterator[str]:
    keras = modules.get("keras")
    if str(getattr(keras, "__version__", "2")).split(".")[0] not in ("1", "2"):
        yield (f"Keras {keras.__version__} is already imported (by name or through tf.keras), and "
               "bert4keras needs Keras 2: put 'import bert_theseus' before the first import of "
               "Keras, or run the script with python -m bert_theseus run SCRIPT")
    if "bert4keras" in modules and "bert_theseus.backend._keras2" not in modules:
        yield ("bert4keras is already imported without its repairs: put 'import bert_theseus' "
               "before it, or run the script with python -m bert_theseus run SCRIPT")


def _version_or_none(version, name: str) -> str | None:
    try:
        return version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """TensorFlow greets with informational lines on stderr before its log level can be set.

    Inside, what is written to stderr is held back; afterwards all of it is written but these, so
    that an error of ours really is the one line it should be. ``TF_CPP_MIN_LOG_LEVEL=0`` keeps
    everything.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0" or "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not _CHATTER.match(line)))


@contextlib.contextmanager
def distutils_stand_in() -> Iterator[None]:
    """bert4keras imports ``strtobool`` from distutils, which Python 3.12 removed.

    For the time of that import a module with this one function stands in; it goes again, so that
    nobody else takes it for the real one.
    """
    if importlib.util.find_spec("distutils") is not None:
        yield
        return
    package, util = types.ModuleType("distutils"), types.ModuleType("distutils.util")
    package.__path__, package.util, util.strtobool = [], util, strtobool
    sys.modules.update({"distutils": package, "distutils.util": util})
    try:
        yield
    finally:
        for name in ("distutils.util", "distutils"):
            sys.modules.pop(name, None)


def strtobool(text: str) -> int:
    """1 for y, yes, t, true, on, 1; 0 for n, no, f, false, off, 0; ValueError for the rest.

    >>> strtobool("On"), strtobool("0")
    (1, 0)
    """
    if text.lower() in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if text.lower() in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ValueError(f"invalid truth value {text!r}")

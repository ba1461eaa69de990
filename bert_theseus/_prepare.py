"""What must happen before TensorFlow, Keras or bert4keras is imported. Imports none of them."""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import os
import sys

_SWITCHES = {"TF_KERAS": "1", "TF_USE_LEGACY_KERAS": "1"}


class _Repairing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers the first ``import bert4keras`` or ``import keras`` by repairing both.

    It imports ``bert_theseus.backend``, which puts Keras 2 under the name ``keras`` and bert4keras
    on top of it, and hands the finished module to the import that started it all.
    """

    paused = False

    def find_spec(self, fullname, path=None, target=None):
        """For ``keras`` and ``bert4keras``, the spec of the module as repaired; else None."""
        if self.paused or fullname not in ("bert4keras", "keras"):
            return None
        importlib.import_module("bert_theseus.backend")
        self._module = sys.modules[fullname]
        self._own_spec = self._module.__spec__
        # With its own spec the module's file would be run once more. It stays in sys.modules:
        # whoever only asks for the spec, as TensorFlow does, must not make it vanish.
        self._module.__spec__ = importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return self._module.__spec__

    def create_module(self, spec):
        """The repaired module, which stands in ``sys.modules`` already."""
        return self._module

    def exec_module(self, module):
        """Runs nothing again; gives the module its own spec back."""
        module.__spec__ = self._own_spec


def install() -> None:
    """Sets the two switches and puts the finder in front, once."""
    os.environ.update(_SWITCHES)
    if "bert_theseus.backend" not in sys.modules and not _finders():
        sys.meta_path.insert(0, _Repairing())


def uninstall() -> None:
    """Takes the finder away: the backend stands."""
    for finder in _finders():
        sys.meta_path.remove(finder)


@contextlib.contextmanager
def paused():
    """Inside, the finder lets all imports through: the backend is at work.

    If the backend fails, the finder is on guard again, so that a second attempt fails in the
    same way instead of going on without repairs.
    """
    for finder in _finders():
        finder.paused = True
    try:
        yield
    finally:
        for finder in _finders():
            finder.paused = False


def _finders() -> list:
    return [finder for finder in sys.meta_path if isinstance(finder, _Repairing)]

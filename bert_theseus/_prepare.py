"""What must happen before TensorFlow or bert4keras is imported. Imports neither."""

import importlib
import importlib.abc
import importlib.machinery
import os
import sys

_SWITCHES = {"TF_KERAS": "1", "TF_USE_LEGACY_KERAS": "1"}


class _RepairBert4keras(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers the first ``import bert4keras`` by importing ``bert_theseus.backend``.

    The backend removes this finder, imports bert4keras itself and repairs it; the import that
    started it all is then handed the finished module.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != "bert4keras":
            return None
        importlib.import_module("bert_theseus.backend")
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec):
        self._own_spec = sys.modules[spec.name].__spec__
        return sys.modules[spec.name]

    def exec_module(self, module):
        module.__spec__ = self._own_spec


def install() -> None:
    """Sets the two switches and puts the finder in front, once."""
    os.environ.update(_SWITCHES)
    if "bert4keras" not in sys.modules and not _finders():
        sys.meta_path.insert(0, _RepairBert4keras())


def uninstall() -> None:
    """Takes the finder away again; the backend calls it before it imports bert4keras."""
    for finder in _finders():
        sys.meta_path.remove(finder)


def _finders() -> list:
    return [finder for finder in sys.meta_path if isinstance(finder, _RepairBert4keras)]

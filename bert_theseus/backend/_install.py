"""The order in which bert4keras is imported and repaired."""

import importlib

from bert_theseus import _environment


def install() -> tuple:
    """Imports TensorFlow, Keras 2 and bert4keras, applies all repairs; returns ``keras, K``.

    Raises ImportError, one line that names the fix, where the environment cannot be repaired.
    """
    _environment.check()
    with _environment.without_chatter():
        importlib.import_module("tensorflow")
    from bert_theseus.backend import _keras2
    keras = _keras2.repair()
    with _environment.distutils_stand_in():
        backend = importlib.import_module("bert4keras.backend")
    from bert_theseus.backend import _models, _optimizers, _recompute, _tensors
    _tensors.repair(backend)       # these two before bert4keras.layers copies the names
    _recompute.repair(backend)
    _optimizers.repair(importlib.import_module("bert4keras.optimizers"))
    _models.repair(importlib.import_module("bert4keras.models"))
    name_what_star_imports(importlib.import_module("bert4keras.snippets"))
    return keras, backend.K


def name_what_star_imports(snippets) -> None:
    """``from bert4keras.snippets import *`` gives nothing in Python 3.

    bert4keras puts an object of its own in the place of that module, and a star looks for names
    in its ``__dict__``, which has none of them; ``__all__`` is asked first.
    """
    module = snippets.module
    module.__all__ = [name for name in vars(module) if not name.startswith("_")]

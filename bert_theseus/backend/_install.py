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
    return keras, backend.K

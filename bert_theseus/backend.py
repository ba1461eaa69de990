"""bert4keras 0.11.5 on current TensorFlow, through Keras 2 semantics (``tf_keras``).

Importing this module imports TensorFlow and bert4keras and applies every repair below. Each
repair is one function whose docstring gives the reason; ``tests/test_backend.py`` holds a test
for each that fails without it.

>>> from bert_theseus.backend import keras, K, set_seed
>>> set_seed(42)
>>> keras.__version__.startswith("2.")
True
"""

import random

import numpy as np

from bert_theseus import _prepare

_prepare.uninstall()
import tensorflow as tf  # noqa: E402
from tf_keras.api._v2 import keras  # noqa: E402  (what tf.keras is, without its lazy wrapper)


def use_legacy_optimizers() -> None:
    """bert4keras subclasses the optimizers of Keras < 2.11 (``_resource_apply_dense``, slots)."""
    legacy = keras.optimizers.legacy
    for name in dir(legacy):
        if not name.startswith("_"):
            setattr(keras.optimizers, name, getattr(legacy, name))


use_legacy_optimizers()
import bert4keras.backend  # noqa: E402
K = bert4keras.backend.K


def set_seed(seed: int) -> None:
    """Seeds Python, numpy and TensorFlow (weights, dropout, shuffles drawn from them)."""
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)


def distribution(name: str | None = None) -> tf.distribute.Strategy:
    """The strategy to build a model under: ``None`` one device, ``"mirrored"`` all GPUs."""
    if name in (None, "none"):
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    raise ValueError(f"unknown distribution {name!r}, use None or 'mirrored'")

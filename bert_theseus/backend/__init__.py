"""bert4keras 0.11.5 on current TensorFlow, through Keras 2 semantics (``tf_keras``).

Importing this package imports TensorFlow and bert4keras and applies every repair, once. Each
repair is a small function whose docstring gives the reason: those of Keras in ``_keras2``, of
bert4keras' tensor functions in ``_tensors``, of its optimizers in ``_optimizers``, of its models
in ``_models``, of its recomputation in ``_recompute``. ``tests/test_backend.py`` holds a test for
each that fails without it. Nothing else in bert_theseus touches TensorFlow's internals.

>>> from bert_theseus.backend import keras, K, set_seed
>>> set_seed(42)
>>> keras.__version__.startswith("2.")
True
"""

from bert_theseus import _prepare

with _prepare.paused():
    from bert_theseus.backend import _install
    keras, K = _install.install()
_prepare.uninstall()

import tensorflow as tf  # noqa: E402

__all__ = ["keras", "K", "set_seed", "distribution"]


def set_seed(seed: int) -> None:
    """Seeds Python, numpy and TensorFlow: weights, dropout and shuffles drawn after it.

    >>> from bert_theseus.backend import K
    >>> set_seed(1); first = K.random_uniform([3])
    >>> set_seed(1); bool((first == K.random_uniform([3])).numpy().all())
    True
    """
    keras.utils.set_random_seed(seed)


def distribution(name: str | None = None) -> tf.distribute.Strategy:
    """The strategy to build a model under: ``None`` one device, ``"mirrored"`` all GPUs.

    >>> with distribution().scope():
    ...     model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,))])
    """
    if name in (None, "none"):
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    raise ValueError(f"unknown distribution {name!r}, use None or 'mirrored'")

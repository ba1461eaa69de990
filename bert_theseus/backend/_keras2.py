"""Repairs of Keras 2 itself (``tf_keras``): one set of modules, one kind of optimizer, seeds."""

import functools
import inspect
import sys
import types

import tensorflow as tf
import tf_keras
from tf_keras.api._v2 import keras
from tf_keras.src import backend as source_backend
from tf_keras.src import optimizers as source_optimizers
from tf_keras.src.engine import data_adapter
from tf_keras.src.initializers import initializers as source_initializers

from bert_theseus.errors import InputError

_API = keras.__name__
# Modules of Keras <= 2.3 whose names now stand one level higher.
_OLD_HOMES = {
    "layers": ("advanced_activations", "convolutional", "core", "embeddings", "local", "merge",
               "noise", "normalization", "pooling", "recurrent", "wrappers"),
    "utils": ("data_utils", "generic_utils", "np_utils", "vis_utils"),
    "backend": ("tensorflow_backend",),
    "callbacks": ("callbacks",),
}


def repair():
    """Applies the repairs of this file; returns the ``keras`` everybody gets from now on."""
    use_legacy_optimizers()
    draw_anew_at_each_call()
    keep_lists_of_inputs_together()
    predict_from_lists_of_inputs()
    leave_input_errors_as_they_are()
    give_keras_its_name()
    give_old_homes_back()
    return keras


def use_legacy_optimizers() -> None:
    """bert4keras subclasses the optimizers of Keras < 2.11 (slots, ``_resource_apply_dense``).

    So ``keras.optimizers.Adam`` and its siblings are those again, also when named by a string
    (``compile(optimizer="adam")``): one kind everywhere.
    """
    legacy = keras.optimizers.legacy
    for name in dir(legacy):
        if not name.startswith("_"):
            setattr(keras.optimizers, name, getattr(legacy, name))
    for name in ("get", "deserialize"):
        patched = functools.partial(getattr(source_optimizers, name), use_legacy_optimizer=True)
        setattr(source_optimizers, name, patched)
        setattr(keras.optimizers, name, patched)


def draw_anew_at_each_call() -> None:
    """An unseeded initializer draws new values at every call, as it did in Keras <= 2.3.

    tf_keras fixes the seed of an unseeded initializer at its first use: bert4keras hands one
    instance to all kernels of an attention, which then start out equal (Q = K = V = O). From the
    second call on a new seed is drawn; the first call is what it was. ``set_seed`` reproduces
    all of them. An initializer that was given a seed still repeats itself.
    """
    def reseed(self):
        """In the place of tf_keras' warning about reuse, which every call passes."""
        if getattr(self, "_used", False) and getattr(self, "seed", None) is None:
            self._random_generator = source_backend.RandomGenerator(None, rng_type="stateless")
        self._used = True

    source_initializers.Initializer._warn_reuse = reseed


def keep_lists_of_inputs_together() -> None:
    """A generator that yields ``[tokens, segments], None`` gives two inputs and no target.

    That is how bert4keras' examples train a model with a ``Loss`` layer. tf_keras asks
    ``isinstance(x, tuple or list)``, overlooks the list, and takes segments for the target.
    """
    original = data_adapter.pack_x_y_sample_weight

    @functools.wraps(original)
    def pack(x, y=None, sample_weight=None):
        return (x,) if y is None and isinstance(x, list) else original(x, y, sample_weight)

    data_adapter.pack_x_y_sample_weight = keras.utils.pack_x_y_sample_weight = pack


def predict_from_lists_of_inputs() -> None:
    """A generator for ``predict`` that yields ``[tokens, segments]`` yields two inputs.

    So it was in Keras <= 2.3, and so does bert4keras' ``DataGenerator.fortest``; tf_keras reads
    the list as (input, target).
    """
    original = keras.Model.predict

    @functools.wraps(original)
    def predict(self, x, *args, **kwargs):
        if inspect.isgenerator(x):
            x = ((batch,) if isinstance(batch, list) else batch for batch in x)
        return original(self, x, *args, **kwargs)

    keras.Model.predict = predict


def leave_input_errors_as_they_are() -> None:
    """An ``InputError`` raised in a layer, loss or training step stays the one line it is.

    Keras makes a new error whose text lists the arguments of the call, and AutoGraph one of
    another class whose text is a traceback. Both leave an error alone that carries their mark:
    "done already" for the one, "to be passed through" for the other.
    """
    InputError._keras_call_info_injected = InputError.ag_pass_through = True


def give_keras_its_name() -> None:
    """``keras``, ``tf.keras`` and ``tensorflow.keras`` are one package, submodules included.

    bert4keras puts ``tf.keras`` under the name ``keras``, but ``import keras.optimizers`` then
    loads that file a second time, and the copy knows nothing of any repair. The version, which
    old scripts compare, is missing in the place ``tf.keras`` points to.
    """
    keras.__version__ = tf_keras.__version__
    for name, module in list(sys.modules.items()):
        if name == _API or name.startswith(_API + "."):
            for alias in ("keras", "tensorflow.keras"):
                sys.modules[alias + name[len(_API):]] = module
    tf.keras = keras


def give_old_homes_back() -> None:
    """Scripts for Keras <= 2.3 import from ``keras.layers.merge``, ``keras.utils.np_utils``, …"""
    for parent, homes in _OLD_HOMES.items():
        for home in homes:
            _add_module(f"{parent}.{home}", getattr(keras, parent))
    engine = types.ModuleType("keras.engine")
    engine.__path__ = []
    for name in ("Input", "InputSpec", "Layer"):
        setattr(engine, name, getattr(keras.layers, name))
    engine.Model, engine.Sequential = keras.Model, keras.Sequential
    for home in ("engine", "engine.base_layer", "engine.topology", "engine.training"):
        _add_module(home, engine)


def _add_module(name: str, module: types.ModuleType) -> None:
    """Makes ``import keras.NAME`` and ``from keras.PARENT import CHILD`` give ``module``."""
    for alias in ("keras", "tensorflow.keras"):
        sys.modules.setdefault(f"{alias}.{name}", module)
    parent, _, child = f"keras.{name}".rpartition(".")
    if not hasattr(sys.modules[parent], child):
        setattr(sys.modules[parent], child, module)

"""Repairs of bert4keras' optimizers under Keras 2 of today."""

import functools

from tf_keras.src.optimizers.legacy.optimizer_v2 import OptimizerV2


def repair(optimizers) -> None:
    """Applies the repairs of this file to ``bert4keras.optimizers``."""
    spell_epsilon(optimizers.K)
    accept_lr(optimizers.Adam, optimizers.LionV2, optimizers.AdaFactorBase)
    give_adafactor_a_learning_rate(optimizers.AdaFactorBase, optimizers.AdaFactorV2)
    register_lion(optimizers)


def spell_epsilon(K) -> None:
    """``Adam(epsilon=None)`` asks for ``K.epislon()``, which no Keras has."""
    K.epislon = K.epsilon


def accept_lr(*classes) -> None:
    """Old scripts write ``Adam(lr=1e-5)``; the base class takes ``lr`` and drops it silently."""
    for cls in classes:
        cls.__init__ = _with_lr(cls.__init__)


def _with_lr(init):
    @functools.wraps(init)
    def new_init(self, *args, **kwargs):
        if "lr" in kwargs:
            if args or "learning_rate" in kwargs:
                raise TypeError("give either lr or learning_rate, not both")
            kwargs["learning_rate"] = kwargs.pop("lr")
        init(self, *args, **kwargs)
    return new_init


def give_adafactor_a_learning_rate(base, adafactor) -> None:
    """AdaFactor's ``learning_rate`` makes a new variable at every look at it.

    Inside ``tf.function`` that is an error, elsewhere the rate cannot be changed or saved. It
    becomes an ordinary hyper-parameter (number, schedule, callback that changes it);
    ``learning_rate=None`` keeps the relative steps of the paper.
    """
    original_init, original_config = base.__init__, base.get_config
    relative_step = base.learning_rate.fget

    @functools.wraps(original_init)
    def init(self, *args, **kwargs):
        original_init(self, *args, **kwargs)
        if self._learning_rate is not None:
            self._set_hyper("learning_rate", self._learning_rate)

    def learning_rate(self):
        if self._learning_rate is None:
            return relative_step(self)
        return self._get_hyper("learning_rate")

    def decayed_lr(self, var_dtype):
        if self._learning_rate is None:
            return self.learning_rate
        return OptimizerV2._decayed_lr(self, var_dtype)

    def get_config(self):
        config = original_config(self)
        if self._learning_rate is not None:
            config["learning_rate"] = self._serialize_hyperparameter("learning_rate")
        return config

    base.__init__, base.get_config = init, get_config
    base.learning_rate = property(learning_rate)
    adafactor._decayed_lr = decayed_lr


def register_lion(optimizers) -> None:
    """Lion is left out of the custom objects, so that no saved configuration finds it again."""
    optimizers.Lion.__name__ = "Lion"
    optimizers.keras.utils.get_custom_objects()["Lion"] = optimizers.Lion

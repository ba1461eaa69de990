"""The harness can fail: every fault it looks for, in a layer that has only that one."""

import numpy as np
import pytest
import tensorflow as tf
from harness import assert_close, check_layer

from bert_theseus.backend import keras

X = np.arange(12, dtype="float32").reshape(2, 3, 2) / 10


class Scale(keras.layers.Layer):
    """A layer without a fault: y = factor · weight · x."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape):
        self.weight = self.add_weight(name="weight", shape=(), initializer="ones")

    def call(self, inputs):
        return self.factor * self.weight * inputs

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class DropsConfig(Scale):
    def get_config(self):
        return keras.layers.Layer.get_config(self)


class ChangesConfig(Scale):
    def __init__(self, factor=2.0, **kwargs):
        super().__init__(factor + 1, **kwargs)


class ConfigWithTensor(Scale):
    def get_config(self):
        return {**super().get_config(), "factor": tf.constant(2.0)}


class EagerOnly(Scale):
    def call(self, inputs):
        return super().call(inputs) + (1.0 if tf.executing_eagerly() else 0.0)


class HiddenState(Scale):
    """What the weights do not carry: a number drawn when the layer is built."""

    def build(self, input_shape):
        super().build(input_shape)
        self.factor_drawn = float(np.random.default_rng().random())

    def call(self, inputs):
        return super().call(inputs) + self.factor_drawn


class FixedLength(Scale):
    """Remembers the first length it saw, and looks at no more of a longer input."""

    def call(self, inputs):
        self.seen = getattr(self, "seen", None) or int(inputs.shape[1] or 3)
        kept = tf.cast(tf.range(tf.shape(inputs)[1]) < self.seen, inputs.dtype)
        return super().call(inputs) * (kept[:, None] if not tf.executing_eagerly() else 1.0)


def test_a_sound_layer_passes_and_its_output_comes_back():
    np.testing.assert_allclose(check_layer(Scale, X), 2 * X, rtol=1e-6)


@pytest.mark.parametrize("broken, message", [
    (DropsConfig, "from_config differs"), (ChangesConfig, "config changes"),
    (ConfigWithTensor, "not JSON serializable"), (EagerOnly, "tf.function differs"),
    (HiddenState, "from_config differs"), (FixedLength, "another length")])
def test_each_fault_is_found(broken, message):
    with pytest.raises((AssertionError, TypeError), match=message):
        check_layer(lambda: broken(5.0), X)


def test_a_weight_the_saved_model_loses_is_found(monkeypatch):
    monkeypatch.setattr(keras.Model, "save", _save_with_other_weights(keras.Model.save))
    with pytest.raises(AssertionError, match="saved and loaded"):
        check_layer(Scale, X)


def _save_with_other_weights(save):
    def broken(model, path, *args, **kwargs):
        right = model.get_weights()
        model.set_weights([w + 1 for w in right])
        save(model, path, *args, **kwargs)
        model.set_weights(right)
    return broken


@pytest.mark.parametrize("actual, expected", [
    ([1.0, 2.0], [1.0, 2.1]), ([1.0], [[1.0]]), ([np.nan], [np.nan]), ([np.inf], [np.inf])])
def test_assert_close_sees_values_shapes_and_what_is_not_finite(actual, expected):
    with pytest.raises(AssertionError):
        assert_close(np.array(actual), np.array(expected))


def test_assert_close_counts_outputs():
    with pytest.raises(AssertionError):
        assert_close([X, X], [X])

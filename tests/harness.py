"""What every layer of the package must do, in one call.

    check_layer(lambda: BinaryRandomChoice(0.3), [a, b])

checks: ``get_config`` → ``from_config`` gives the same config and JSON can carry it; weights
carried over give the same outputs; eager, ``tf.function`` and a saved and reloaded Keras model
agree; a sequence axis may be longer at the second call than at the first.
"""

import json

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras


def check_layer(make, inputs, mask=None, call=None, dynamic_axis=1, atol=1e-5):
    """make() → layer; inputs: one array or a list; call: keyword arguments of the call."""
    call = dict(call or {})
    layer = make()
    expected = _numpy(_apply(layer, inputs, mask, call))
    _check_config(layer, inputs, mask, call, expected, atol)
    compiled = tf.function(lambda x: _apply(layer, x, mask, call))
    assert_close(_numpy(compiled(_tensors(inputs))), expected, atol,
                 "tf.function differs from eager")
    if mask is None:
        _check_saved_model(layer, inputs, call, expected, atol)
        if dynamic_axis is not None:
            _check_dynamic_length(layer, inputs, call, dynamic_axis)
    return expected


def assert_close(actual, expected, atol=1e-5, message=""):
    """Same structure, same shapes, finite, and |actual − expected| ≤ atol (1 + |expected|)."""
    actual, expected = tf.nest.flatten(actual), tf.nest.flatten(expected)
    assert len(actual) == len(expected), message
    for a, e in zip(actual, expected):
        assert np.shape(a) == np.shape(e), f"{message}: {np.shape(a)} != {np.shape(e)}"
        assert np.all(np.isfinite(np.asarray(a, "float64"))), f"{message}: not finite"
        np.testing.assert_allclose(a, e, rtol=atol, atol=atol, err_msg=message)


def _check_config(layer, inputs, mask, call, expected, atol):
    config = layer.get_config()
    assert json.loads(json.dumps(config)) is not None
    twin = type(layer).from_config(config)
    assert json.dumps(twin.get_config()) == json.dumps(config), "config changes on its round trip"
    _apply(twin, inputs, mask, call)
    twin.set_weights(layer.get_weights())
    assert_close(_numpy(_apply(twin, inputs, mask, call)), expected, atol, "from_config differs")


def _check_saved_model(layer, inputs, call, expected, atol):
    symbols = tf.nest.map_structure(
        lambda x: keras.Input(np.shape(x)[1:], dtype=np.asarray(x).dtype.name), inputs)
    model = keras.Model(symbols, layer(symbols, **call))
    model.save("harness.h5")
    loaded = keras.models.load_model(
        "harness.h5", custom_objects={type(layer).__name__: type(layer)}, compile=False)
    assert_close(_numpy(loaded(_tensors(inputs), training=call.get("training"))), expected, atol,
                 "a saved and loaded model differs")


def _check_dynamic_length(layer, inputs, call, axis):
    run = tf.function(lambda x: _apply(layer, x, None, call), reduce_retracing=True)
    longer = tf.nest.map_structure(lambda x: np.concatenate([x, x], axis=axis), inputs)
    for value in (inputs, longer):
        assert_close(_numpy(run(_tensors(value))), _numpy(_apply(layer, value, None, call)), 1e-4,
                     "another length gives another result")


def _apply(layer, inputs, mask, call):
    extra = {} if mask is None else {"mask": mask}
    return layer(_tensors(inputs), **extra, **call)


def _tensors(inputs):
    return tf.nest.map_structure(tf.convert_to_tensor, inputs)


def _numpy(outputs):
    return tf.nest.map_structure(lambda x: np.asarray(x), outputs)

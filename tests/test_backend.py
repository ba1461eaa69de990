"""Each repair, by a value that is wrong or an error that is raised without it."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
import tensorflow as tf
from bert4keras.layers import FeedForward, LayerNormalization, MultiHeadAttention

from bert_theseus import _environment
from bert_theseus.backend import K, _recompute, distribution, keras, set_seed
from bert_theseus.errors import InputError
from bert_theseus.imbalance import MarginCrossentropy
from bert_theseus.wgan import DenseRuns

from small import small_batch, small_bert


# --- weights ----------------------------------------------------------------------------------

def test_each_kernel_is_drawn_anew_and_reproducibly():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        set_seed(5)
        first = small_bert().model.get_layer("Transformer-0-MultiHeadSelfAttention").get_weights()
        set_seed(5)
        again = small_bert().model.get_layer("Transformer-0-MultiHeadSelfAttention").get_weights()
    kernels = first[::2]
    assert all(np.abs(a - b).max() > 0.01 for i, a in enumerate(kernels) for b in kernels[:i])
    assert all((a == b).all() for a, b in zip(first, again))


def test_an_initializer_with_a_seed_repeats_itself():
    seeded = keras.initializers.GlorotUniform(seed=1)
    assert (seeded([3, 3]).numpy() == seeded([3, 3]).numpy()).all()


def test_weights_are_saved_in_eager_mode_and_loaded_into_frozen_layers():
    bert = small_bert(with_nsp=True)
    for layer in bert.model.layers:
        layer.trainable = False
    bert.save_weights_as_checkpoint("bert_model.ckpt")
    bias = tf.train.load_variable("bert_model.ckpt", "bert/encoder/layer_1/output/dense/bias")
    assert bias.shape == (8,)
    kernel = tf.train.load_variable("bert_model.ckpt", "cls/seq_relationship/output_weights")
    np.testing.assert_array_equal(kernel.T, bert.model.get_layer("NSP-Proba").get_weights()[0])
    other = small_bert(with_nsp=True)
    other.model.trainable = False
    other.load_weights_from_checkpoint("bert_model.ckpt")
    assert all((a == b).all() for a, b in zip(bert.model.get_weights(), other.model.get_weights()))
    assert not other.model.trainable_weights


def test_ignored_weights_are_named(capsys):
    small_bert(ignore_invalid_weights=True).load_weights_from_checkpoint({})
    assert "bert/embeddings/word_embeddings not found, but ignored" in capsys.readouterr().out


# --- names and environment --------------------------------------------------------------------

def test_keras_has_one_set_of_modules():
    import keras as by_name
    import keras.optimizers as optimizers
    import tensorflow.keras.layers as layers
    from keras import backend
    from keras.callbacks import Callback
    from keras.engine.topology import Layer
    from keras.layers.merge import add
    from keras.utils import np_utils
    assert by_name is keras is tf.keras and keras.__version__.startswith("2.")
    assert optimizers is keras.optimizers
    assert layers is keras.layers and backend is K and Callback is keras.callbacks.Callback
    assert Layer is keras.layers.Layer and add is keras.layers.add
    assert np_utils.to_categorical([1], 2).tolist() == [[0, 1]]


def test_a_star_brings_the_snippets():
    scope = {}
    exec("from bert4keras.snippets import *", scope)
    assert scope["sequence_padding"]([[1], [2, 3]]).tolist() == [[1, 0], [2, 3]]
    assert "AutoRegressiveDecoder" in scope and "_" not in scope


def test_a_generator_of_inputs_without_target():
    """The loss is the model's own; x and twice x are both inputs."""
    first, second = keras.Input([1]), keras.Input([1])
    model = keras.Model([first, second], keras.layers.subtract([second, first]))
    model.add_loss(K.mean(model.output))
    model.compile("sgd")
    x = np.array([[1.0], [2.0]])
    history = model.fit((([x, 2 * x], None) for _ in range(2)), steps_per_epoch=2, verbose=0)
    assert history.history["loss"] == [1.5]
    for batch in ([x, 2 * x], ([x, 2 * x], None), ([x, 2 * x],)):
        np.testing.assert_array_equal(model.predict((b for b in [batch]), verbose=0), x)


def test_every_fault_of_the_environment_is_one_line_with_its_fix():
    good = {"tensorflow": "2.21.0", "tf_keras": "2.21.3", "bert4keras": "0.11.5"}

    def faults(modules={}, **changes):
        versions = {k: v for k, v in {**good, **changes}.items() if v}

        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]
        return _environment.faults(version, modules)

    keras3 = types.SimpleNamespace(__version__="3.12.0")
    assert faults() == [] and faults({"keras": keras}) == []
    assert faults(tf_keras=None) == ["tf_keras is missing, TensorFlow is 2.21.0: "
                                     "pip install --no-deps 'tf_keras==2.21.*'"]
    assert "tf_keras is 2.20.1" in faults(tf_keras="2.20.1")[0]
    assert faults(bert4keras=None) == [
        "bert4keras is missing: pip install --no-deps bert4keras==0.11.5"]
    assert "bert4keras is 0.10.0: pip install" in faults(bert4keras="0.10.0")[0]
    assert faults(tensorflow=None)[0].startswith("TensorFlow is missing: pip install")
    assert "put 'import bert_theseus' before" in faults({"keras": keras3})[0]
    assert len(faults({"keras": keras3}, bert4keras=None, tf_keras=None)) == 3
    assert all("\n" not in fault for fault in faults({"keras": keras3}, bert4keras=None))


def test_with_keras_3_loaded_nothing_goes_on_and_tensorflow_stays_out():
    code = """
import sys, types
import bert_theseus, bert_theseus.errors
assert not {"tensorflow", "keras", "bert4keras"} & set(sys.modules), "the package is not cheap"
keras = sys.modules["keras"] = types.ModuleType("keras")
keras.__version__ = "3.12.0"
for attempt in range(2):
    try:
        import bert4keras.models
    except ImportError as error:
        assert "Keras 3.12.0 is already imported" in str(error) and "\\n" not in str(error)
    else:
        sys.exit("went on with a mixture")
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("asked", ["keras", "bert4keras"])
def test_asking_for_the_spec_leaves_the_repaired_modules_in_place(asked):
    code = f"""
import importlib.util
import bert_theseus
importlib.util.find_spec({asked!r})
import tensorflow as tf
from bert4keras.layers import Layer
import bert4keras, keras
from bert_theseus import backend
assert keras is backend.keras is tf.keras and issubclass(Layer, keras.layers.Layer)
assert bert4keras.layers.Layer is Layer
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bert4keras_finds_strtobool_without_distutils(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: None if name == "distutils" else find_spec(name))
    for name in [name for name in sys.modules if name.split(".")[0] == "distutils"]:
        monkeypatch.delitem(sys.modules, name)
    with _environment.distutils_stand_in():
        from distutils.util import strtobool
        assert (strtobool("TRUE"), strtobool("0")) == (1, 0)
        with pytest.raises(ValueError):
            strtobool("perhaps")
    assert "distutils" not in sys.modules


def test_chatter_is_left_out_and_nothing_else(capfd, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    with _environment.without_chatter():
        os.write(2, b"I0000 00:00:1 port.cc:153] oneDNN\nE0000 a real error\n")
    assert capfd.readouterr().err == "E0000 a real error\n"


def test_unknown_distribution_is_refused():
    assert distribution() is tf.distribute.get_strategy()
    with pytest.raises(ValueError, match="'many'"):
        distribution("many")


def _layer_in_a_model():
    keras.Sequential([DenseRuns(2, seeds=[1, 2])])(np.zeros([3, 4, 5]))


def _loss_in_a_compiled_step():
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile("sgd", MarginCrossentropy([0.5, 1.0]))
    model.fit(np.zeros([2, 4]), np.zeros(2, int), verbose=0)


@pytest.mark.parametrize("refused, message", [
    (_layer_in_a_model, "3 runs for 2 seeds, DenseRuns, the first axis"),
    (_loss_in_a_compiled_step, "2 margins for 3 classes, margins, give one number a class")])
def test_an_input_error_in_a_layer_or_a_loss_stays_one_line(refused, message):
    with pytest.raises(InputError) as error:
        refused()
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


# --- recomputation ----------------------------------------------------------------------------

@pytest.fixture
def recomputed(monkeypatch):
    """What RECOMPUTE=1 does, for the layers of a BERT."""
    from tf_keras.src.backend import RandomGenerator
    for layer in (MultiHeadAttention, FeedForward, LayerNormalization):
        monkeypatch.setattr(layer, "call", _recompute.recompute_grad(layer.call))
    monkeypatch.setattr(RandomGenerator, "dropout", RandomGenerator.dropout)
    _recompute.repeat_dropout()


def test_gradients_are_equal_with_and_without_recomputation(request):
    def gradients():
        set_seed(2)
        model = small_bert(model="nezha", application="unilm").model
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(small_batch(), training=True)[..., 0] ** 3)
        return tape.gradient(loss, model.trainable_weights)

    expected = gradients()
    request.getfixturevalue("recomputed")
    assert MultiHeadAttention.call.__wrapped__
    for actual, wanted in zip(gradients(), expected):
        np.testing.assert_allclose(tf.convert_to_tensor(actual), tf.convert_to_tensor(wanted),
                                   rtol=1e-4, atol=1e-5)


def test_recomputation_runs_the_layer_again_in_the_backward_pass():
    runs = []

    class Counted(keras.layers.Layer):
        @_recompute.recompute_grad
        def call(self, inputs):
            runs.append(1)
            return [tf.exp(inputs[0]), inputs[0] * inputs[1]]

    x, y = tf.constant([2.0]), tf.constant([3.0])
    with tf.GradientTape() as tape:
        tape.watch([x, y])
        outputs = Counted()([x, y])
        assert len(runs) == 1
    gradients = tape.gradient(outputs, [x, y])
    assert len(runs) == 2
    np.testing.assert_allclose(gradients, [[np.exp(2) + 3], [2]], rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_forward_and_backward_pass_see_the_same_dropout(recomputed, compiled):
    layer = MultiHeadAttention(2, 4, attention_dropout=0.5)
    x = tf.random.normal([2, 6, 8])
    layer([x, x, x])

    def run():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer([x, x, x], training=True) ** 1)
        kernel = layer.o_dense.kernel
        return loss, tf.reduce_sum(kernel * tape.gradient(loss, kernel))

    run = tf.function(run) if compiled else run
    losses = []
    for _ in range(3):          # linear in the output kernel, so the loss is <kernel, gradient>
        loss, product = run()
        np.testing.assert_allclose(loss, product, rtol=1e-4, atol=1e-5)
        losses.append(float(loss))
    assert len(set(losses)) == 3, "the same dropout at every step"

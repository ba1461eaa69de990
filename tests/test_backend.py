"""Each repair, by a value that is wrong or an error that is raised without it."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import types
import warnings

import bert4keras.backend
import bert4keras.layers
import numpy as np
import pytest
import tensorflow as tf
from bert4keras.layers import FeedForward, LayerNormalization, MultiHeadAttention
from bert4keras.models import build_transformer_model
from bert4keras.optimizers import (
    AdaFactor, Adam, Lion, extend_with_exponential_moving_average,
    extend_with_gradient_accumulation, extend_with_layer_adaptation,
    extend_with_lazy_optimization, extend_with_lookahead, extend_with_parameter_wise_lr,
    extend_with_piecewise_linear_lr, extend_with_weight_decay)

from bert_theseus import _environment
from bert_theseus.backend import K, _recompute, _tensors, distribution, keras, set_seed

RATE, STEP = 0.1, 0.1 / (1 + 1e-6)      # Adam moves by STEP under a gradient that stays ±1


def small_bert(**kwargs):
    settings = dict(vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=16, hidden_act="gelu", max_position=12)
    return build_transformer_model(return_keras_model=False, **{**settings, **kwargs})


def small_batch():
    tokens = np.array([[2, 5, 6, 7, 3, 0, 0], [2, 9, 8, 3, 11, 12, 3]])
    return [tokens, np.array([[0] * 7, [0] * 4 + [1] * 3])]


def small_model():
    set_seed(1)
    return keras.Sequential([keras.layers.Embedding(20, 4, input_length=7), keras.layers.Dense(1)])


def train(optimizer, start, gradients, name="kernel"):
    """The values of a variable after each step, inside tf.function as in ``fit``."""
    variable = tf.Variable(np.asarray(start, "float32"), name=name)
    values = []

    @tf.function
    def step(gradient):
        optimizer.apply_gradients([(gradient, variable)])

    for gradient in gradients:
        step(tf.constant(gradient, "float32"))
        values.append(variable.numpy())
    return np.array(values)


# --- optimizers -------------------------------------------------------------------------------

def test_optimizers_are_of_the_one_kind_bert4keras_extends():
    model = keras.Sequential([keras.layers.Dense(1, input_shape=(2,))])
    model.compile("adam", "mse")
    old = keras.optimizers.legacy.Optimizer
    assert isinstance(model.optimizer, old) and isinstance(Adam(), old)
    assert keras.optimizers.Adam is keras.optimizers.legacy.Adam


def test_weight_decay_takes_its_share_of_the_weight():
    optimizer = extend_with_weight_decay(Adam)(RATE, weight_decay_rate=0.5)
    values = train(optimizer, [1.0, -2.0], [[1, 1]])
    np.testing.assert_allclose(values[0], [1 - STEP - 0.05, -2 - STEP + 0.1], rtol=1e-5)


def test_layer_adaptation_scales_by_the_ratio_of_norms():
    values = train(extend_with_layer_adaptation(Adam)(RATE), [3.0, 4.0], [[1, 1]])
    move = STEP * 5 / (np.sqrt(2) / (1 + 1e-6))
    np.testing.assert_allclose(values[0], [3 - move, 4 - move], rtol=1e-5)


def test_piecewise_linear_rate():
    optimizer = extend_with_piecewise_linear_lr(Adam)(RATE, lr_schedule={2: 1, 4: 0})
    values = train(optimizer, [0.0], [[1]] * 6)[:, 0]
    np.testing.assert_allclose(np.diff(values, prepend=0) / -STEP, [0, .5, 1, .5, 0, 0], atol=1e-5)


def test_gradient_accumulation_moves_by_the_mean_of_its_steps():
    optimizer = extend_with_gradient_accumulation(Adam)(RATE, grad_accum_steps=2,
                                                        bias_correction=False)
    values = train(optimizer, [0.0], [[1], [3], [0], [0], [0]])[:, 0]
    reference = train(Adam(RATE, bias_correction=False), [0.0], [[0], [2], [0]])[:, 0]
    assert values[0] == values[1] == 0 and values[2] == values[3] != 0
    # The moments are updated at every second step only, the first of them with no gradient yet.
    np.testing.assert_allclose(values[[0, 2, 4]], reference, rtol=1e-5)


def test_lookahead_goes_back_half_way_every_k_steps():
    optimizer = extend_with_lookahead(Adam)(RATE, steps_per_slow_update=3, slow_step_size=0.5)
    values = train(optimizer, [1.0], [[1]] * 4)[:, 0]
    slow = 0.5 * (1 - STEP)             # slow weights start from zero, first update at step 0
    fast = slow - 2 * STEP
    slow = slow + 0.5 * (fast - STEP - slow)
    np.testing.assert_allclose(values, [0.5 * (1 - STEP), fast + STEP, fast, slow], rtol=1e-5)


def test_lazy_optimization_leaves_rows_without_gradient():
    optimizer = extend_with_lazy_optimization(Adam)(
        RATE, include_in_lazy_optimization=["Embedding"])
    both, first = [[1, 1], [1, 1]], [[1, 1], [0, 0]]
    values = train(optimizer, np.zeros([2, 2]), [both, first], name="Embedding")
    assert (values[1][1] == values[0][1]).all() and (values[1][0] != values[0][0]).all()


def test_moving_average_is_applied_and_taken_back():
    optimizer = extend_with_exponential_moving_average(Adam)(RATE, ema_momentum=0.5)
    variable = tf.Variable([1.0])
    for _ in range(2):
        optimizer.apply_gradients([(tf.constant([1.0]), variable)])
    optimizer.apply_ema_weights()
    mean = (0.25 * (1 - STEP) + 0.5 * (1 - 2 * STEP)) / 0.75
    np.testing.assert_allclose(variable, [mean], rtol=1e-5)
    optimizer.reset_old_weights()
    np.testing.assert_allclose(variable, [1 - 2 * STEP], rtol=1e-5)


def test_parameter_wise_rate():
    optimizer = extend_with_parameter_wise_lr(Adam)(RATE, paramwise_lr_schedule={"kern": 0.5})
    np.testing.assert_allclose(train(optimizer, [0.0], [[1]]), [[-STEP / 2]], rtol=1e-5)


def test_all_eight_together_train_in_fit():
    optimizer = Adam
    for extend in (extend_with_weight_decay, extend_with_layer_adaptation,
                   extend_with_piecewise_linear_lr, extend_with_gradient_accumulation,
                   extend_with_lookahead, extend_with_lazy_optimization,
                   extend_with_exponential_moving_average, extend_with_parameter_wise_lr):
        optimizer = extend(optimizer)
    model = small_model()
    model.compile(optimizer(0.2, lr_schedule={2: 1}, include_in_lazy_optimization=["Embedding"]),
                  "mse")
    losses = model.fit(small_batch()[0], np.ones([2, 7, 1]), epochs=60, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_adafactor_in_fit_has_one_learning_rate_that_can_be_changed():
    model = small_model()
    optimizer = AdaFactor(0.1)
    model.compile(optimizer, "mse")
    losses = model.fit(small_batch()[0], np.ones([2, 7, 1]), epochs=20, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert optimizer.learning_rate is optimizer.learning_rate
    K.set_value(optimizer.learning_rate, 0.0)
    before = model.get_weights()
    model.fit(small_batch()[0], np.ones([2, 7, 1]), verbose=0)
    assert all((a == b).all() for a, b in zip(before, model.get_weights()))
    assert optimizer.get_config()["learning_rate"] == 0.0


def test_adafactor_steps_equal_the_paper():
    gradient = np.random.RandomState(0).randn(128, 130)
    start = np.random.RandomState(1).randn(128, 130)
    for rate in (None, 0.01):
        optimizer = AdaFactor.from_config(AdaFactor(rate).get_config())
        square = gradient ** 2 + 1e-30
        rows, columns = square.mean(1, keepdims=True), square.mean(0, keepdims=True)
        update = gradient / np.sqrt(rows * columns / rows.mean())   # beta2 is 0 at the first step
        update /= max(1, np.sqrt((update ** 2).mean()))
        update *= np.sqrt((start ** 2).mean())
        expected = start - 0.01 * update                            # min(0.01, 1/sqrt(1)) too
        np.testing.assert_allclose(train(optimizer, start, [gradient])[0], expected, atol=1e-5)


def test_lion_moves_by_signs_and_is_found_again():
    config = keras.optimizers.serialize(Lion(RATE, beta_1=0.5, beta_2=0.5))
    optimizer = keras.optimizers.deserialize(config)
    values = train(optimizer, [0.0], [[1], [-0.4], [-0.4]])[:, 0]
    np.testing.assert_allclose(values, [-0.1, -0.2, -0.1], atol=1e-6)


@pytest.mark.parametrize("make", [Adam, Lion, AdaFactor, extend_with_weight_decay(Adam),
                                  keras.optimizers.SGD])
def test_lr_is_the_learning_rate(make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert float(K.get_value(make(lr=0.25).learning_rate)) == 0.25
    if make is not keras.optimizers.SGD:
        with pytest.raises(TypeError):
            make(0.1, lr=0.25)


def test_adam_takes_epsilon_none():
    assert Adam(epsilon=None).epsilon == K.epsilon()


# --- tensor functions -------------------------------------------------------------------------

@pytest.fixture(scope="module")
def original():
    """bert4keras' own backend functions, from its file run once more beside the repaired one."""
    names = ("where", "reshape", "flatten", "symbolic", "logsumexp")
    repaired = {name: getattr(K, name) for name in names}
    objects = dict(keras.utils.get_custom_objects())
    spec = importlib.util.spec_from_file_location("original", bert4keras.backend.__file__)
    module = importlib.util.module_from_spec(spec)
    with _environment.distutils_stand_in():
        spec.loader.exec_module(module)
    for name, function in repaired.items():
        setattr(K, name, function)
    keras.utils.get_custom_objects().update(objects)
    return module


FLOATS, INTS = np.arange(6.).reshape(2, 3).astype("float32"), np.arange(6).reshape(2, 3)
WHERE = [
    (FLOATS > 2, FLOATS, -np.inf), (FLOATS > 2, 0, FLOATS), (FLOATS, FLOATS, -1.5),
    (FLOATS[:, :1] > 2, FLOATS, FLOATS[:1]), (FLOATS[0] > 1, FLOATS, 1), (INTS > 2, INTS, 7),
    (INTS, 1, 0), (True, FLOATS, 0.0), (FLOATS[..., None] > 1, FLOATS[0], [1.0, 2.0, 3.0]),
    (INTS > 1, np.float64(2.5), FLOATS)]


@pytest.mark.parametrize("case", range(len(WHERE)))
def test_where_gives_the_same_values_and_types(original, case):
    parts = [tf.constant(p) if isinstance(p, np.ndarray) else p for p in WHERE[case]]
    actual, expected = K.where(*parts), original.where(*parts)
    assert actual.dtype == expected.dtype and actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def test_where_keeps_the_type_of_half_precision(original):
    x = tf.constant([1.0, 2.0], "float16")
    for function in (K.where, original.where):
        assert function(x > 1, x, -np.inf).dtype == "float16"


RESHAPE = [((2, 3), -1), ((2, 3), 2), ((-1, 3), 2), ((3, -1), 2, (2, -1), 1), ((-1,), 0),
           ((2, 2), 1, (3, 2), -1), ((1, 4), 1)]


@pytest.mark.parametrize("signature", [(3, 4, 6), (None, 4, 6), (None, None, 6), (None,) * 3])
def test_reshape_and_flatten_give_the_same_values(original, signature):
    x = np.arange(72.).reshape(3, 4, 6)

    def run(backend):
        return tf.function(lambda x: [backend.reshape(x, *case) for case in RESHAPE] + [
            backend.flatten(x), backend.flatten(x, 1), backend.flatten(x, 0, 2),
            backend.flatten(x, -2)], input_signature=[tf.TensorSpec(signature, "float64")])

    actual, expected = run(bert4keras.backend), run(original)
    for a, e, case in zip(actual(x), expected(x), RESHAPE + ["flatten"] * 4):
        np.testing.assert_array_equal(a, e, err_msg=str(case))
    for a, e in zip(tf.nest.flatten(actual.get_concrete_function().structured_outputs),
                    tf.nest.flatten(expected.get_concrete_function().structured_outputs)):
        assert a.shape.as_list() == e.shape.as_list()


def test_a_single_unknown_size_is_left_to_reshape():
    function = tf.function(lambda x: (K.reshape(x, (2, 3), -1), K.flatten(x, 1)),
                           input_signature=[tf.TensorSpec([None, 4, 6])])
    kinds = {op.type for op in function.get_concrete_function().graph.get_operations()}
    assert kinds <= {"Placeholder", "Const", "Reshape", "Identity"}


def test_reshape_survives_an_empty_batch():
    assert K.reshape(tf.zeros([0, 4, 6]), (2, 3), -1).shape == (0, 4, 2, 3)
    function = tf.function(lambda x: K.reshape(x, (2, 3), -1),
                           input_signature=[tf.TensorSpec([None, None, 6])])
    assert function(tf.zeros([2, 0, 6])).shape == (2, 0, 2, 3)


@pytest.mark.parametrize("axes, ndim", [([0, 1], 4), ([0, -1], 4), ([0, 1, -1], 4), ([0, 2], None),
                                        ([1], 3), ([0, -2, -1], 4)])
def test_align_gives_the_same_values(original, axes, ndim):
    x = tf.reshape(tf.range(2 ** len(axes)), [2] * len(axes))
    actual, expected = _tensors.align(x, axes, ndim), original.align(x, axes, ndim)
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual, expected)


def test_attention_of_known_size_computes_no_shape_at_run_time():
    model = small_bert(sequence_length=7).model
    graph = tf.function(model).get_concrete_function(
        [tf.TensorSpec([2, 7]), tf.TensorSpec([2, 7])]).graph
    kinds = {op.type for op in graph.get_operations() if "MultiHead" in op.name}
    assert not kinds & {"BroadcastArgs", "BroadcastTo", "Shape", "StridedSlice", "Pack", "Prod"}
    assert "SelectV2" in kinds


@pytest.mark.parametrize("model", ["bert", "roformer", "nezha"])
def test_a_model_gives_the_same_outputs_before_and_after_the_repairs(original, monkeypatch, model):
    settings = dict(model=model, with_mlm="linear", application="unilm")
    set_seed(3)
    repaired = small_bert(**settings).model
    expected = repaired(small_batch())
    for owner in (K, bert4keras.backend):
        for name in ("where", "reshape", "flatten"):
            monkeypatch.setattr(owner, name, getattr(original, name))
    for owner in (bert4keras.backend, bert4keras.layers):
        monkeypatch.setattr(owner, "align", original.align)
    unrepaired = small_bert(**settings).model
    unrepaired.set_weights(repaired.get_weights())
    np.testing.assert_allclose(unrepaired(small_batch()), expected, atol=1e-6)


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

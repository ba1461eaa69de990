"""Tensor functions of the backend beside bert4keras' own."""

import importlib.metadata
import importlib.util

import bert4keras.backend
import bert4keras.layers
import numpy as np
import pytest
import tensorflow as tf

from bert_theseus import _environment
from bert_theseus.backend import K, _tensors, keras, set_seed

from small import small_batch, small_bert


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

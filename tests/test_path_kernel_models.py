"""Tangent kernels of different architectures against the tape's Jacobian, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.path_kernel import Adam, PathKernelMachine, SGD, tangent_kernel
from bert_theseus.path_kernel.contraction import contract, prefers_matrices
from bert_theseus.path_kernel.recording import example_seeds, recorded
from bert_theseus.path_kernel.signals import Signals, cheapest
from bert_theseus.path_kernel.sites import DenseSite, Factor

L = keras.layers
IDS = np.random.default_rng(0).integers(0, 9, (4, 5))
X = np.random.default_rng(1).normal(size=(4, 4))


def jacobian_kernel(model, x):
    """[n, n, outputs, outputs] from the whole Jacobian."""
    with tf.GradientTape() as tape:
        f = model(tf.convert_to_tensor(x), training=False)
    parts = tape.jacobian(f, model.trainable_variables)
    jac = np.concatenate([np.reshape(tf.convert_to_tensor(p), [*f.shape, -1]) for p in parts], -1)
    return np.einsum("qdk,bck->qbdc", jac, jac)


@pytest.fixture(autouse=True)
def double():
    """Models of this file are built in float64."""
    set_precision("float64")
    yield
    set_precision("float32")


def set_precision(dtype):
    """Both, since a policy that was ever set (also "float32") overrides floatx."""
    keras.backend.set_floatx(dtype)
    keras.mixed_precision.set_global_policy(dtype)


def words():
    return keras.Sequential([L.Embedding(9, 6, input_length=5), L.Dense(4, "tanh"),
                             L.LayerNormalization(), L.Flatten(), L.Dense(3, "softmax")])


MODELS = {
    "dense": (lambda: keras.Sequential([L.Dense(5, "tanh", input_shape=(4,)), L.Dense(3)]), X),
    "embedding, layer norm, softmax": (words, IDS),
    "convolution": (lambda: keras.Sequential(
        [L.Conv1D(3, 2, input_shape=(5, 2)), L.Flatten(), L.Dense(2, use_bias=False)]),
        np.random.default_rng(2).normal(size=(3, 5, 2))),
    "recurrent": (lambda: keras.Sequential(
        [L.Embedding(9, 3, mask_zero=True), L.SimpleRNN(3), L.Dense(2)]), IDS),
}


@pytest.mark.parametrize("name", MODELS)
def test_tangent_kernel_is_that_of_the_jacobian(name):
    make, x = MODELS[name]
    model = make()
    expected = jacobian_kernel(model, x)
    np.testing.assert_allclose(tangent_kernel(model, x), expected, rtol=1e-7,
                               atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(tangent_kernel(model, x, x[:2], diagonal=True),
                               np.einsum("qbdd->qbd", expected[:, :2]), rtol=1e-7,
                               atol=1e-12 * np.abs(expected).max())


def test_a_layer_called_twice_and_a_tied_embedding():
    """The former is two lots of positions; the latter's factors do not add up and are dropped."""
    shared, table = L.Dense(4, "tanh"), L.Embedding(9, 4)
    ids = keras.Input((5,), dtype="int64")
    hidden = shared(shared(table(ids)))
    logits = L.Lambda(lambda h: tf.einsum("bpm,vm->bpv", h, table.embeddings))(hidden)
    model = keras.Model(ids, L.GlobalAveragePooling1D()(logits))
    result = PathKernelMachine(model, "mse").fit(
        IDS, np.eye(9)[:4], IDS[:2], SGD(0.05), epochs=2, batch_size=None, quadrature="simpson")
    assert np.abs(result.output - result.initial).max() > 1e-5
    assert result.max_residual < 1e-9


def test_matrices_and_factors_give_the_same_products():
    """Long sequences in a narrow layer are contracted the other way; the sum is one."""
    rng = np.random.default_rng(0)
    layer = L.Dense(2)
    layer.build((None, 3))
    site = DenseSite(layer)
    query, example = (Factor(tf.constant(rng.normal(size=(n, p, 3))),
                             tf.constant(rng.normal(size=(n, 2, p, 2))))
                      for n, p in ((3, 9), (4, 8)))
    assert prefers_matrices(site, query, example)
    np.testing.assert_allclose(contract([site], [query], [example]),
                               site.pairwise(query, example, same=False), rtol=1e-9)
    np.testing.assert_allclose(contract([site], [query], [example], same=True),
                               site.pairwise(query, example, same=True), rtol=1e-9)


@pytest.fixture(scope="module")
def by_method():
    """Contributions and kernels of a network with dropout, by (method, optimizer)."""
    set_precision("float64")
    model = keras.Sequential([L.Dense(5, "tanh", input_shape=(4,)), L.Dropout(0.5), L.Dense(3)])
    start, found = model.get_weights(), {}
    for method in ("auto", "vectorized", "sequential", "forward"):
        machine = PathKernelMachine(model, "sparse_categorical_crossentropy", method=method)
        for name, optimizer in (("sgd", SGD(0.1)), ("adam", Adam(0.01))):
            model.set_weights(start)
            found[method, name] = machine.fit(X, [0, 1, 2, 1], X[:2], optimizer, 2, 3,
                                              kernel="full")
    return found


@pytest.mark.parametrize("method", ["vectorized", "sequential", "forward"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_methods_agree(by_method, method, optimizer):
    """With dropout: the masks are the same however the gradients are formed."""
    result, expected = by_method[method, optimizer], by_method["auto", optimizer]
    assert np.abs(expected.contributions).max() > 1e-3
    np.testing.assert_allclose(result.contributions, expected.contributions, atol=1e-12)
    np.testing.assert_allclose(result.kernel, expected.kernel, atol=1e-12)


def test_dropout_adds_up_and_its_masks_are_dropout():
    model = keras.Sequential([L.Dense(6, "tanh", input_shape=(4,)), L.Dropout(0.5), L.Dense(1)])
    x = np.random.default_rng(1).normal(size=(8, 4))
    result = PathKernelMachine(model, "mse").fit(x, x[:, 0], x[:3], SGD(0.02, 0.5), 4, 4,
                                                 quadrature="simpson")
    assert result.max_residual < 1e-6
    layer, ones = L.Dropout(0.3), tf.ones([200, 500], tf.float64)
    seeds = tf.constant(example_seeds(0, 0, np.arange(200)))
    with recorded([], seeds):
        first, second = layer(ones, training=True).numpy(), layer(ones, training=True).numpy()
    assert abs((first == 0).mean() - 0.3) < 0.01 and abs(first.mean() - 1) < 0.02
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02          # another draw
    assert np.abs(np.corrcoef(first[:20]) - np.eye(20)).max() < 0.2              # other examples
    assert np.isclose((1 - 0.3) * first.max(), 1)
    assert layer(ones, training=True).numpy()[0].mean() != first[0].mean()       # Keras' own again


def test_a_bert4keras_model_with_all_its_weights():
    """Embeddings, attention, layer norm, dropout in the attention: whatever bert4keras builds."""
    set_precision("float32")
    from bert4keras.models import build_transformer_model
    keras.utils.set_random_seed(0)
    bert = build_transformer_model(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, hidden_act="gelu", hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1, max_position=5, segment_vocab_size=2)
    model = keras.Model(bert.inputs, L.Dense(3)(L.Lambda(lambda h: h[:, 0])(bert.output)))
    model.set_weights([8 * w if w.ndim > 1 else w for w in model.get_weights()])  # 8 units, not 768
    ids = [IDS, np.zeros_like(IDS)]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    result = PathKernelMachine(model, loss).fit(ids, [0, 1, 2, 1], [i[:2] for i in ids],
                                                SGD(0.001), 3, 2, quadrature="simpson")
    assert np.abs(result.output - result.initial).max() > 0.1
    assert result.max_residual < 1e-3 * np.abs(result.output - result.initial).max()


def test_softmax_in_the_model_has_the_loss_gradient_of_its_probabilities():
    """Keras' crossentropy reaches behind a softmax; a = −∂l/∂f is of the output itself."""
    model = keras.Sequential([L.Dense(3, "softmax", input_shape=(4,))])
    x = MODELS["dense"][1]
    machine = PathKernelMachine(model, "sparse_categorical_crossentropy")
    p = model(x).numpy()
    result = machine.fit(x, [0, 1, 2, 1], x, SGD(1e-6), 1, None, kernel="full")
    expected = np.zeros((4, 3))
    expected[np.arange(4), [0, 1, 2, 1]] = 1 / p[np.arange(4), [0, 1, 2, 1]] / 4
    products = np.einsum("qndc,nc->qnd", result.kernel, expected)
    np.testing.assert_allclose(result.contributions, products, rtol=1e-6, atol=1e-12)


def fit_one_unit(*arguments, model=None, loss="mse", method="auto", **options):
    """A fit of a model of one unit (or the one given) on four examples (or the arguments given)."""
    model = model or keras.Sequential([L.Dense(1, input_shape=(4,))])
    arguments = arguments or (X, X[:, 0], X)
    return PathKernelMachine(model, loss, method=method).fit(*arguments, **options)


BAD = {
    r"shape \(4, 3\) does not fit": dict(arguments=(X, X[:, 0], X[:, :3])),
    r"inputs \['a', 'b'\] for a model with": dict(arguments=({"a": X, "b": X}, X[:, 0], X)),
    "arrays are empty": dict(arguments=(X, X[:, 0], X[:0])),
    r"\(2,\) targets for 4 examples": dict(arguments=(X, X[:2, 0], X)),
    "cannot take the targets": dict(arguments=(np.tile(X, [20, 1]), 5 * (np.arange(80) == 79), X),
                                    loss="sparse_categorical_crossentropy"),
    "no gradient": dict(loss=lambda y, f: tf.cast(tf.argmax(f, -1), tf.float64)),
    "the loss has no gradient: it is zero": dict(loss=lambda y, f: tf.reduce_sum(f * 0, -1)),
    "one number for the whole batch": dict(loss=lambda y, f: tf.reduce_mean(f)),
    "unknown loss": dict(loss="no such loss"),
    "unknown quadrature": dict(quadrature="trapezoid"),
    "unknown kernel": dict(kernel="diagonal"),
    "optimizer 'rmsprop'": dict(optimizer="rmsprop"),
    "clipnorm": dict(optimizer="clipped"),
    "epochs is 0": dict(epochs=0),
    r"\(3,\) weights for 4 examples": dict(sample_weight=np.ones(3)),
    "unknown method": dict(method="magic"),
    "snapshots need plain SGD": dict(optimizer="adam", snapshots=2),
    "lower the learning rate": dict(optimizer=1e200, epochs=9),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_in_one_line(what):
    options = dict(BAD[what])
    if options.get("optimizer") == "clipped":
        options["optimizer"] = keras.optimizers.SGD(0.1, clipnorm=1.0)
    with pytest.raises(InputError, match=what) as error:
        fit_one_unit(*options.pop("arguments", ()), **options)
    assert "\n" not in str(error.value)


def between(layer):
    """A small network with ``layer`` in its middle."""
    return keras.Sequential([L.Dense(3, input_shape=(4,)), layer, L.Dense(1)])


DEPENDENT = {
    "batch normalisation in training mode": lambda: between(L.BatchNormalization()),
    "depends on the others": lambda: between(L.Lambda(lambda h: h - tf.reduce_mean(h, 0))),
    "random numbers": lambda: between(L.GaussianNoise(1.0)),
    "losses of its own": lambda: between(L.Dense(2, kernel_regularizer="l2")),
}


@pytest.mark.parametrize("what", DEPENDENT)
def test_models_whose_examples_depend_on_each_other_are_refused(what):
    with pytest.raises(InputError, match=what) as error:
        fit_one_unit(model=DEPENDENT[what]())
    assert "\n" not in str(error.value)


def test_frozen_batch_normalisation_is_fine_and_a_frozen_model_is_not():
    norm = L.BatchNormalization(trainable=False)
    model = between(norm)
    assert fit_one_unit(model=model, optimizer=0.01, epochs=2, batch_size=None).max_residual < 0.01
    model.trainable = False
    with pytest.raises(InputError, match="no trainable weights"):
        fit_one_unit(model=model)


def test_forward_products_are_chosen_where_they_cost_less_and_agree():
    """A convolution's example gradients cost several forward products: few queries take these."""
    model = MODELS["convolution"][0]()
    x, start = MODELS["convolution"][1], model.get_weights()
    assert cheapest(model, "auto", 2, every_output=False) == "forward"           # 2 · 2 outputs
    assert cheapest(model, "auto", 3, every_output=False) == "auto"
    assert cheapest(model, "auto", 3, every_output=True) == "forward"            # 2 gradients each
    assert cheapest(model, "vectorized", 1, every_output=False) == "vectorized"
    assert cheapest(MODELS["recurrent"][0](), "auto", 1, every_output=False) == "auto"
    assert cheapest(MODELS["dense"][0](), "auto", 1, every_output=False) == "auto"
    results = []
    for method in ("auto", "vectorized"):
        model.set_weights(start)
        results.append(fit_one_unit(x, x[:, 0], x[:2], model=model, method=method, optimizer=0.1,
                                    epochs=2, batch_size=2))
    np.testing.assert_allclose(results[0].contributions, results[1].contributions, atol=1e-12)
    with pytest.raises(InputError, match="loop of a recurrent layer"):
        Signals(MODELS["recurrent"][0](), method="forward")


def test_a_job_too_large_is_refused_before_it_starts():
    model = keras.Sequential([L.Dense(1, input_shape=(4,))])
    start = model.get_weights()
    with pytest.raises(InputError, match="needs about .* GiB and 0.00 GiB are allowed"):
        fit_one_unit(model=model, memory_limit=1000)
    np.testing.assert_array_equal(model.get_weights()[0], start[0])
    with pytest.raises(InputError, match="fewer queries"):
        tangent_kernel(model, MODELS["dense"][1], memory_limit=10)


def test_layers_only_says_what_is_left():
    with pytest.raises(InputError, match="outside of dense and embedding layers"):
        Signals(words(), method="layers")

"""The path kernel against a slow reference that follows every example's own share of every step."""

import numpy as np
import pytest
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.path_kernel import SGD, Adam, PathKernelMachine, tangent_kernel
from bert_theseus.path_kernel.data import batches

L = keras.layers
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
OPTIMIZERS = {
    "sgd": SGD(0.1), "schedule": SGD(lambda step: 0.1 / (1 + step)),
    "momentum": SGD(0.05, 0.9), "nesterov": SGD(0.05, 0.9, nesterov=True),
    "l2": SGD(0.1, 0.5, l2=0.1), "decay": SGD(0.1, weight_decay=0.2),
    "adam": Adam(0.01), "adamw": Adam(0.01, weight_decay=0.1, l2=0.01),
}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 4)), rng.integers(0, 3, 7), rng.normal(size=(3, 4))


@pytest.fixture(scope="module")
def tanh():
    """A two-layer network in float64, a machine that is traced once, and its first weights."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([L.Input((4,), dtype="float64"), L.Dense(6, "tanh", dtype="float64"),
                              L.Dense(3, dtype="float64")])
    return PathKernelMachine(model, LOGITS), model.get_weights()


@pytest.fixture(scope="module")
def linear():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([L.Input((4,), dtype="float64"), L.Dense(3, dtype="float64")])
    return PathKernelMachine(model, LOGITS), model.get_weights()


def fit(machine_and_weights, *arguments, **options):
    machine, weights = machine_and_weights
    machine.model.set_weights(weights)
    return machine.fit(*arguments, **options)


# a reference that stores everything

def jacobian(model, x):
    """([batch, outputs, weights], outputs) of the two-layer tanh network, by hand."""
    w1, b1, w2, b2 = model.get_weights()
    h = np.tanh(x @ w1 + b1)
    eye, slope = np.eye(w2.shape[1]), 1 - h**2                             # ∂tanh
    to_hidden = w2.T[None] * slope[:, None]                                # [batch, outputs, h]
    parts = [np.einsum("bi,bdh->bdih", x, to_hidden), to_hidden,
             np.einsum("bh,dc->bdhc", h, eye), np.tile(eye, (len(x), 1, 1))]
    return np.concatenate([p.reshape(*to_hidden.shape[:2], -1) for p in parts], -1), h @ w2 + b2


def put(model, flat):
    sizes = np.cumsum([int(np.prod(v.shape)) for v in model.trainable_variables])
    for v, part in zip(model.trainable_variables, np.split(flat, sizes[:-1])):
        v.assign(part.reshape(v.shape))


def flat_weights(model):
    return np.concatenate([v.numpy().ravel() for v in model.trainable_variables])


def reference(model, x, y, q, optimizer, epochs, batch_size, nodes=((0.0, 1.0),)):
    """Contributions [queries, examples, outputs] with a velocity and a weight share an example;
    share 0 is the initial weights'. Every share obeys the optimizer's own textbook rule."""
    theta = flat_weights(model)
    shares = np.zeros([len(x) + 1, len(theta)])
    shares[0] = theta
    velocity, squares = np.zeros_like(shares), np.zeros_like(theta)
    total = 0.0
    for step, index in enumerate(batches(len(x), epochs, batch_size, True, 0)):
        put(model, theta)
        jac, f = jacobian(model, x[index])
        softmax = np.exp(f) / np.exp(f).sum(-1, keepdims=True)
        slope = (softmax - np.eye(3)[y[index]]) / len(index)                 # ∂L/∂f
        gradient = np.zeros_like(shares)
        gradient[1 + index] = np.einsum("bd,bdp->bp", slope, jac)
        gradient += optimizer.l2 * shares
        rate = optimizer.rate(step)
        if isinstance(optimizer, Adam):
            squares = 0.999 * squares + 0.001 * gradient.sum(0) ** 2
            velocity = 0.9 * velocity + 0.1 * gradient
            hat = velocity / (1 - 0.9 ** (step + 1))
            move = -rate * hat / (np.sqrt(squares / (1 - 0.999 ** (step + 1))) + 1e-7
                                  / np.sqrt(1 - 0.999 ** (step + 1)))
        else:
            velocity = optimizer.momentum * velocity - rate * gradient
            move = (optimizer.momentum * velocity - rate * gradient if optimizer.nesterov
                    else velocity)
        move = move - rate * optimizer.weight_decay * shares
        mean = 0.0
        for node, weight in nodes:
            put(model, theta + node * move.sum(0))
            mean = mean + weight * jacobian(model, q)[0]
        total = total + np.einsum("qdp,np->qnd", mean, move)
        shares, theta = shares + move, theta + move.sum(0)
    put(model, theta)
    return total


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_contributions_are_those_of_the_reference(tanh, data, name):
    x, y, q = data
    result = fit(tanh, x, y, q, OPTIMIZERS[name], epochs=3, batch_size=3)
    ours = flat_weights(tanh[0].model)
    tanh[0].model.set_weights(tanh[1])
    expected = reference(tanh[0].model, x, y, q, OPTIMIZERS[name], 3, 3)
    np.testing.assert_allclose(flat_weights(tanh[0].model), ours, rtol=1e-9)
    np.testing.assert_allclose(result.contributions, expected[:, 1:], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(result.decayed, expected[:, 0], rtol=1e-8, atol=1e-12)


def test_simpson_is_the_mean_of_the_nodes_in_the_reference(tanh, data):
    x, y, q = data
    result = fit(tanh, x, y, q, OPTIMIZERS["momentum"], epochs=2, batch_size=3,
                 quadrature="simpson")
    tanh[0].model.set_weights(tanh[1])
    nodes = ((0.0, 1 / 6), (0.5, 4 / 6), (1.0, 1 / 6))
    expected = reference(tanh[0].model, x, y, q, OPTIMIZERS["momentum"], 2, 3, nodes)
    np.testing.assert_allclose(result.contributions, expected[:, 1:], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_linear_model_leaves_no_residual(linear, data, name):
    result = fit(linear, *data, OPTIMIZERS[name], epochs=20, batch_size=3)
    assert np.abs(result.output - result.initial).max() > 0.1
    assert result.max_residual <= 1e-10


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_simpson_leaves_a_millionth(tanh, data, name):
    result = fit(tanh, *data, OPTIMIZERS[name], epochs=10, batch_size=None, quadrature="simpson")
    assert np.abs(result.output - result.initial).max() > 0.1
    assert result.max_residual <= 1e-6


@pytest.mark.parametrize("rule, order", [("left", 1), ("midpoint", 2), ("simpson", 4)])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_residual_falls_with_the_order_of_the_rule(tanh, data, rule, order, momentum):
    """The same stretch of the flow in 16 and 32 steps: the slope in the log–log plot."""
    residuals = []
    for steps in (16, 32):
        optimizer = SGD(3.0 / steps, momentum)
        result = fit(tanh, *data, optimizer, epochs=steps, batch_size=None, quadrature=rule)
        residuals.append(np.linalg.norm(result.residual))
    assert order - 0.4 < np.log2(residuals[0] / residuals[1]) < order + 0.6


def test_the_step_is_keras_own(data):
    """The recursions walk the path Keras' optimizers walk."""
    x, y, q = data
    new = keras.optimizers.experimental
    for make in (lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
                 lambda: new.SGD(0.1, momentum=0.9, weight_decay=0.1),
                 lambda: keras.optimizers.Adam(0.01), lambda: new.AdamW(0.01, weight_decay=0.1)):
        model = keras.Sequential([L.Input((4,)), L.Dense(3)])
        start = model.get_weights()
        model.compile(make(), LOGITS)
        for _ in range(5):
            model.train_on_batch(x, y)
        expected = model(q.astype("float32")).numpy()
        model.set_weights(start)
        result = PathKernelMachine(model, LOGITS).fit(x, y, q, make(), 5, batch_size=None)
        np.testing.assert_allclose(result.output, expected, rtol=1e-4, atol=1e-5)


def test_sum_is_mean_at_a_smaller_rate(linear, data):
    machine, weights = linear
    mean = fit(linear, *data, 0.7, epochs=3, batch_size=None)
    machine.model.set_weights(weights)
    summed = PathKernelMachine(machine.model, LOGITS, reduction="sum").fit(
        *data, 0.1, epochs=3, batch_size=None)
    np.testing.assert_allclose(summed.contributions, mean.contributions, rtol=1e-9, atol=1e-12)
    assert PathKernelMachine(machine.model, keras.losses.MeanSquaredError(
        reduction="sum")).reduction == "sum"


def test_own_decay_is_booked_apart_and_still_adds_up(tanh, data):
    options = dict(epochs=5, batch_size=3, quadrature="simpson")
    shared = fit(tanh, *data, OPTIMIZERS["adamw"], **options)
    own = fit(tanh, *data, OPTIMIZERS["adamw"], share_decay=False, **options)
    assert shared.max_residual < 1e-6 and own.max_residual < 1e-6
    assert np.abs(own.contributions - shared.contributions).max() > 1e-4


def test_queries_in_chunks_and_a_path_from_checkpoints(tanh, data, monkeypatch):
    from bert_theseus.path_kernel import adjoint, checks
    whole = fit(tanh, *data, OPTIMIZERS["adamw"], epochs=4, batch_size=3)
    monkeypatch.setattr(adjoint, "PATH", 0)
    monkeypatch.setattr(checks, "QUERIES", 1)
    pieces = fit(tanh, *data, OPTIMIZERS["adamw"], epochs=4, batch_size=3)
    np.testing.assert_allclose(pieces.contributions, whole.contributions, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(pieces.decayed, whole.decayed, rtol=1e-10)


def test_examples_in_chunks(tanh, data, monkeypatch):
    from bert_theseus.path_kernel import memory, run
    whole = fit(tanh, *data, 0.1, epochs=2, batch_size=None, quadrature="simpson")
    monkeypatch.setattr(memory, "CHUNK", 1)
    monkeypatch.setattr(run, "KEEP", 0)
    pieces = fit(tanh, *data, 0.1, epochs=2, batch_size=None, quadrature="simpson")
    np.testing.assert_allclose(pieces.contributions, whole.contributions, rtol=1e-10, atol=1e-14)


def test_kernel_and_alpha_give_the_contributions(tanh, data):
    x, y, q = data
    plain = fit(tanh, x, y, q, 0.1, epochs=2, batch_size=3)
    mean = fit(tanh, x, y, q, 0.1, epochs=2, batch_size=3, kernel="mean")
    full = fit(tanh, x, y, q, 0.1, epochs=2, batch_size=3, kernel="full")
    for result in (mean, full):
        np.testing.assert_allclose(result.contributions, plain.contributions, atol=1e-13)
    np.testing.assert_allclose(mean.alpha * mean.kernel[..., None], plain.contributions, atol=1e-13)
    np.testing.assert_allclose(np.einsum("qndc,qnc->qnd", full.kernel, full.alpha),
                               plain.contributions, atol=1e-12)
    np.testing.assert_allclose(np.trace(full.kernel, axis1=2, axis2=3) / 3, mean.kernel)


def test_one_step_has_the_tangent_kernel_of_the_start(tanh, data):
    x, y, q = data
    machine, weights = tanh
    machine.model.set_weights(weights)
    expected = tangent_kernel(machine.model, q, x)
    result = fit(tanh, x, y, q, 0.1, epochs=1, batch_size=None, kernel="full")
    np.testing.assert_allclose(result.kernel, 0.1 * expected, rtol=1e-10)
    slope = np.eye(3)[y] - tf.nn.softmax(machine.model(x)).numpy()         # after the step: close
    assert np.abs(result.alpha[0] * len(x) - slope).max() < 0.2


def test_snapshots_lie_on_the_way(tanh, data):
    result = fit(tanh, *data, 0.1, epochs=4, batch_size=None, kernel="mean", snapshots=2)
    assert [step for step, *_ in result.snapshots] == [2, 4]
    half = fit(tanh, *data, 0.1, epochs=2, batch_size=None)
    np.testing.assert_allclose(result.snapshots[0][1], half.contributions, atol=1e-13)
    np.testing.assert_array_equal(result.snapshots[1][2], result.kernel)

"""Linear attention against the quadratic sum it stands for, in float64 numpy."""

import numpy as np
import pytest
import tensorflow as tf
from bert4keras.backend import apply_rotary_position_embeddings, sinusoidal_embeddings
from harness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_theseus.errors import InputError
from bert_theseus.performer import (KERNELS, favor_attention, favor_state, favor_step,
                                    gaussian_projection, orthogonal_projection, softmax_attention)

B, N, H, D, M = 2, 150, 2, 8, 16       # N: two whole chunks and a part of one
CAUSAL = [name for name, kernel in KERNELS.items() if not kernel.per_feature]
ROWS = orthogonal_projection(M, D, seed=3)


def _qkv(length=N, scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    query, key, value = random.normal(size=(3, B, length, H, D)).astype("float32")
    return scale * query, scale * key, value


def _features(kernel, x, is_query):
    """φ(x) written as in the articles: float64, no stabiliser."""
    x = np.asarray(x, "float64")
    projected = D**-0.25 * np.einsum("bnhd,md->bnhm", x, ROWS)
    square = np.square(x).sum(-1, keepdims=True) / D**0.5
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return {
        "favor": lambda: np.exp(projected - square / 2) / M**0.5,
        "trigonometric": lambda: np.exp(square / 2) * np.concatenate(
            [np.cos(projected), np.sin(projected)], -1) / M**0.5,
        "relu": lambda: np.maximum(projected, 0) + 1e-3,
        "elu": lambda: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))),
        "one_plus_cos": lambda: np.concatenate([np.ones_like(x[..., :1]), unit], -1),
        "double_softmax": lambda: np.exp(x) / np.exp(x).sum(-1 if is_query else 1, keepdims=True),
    }[kernel]()


def _quadratic(kernel, query, key, value, visible, turn=lambda features: features):
    """The sum over all pairs; ``visible`` broadcasts to [batch, heads, query, key]."""
    q, k = _features(kernel, query, True), _features(kernel, key, False)
    weights = np.einsum("bjhm,bkhm->bhjk", q, k) * visible
    turned = np.einsum("bjhm,bkhm->bhjk", turn(q), turn(k)) * visible
    normaliser = weights.sum(-1).transpose(0, 2, 1)[..., None]
    return np.einsum("bhjk,bkhd->bjhd", turned, value.astype("float64")) / normaliser


def _segments():
    segments = np.zeros((B, N), int)
    segments[0, 70:], segments[1, 5:] = 1, 1
    return segments


def _visible(mask):
    lower = np.tril(np.ones((N, N)))[None, None]
    index = np.cumsum(_segments(), 1)
    unilm = (index[:, None, :] <= index[:, :, None])[:, None]
    return {"all": np.ones((1, 1, 1, 1)), "causal": lower, "unilm": unilm}[mask]


def _arguments(mask):
    return {"all": {}, "causal": {"causal": True}, "unilm": {"segment_ids": _segments()}}[mask]


@pytest.mark.parametrize("mask", ["all", "causal", "unilm"])
@pytest.mark.parametrize("kernel", CAUSAL)
def test_equals_the_sum_over_all_pairs(kernel, mask):
    qkv = _qkv(scale=0.7)
    if KERNELS[kernel].signed:      # similarities that cancel lose float32's digits
        qkv = tuple(x.astype("float64") for x in qkv)
    actual = favor_attention(*qkv, ROWS, kernel=kernel, **_arguments(mask))
    assert_close(actual, _quadratic(kernel, *qkv, _visible(mask)))


def test_double_softmax_equals_its_definition_and_masks_keys_before_the_softmax():
    query, key, value = _qkv()
    assert_close(favor_attention(query, key, value, kernel="double_softmax"),
                 _quadratic("double_softmax", query, key, value, 1.0))
    masked = favor_attention(query, key, value, None, np.arange(N)[None] < [[90]] * B,
                             kernel="double_softmax")
    assert_close(masked, favor_attention(query, key[:, :90], value[:, :90],
                                         kernel="double_softmax"))


@pytest.mark.parametrize("mask", ["all", "causal", "unilm"])
@pytest.mark.parametrize("kernel", ["favor", "elu"])
def test_rotary_positions_turn_the_numerator_only(kernel, mask):
    query, key, value = _qkv(scale=0.5)
    positions = sinusoidal_embeddings(tf.range(float(N))[None], D)
    size = M if kernel == "favor" else D
    angles = tf.cast(tf.tile(positions, [1, 1, size // D]), tf.float64)

    def turn(features):
        return apply_rotary_position_embeddings(angles, tf.constant(features)).numpy()
    actual = favor_attention(query, key, value, ROWS, kernel=kernel, rotary=positions,
                             **_arguments(mask))
    assert_close(actual, _quadratic(kernel, query, key, value, _visible(mask), turn))


def test_rotary_at_the_inputs_is_attention_of_rotated_queries_and_keys():
    query, key, value = _qkv()
    positions = sinusoidal_embeddings(tf.range(float(N))[None], D)
    turned = apply_rotary_position_embeddings(positions, tf.constant(query), tf.constant(key))
    assert_close(favor_attention(query, key, value, ROWS, rotary=positions, rotary_at="inputs"),
                 favor_attention(*turned, value, ROWS))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel", CAUSAL)
@settings(max_examples=4, deadline=None)
@given(padding=st.integers(0, 90), size=st.floats(0, 1e3), seed=st.integers(0, 99))
def test_padding_of_any_length_and_content_changes_nothing(kernel, causal, padding, size, seed):
    qkv = _qkv(length=40)
    junk = size * np.random.default_rng(seed).normal(size=(3, B, padding, H, D))
    padded = [np.concatenate([x, y], 1).astype("float32") for x, y in zip(qkv, junk)]
    mask = np.broadcast_to(np.arange(40 + padding) < 40, (B, 40 + padding))
    expected = favor_attention(*qkv, ROWS, causal=causal, kernel=kernel)
    actual = favor_attention(*padded, ROWS, mask, causal, kernel=kernel)
    assert_close(actual[:, :40], expected, 1e-5)


def test_padding_may_hold_what_is_not_a_number():
    query, key, value = _qkv(length=20)
    mask = np.broadcast_to(np.arange(20) < 12, (B, 20))
    expected = favor_attention(query, key[:, :12], value[:, :12], ROWS)
    key[:, 12:], value[:, 12:] = np.nan, np.inf
    assert_close(favor_attention(query, key, value, ROWS, mask), expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_row_without_keys_gives_zeros(kernel):
    mask = np.ones((B, N))
    mask[1] = 0
    for causal in ([False] if KERNELS[kernel].per_feature else [False, True]):
        output = favor_attention(*_qkv(), ROWS, mask, causal, kernel=kernel).numpy()
        assert np.all(output[1] == 0) and np.all(np.abs(output[0]).max(-1) > 0)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
@pytest.mark.parametrize("norm", [1.0, 30.0, 1e3])
def test_no_norm_gives_nan_in_value_or_gradient(norm, dtype):
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in _qkv()]
    tensors = [tf.Variable(tf.cast(s * x, dtype)) for s, x in zip((norm, norm, 1), unit)]
    for arguments in ({}, {"causal": True}, {"segment_ids": _segments()}):
        with tf.GradientTape() as tape:
            output = favor_attention(*tensors, ROWS, **arguments)
            loss = tf.reduce_sum(tf.square(output))
        for x in [output, *tape.gradient(loss, tensors)]:
            assert x.dtype == dtype and np.all(np.isfinite(tf.cast(x, tf.float32)))


def test_bfloat16_is_the_float32_result_rounded():
    qkv = [tf.cast(x, tf.bfloat16) for x in _qkv(scale=2.0)]
    exact = favor_attention(*(tf.cast(x, tf.float32) for x in qkv), ROWS)
    assert_close(tf.cast(favor_attention(*qkv, ROWS), tf.float32), exact, 1 / 128)


def test_a_large_norm_finds_its_nearest_key():
    """Norms of 300 underflow every unshifted exponent; the sum of pairs in logarithms does not."""
    query, key, value = (x.astype("float64") for x in _qkv(length=30, scale=100.0))
    log = [D**-0.25 * np.einsum("bnhd,md->bnhm", x, ROWS) - np.square(x).sum(-1)[..., None]
           / 2 / D**0.5 for x in (query, key)]
    log = [np.swapaxes(x, 1, 2) for x in log]
    pairs = log[0][:, :, :, None] + log[1][:, :, None]
    top = pairs.max((-1, -2), keepdims=True)
    weights = np.exp(pairs - top).sum(-1)
    expected = np.einsum("bhjk,bkhd->bjhd", weights / weights.sum(-1, keepdims=True), value)
    assert_close(favor_attention(query, key, value, ROWS), expected)
    assert_close(favor_attention(*(x.astype("float32") for x in (query, key, value)), ROWS),
                 expected, 0.02)


def test_later_tokens_never_reach_earlier_outputs():
    query, key, value = _qkv()
    before = favor_attention(query, key, value, ROWS, causal=True)
    key[:, 100:], value[:, 100:] = 3 * key[:, 100:], 1e3
    after = favor_attention(query, key, value, ROWS, causal=True)
    assert_close(after[:, :100], before[:, :100])
    assert np.abs(after[:, 100:] - before[:, 100:]).max() > 1


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("kernel", ["favor", "trigonometric", "elu"])
def test_streaming_equals_the_parallel_form(kernel, rotary):
    qkv = [x.astype("float64") for x in _qkv(length=70)]
    positions = sinusoidal_embeddings(tf.range(70.0)[None], D) if rotary else None
    state, outputs = None, []
    for i in range(70):
        output, state = favor_step(state, *(x[:, i:i + 1] for x in qkv), ROWS, kernel=kernel,
                                   rotary=positions[:, i:i + 1] if rotary else None)
        outputs.append(output)
    parallel = favor_attention(*qkv, ROWS, causal=True, kernel=kernel, rotary=positions)
    assert_close(tf.concat(outputs, 1), parallel)


def test_streaming_after_a_question_equals_the_unilm_mask():
    query, key, value = _qkv(length=30)
    segments = np.broadcast_to(np.arange(30) >= 22, (B, 30))
    state = favor_state(key[:, :22], value[:, :22], ROWS)
    outputs = []
    for i in range(22, 30):
        output, state = favor_step(state, *(x[:, i:i + 1] for x in (query, key, value)), ROWS)
        outputs.append(output)
    parallel = favor_attention(query, key, value, ROWS, segment_ids=segments)
    assert_close(tf.concat(outputs, 1), parallel[:, 22:])


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_equal_finite_differences(causal):
    random = np.random.default_rng(0)
    qkv = [tf.constant(x) for x in random.normal(size=(3, 1, 70, 1, 4))]
    rows = orthogonal_projection(6, 4, seed=0)
    weights = random.normal(size=(1, 70, 1, 4))

    def loss(*tensors):
        return tf.reduce_sum(weights * favor_attention(*tensors, rows, causal=causal))
    with tf.GradientTape() as tape:
        tape.watch(qkv)
        value = loss(*qkv)
    for i, gradient in enumerate(tape.gradient(value, qkv)):
        direction = random.normal(size=gradient.shape)
        ends = [loss(*(x + s * 1e-5 * direction if i == j else x for j, x in enumerate(qkv)))
                for s in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(tf.reduce_sum(gradient * direction), slope, rtol=1e-6)


def test_the_state_and_what_is_kept_for_gradients_grow_linearly():
    """The largest tensor of the traced graph, forward and backward: twice the length, twice."""
    def elements(length):
        @tf.function
        def step(query, key, value):
            output = favor_attention(query, key, value, ROWS, causal=True)
            return tf.gradients(tf.reduce_sum(output), [query, key, value])
        graph = step.get_concrete_function(*[tf.TensorSpec([1, length, H, D])] * 3).graph
        sizes = [np.prod(t.shape) for op in graph.get_operations() for t in op.outputs
                 if t.shape.is_fully_defined()]
        return max(sizes), len(graph.get_operations())
    (small, operations), (large, more_operations) = elements(1024), elements(4096)
    assert large <= 4.01 * small and more_operations < 1.02 * operations


def test_cross_attention_takes_another_length_of_keys():
    query, key, value = _qkv()
    assert_close(favor_attention(query[:, :7], key, value, ROWS),
                 favor_attention(query, key, value, ROWS)[:, :7])


def test_favor_approaches_exact_attention_like_one_over_the_root_of_the_features():
    query, key, value = _qkv(length=40, scale=0.4)
    for arguments in ({}, {"causal": True}):
        exact = softmax_attention(query, key, value, **arguments)
        errors = [np.mean([np.square(favor_attention(
            query, key, value, orthogonal_projection(m, D, seed), **arguments) - exact).mean()
            for seed in range(8)])**0.5 for m in (32, 512)]
        assert 0.18 < errors[1] / errors[0] < 0.35      # (32 / 512)^½ = 0.25


def test_exact_attention_equals_its_definition():
    query, key, value = _qkv(length=20)
    mask = np.arange(20) < 13
    scores = np.exp(np.einsum("bjhd,bkhd->bhjk", query, key) / D**0.5) * mask
    expected = np.einsum("bhjk,bkhd->bjhd", scores / scores.sum(-1, keepdims=True), value)
    assert_close(softmax_attention(query, key, value, np.broadcast_to(mask, (B, 20))), expected)


@pytest.mark.parametrize("change, message", [
    (dict(kernel="gauss"), "unknown kernel 'gauss'"),
    (dict(projection=None), "has no projection"),
    (dict(projection=np.ones((4, 3), "float32")), "head size 3"),
    (dict(query=np.ones((B, N, H, 3), "float32")), "queries have size 3"),
    (dict(query=np.ones((B, N, D), "float32")), "rank 3"),
    (dict(kernel="double_softmax", causal=True), "no causal"),
    (dict(segment_ids=_segments(), causal=True), "contradicts segment_ids"),
    (dict(query=np.ones((B, 7, H, D), "float32"), causal=True), "7 queries and 150 keys"),
    (dict(rotary=np.ones((1, N, D)), rotary_at="values"), "rotary_at is 'values'"),
    (dict(rotary=np.ones((1, N, D), "float32"), kernel="one_plus_cos"), "turn pairs"),
])
def test_bad_input_is_one_line(change, message):
    arguments = dict(zip(("query", "key", "value"), _qkv()), projection=ROWS) | change
    with pytest.raises(InputError, match=message) as error:
        favor_attention(**arguments)
    assert "\n" not in str(error.value)


def test_projections_refuse_sizes_below_one():
    for make in (orthogonal_projection, gaussian_projection):
        with pytest.raises(InputError, match="num_features is 0"):
            make(0, 8, seed=0)

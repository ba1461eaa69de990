"""Pre-training, from shards to weights: masks, layers, updates, each against a plain reference."""

import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.wobert import (
    AdamW, LearningRate, MaskedLanguageModel, Packing, Pretrainer, Recipe, batches,
    mask_tokens, write_records)
from bert_theseus.wobert import lean
from bert_theseus.wobert.mlm import masked_metrics
from bert_theseus.wobert.optimizer import Accumulator, decays
from bert_theseus.wobert.warm_start import cooccurrence_start
from bert4keras.models import build_transformer_model

from pretraining_texts import TOKENS, VOCAB, texts, tokenizer

ORDINARY = list(range(5, len(TOKENS)))
SIZES = dict(vocab_size=len(TOKENS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
             intermediate_size=16, hidden_act="gelu", max_position=16)


# masks

def test_shares_of_masks():
    ids = np.random.default_rng(0).choice(ORDINARY, (200, 100))
    ids[:, 0], ids[:, -1] = VOCAB["[CLS]"], VOCAB["[SEP]"]
    inputs, positions, labels = mask_tokens(ids, (1, 2), VOCAB["[MASK]"], ORDINARY)
    flat = inputs.numpy().ravel()[positions]
    np.testing.assert_array_equal(labels, ids.ravel()[positions])
    untouched = np.setdiff1d(np.arange(ids.size), positions)
    np.testing.assert_array_equal(inputs.numpy().ravel()[untouched], ids.ravel()[untouched])
    assert np.isin(ids.ravel()[positions], ORDINARY).all()  # neither [CLS] nor [SEP]
    assert abs(len(positions) / (200 * 98) - 0.15) < 0.01
    masked, same = flat == VOCAB["[MASK]"], flat == labels.numpy()
    assert abs(masked.mean() - 0.8) < 0.03
    assert abs(same.mean() - (0.1 + 0.1 / len(ORDINARY))) < 0.03
    assert np.isin(flat[~masked], ORDINARY).all()
    again = mask_tokens(ids, (1, 2), VOCAB["[MASK]"], ORDINARY)
    np.testing.assert_array_equal(again[1], positions)
    assert len(mask_tokens(ids, (1, 3), VOCAB["[MASK]"], ORDINARY)[1]) != len(positions)


def test_words_are_masked_as_a_whole():
    ids = np.random.default_rng(0).choice(ORDINARY, (50, 40))
    continues = np.random.default_rng(1).random((50, 40)) < 0.5
    continues[:, 0] = False
    _, positions, _ = mask_tokens(ids, (1, 2), 4, ORDINARY, continues=continues)
    chosen = np.isin(np.arange(ids.size), positions).reshape(ids.shape)
    words = np.cumsum(~continues, axis=1) + 1000 * np.arange(50)[:, None]
    for word in np.unique(words):
        assert len(set(chosen[words == word])) == 1
    assert abs(chosen.mean() - 0.15) < 0.05


# model and optimizer

def test_projection_at_masked_positions_is_that_of_the_whole():
    mlm = MaskedLanguageModel(**SIZES)
    ids = np.random.default_rng(0).choice(ORDINARY, (2, 6)).astype("float32")
    everywhere = mlm.transformer.model([ids, ids * 0]).numpy().reshape(12, -1)
    positions = [1, 4, 7, 11]
    np.testing.assert_allclose(mlm.logits(ids, positions), everywhere[positions], atol=1e-5)


@pytest.mark.parametrize("model, causal", [("bert", False), ("bert", True), ("nezha", False),
                                           ("roformer", False)])
def test_lean_layers_have_the_values_and_gradients_of_bert4keras(model, causal):
    mlm = MaskedLanguageModel(model=model, **SIZES)
    mlm.draw_weights(0)
    plain = build_transformer_model(model=model, with_mlm="linear", return_keras_model=False,
                                    application="lm" if causal else "encoder", **SIZES)
    plain.model.set_weights(mlm.transformer.model.get_weights())
    ids = np.random.default_rng(0).choice(ORDINARY, (3, 6)).astype("float32")
    ids[1, 4:] = 0  # padding
    true = tf.constant(ids.ravel()[:10].astype("int32"))
    with tf.GradientTape(persistent=True) as tape:
        lean_logits = mlm.logits(ids, range(10), causal=causal)
        logits = tf.reshape(plain.model([ids, ids * 0]), [18, -1])[:10]
        loss = 3 * masked_metrics(lean_logits, true)[0]
        expected = 3 * tf.reduce_sum(
            tf.nn.sparse_softmax_cross_entropy_with_logits(true, logits))
    np.testing.assert_allclose(lean_logits, logits, atol=2e-6)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    ours = tape.gradient(loss, mlm.weights)
    theirs = tape.gradient(expected, plain.model.trainable_weights)
    for weight, one, two in zip(mlm.weights, ours, theirs):
        one, two = tf.convert_to_tensor(one), tf.convert_to_tensor(two)
        np.testing.assert_allclose(one, two, atol=2e-5 * max(1.0, float(tf.reduce_max(abs(two)))),
                                   err_msg=weight.name)


def test_gelu_compiled_and_not(monkeypatch):
    x = tf.constant(np.linspace(-6, 6, 102).reshape(17, 3, 2), tf.float32)
    exact = [0.5 * t * (1 + math.erf(t / 2 ** 0.5)) for t in x.numpy().ravel().tolist()]
    slope = [0.5 * (1 + math.erf(t / 2 ** 0.5)) + t * math.exp(-t * t / 2) / (2 * math.pi) ** 0.5
             for t in x.numpy().ravel().tolist()]
    for possible in (lean.can_compile(), False):
        monkeypatch.setattr(lean, "can_compile", lambda: possible)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = lean.gelu(x)
        np.testing.assert_allclose(np.ravel(y), exact, atol=2e-6)
        np.testing.assert_allclose(np.ravel(tape.gradient(y, x)), slope, atol=2e-6)


def test_picked_positions_are_not_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(lean, "can_compile", lambda: asked.append(1) or False)
    lean.gelu(tf.zeros([5, 2]))
    assert not asked
    lean.gelu(tf.zeros([5, 2, 2]))
    assert asked


def test_without_a_compiler_it_is_said(monkeypatch, caplog):
    def function(*args, jit_compile):
        raise tf.errors.UnimplementedError(None, None, "no XLA here")
    monkeypatch.setattr(tf, "function", function)
    assert lean.can_compile.__wrapped__() is False
    assert "uncompiled" in caplog.text and "no XLA here" in caplog.text


def test_causal_logits_do_not_look_ahead():
    mlm = MaskedLanguageModel(**SIZES)
    mlm.draw_weights(0)
    ids = np.random.default_rng(0).choice(ORDINARY, (1, 6)).astype("float32")
    other = ids.copy()
    other[0, 4] = ids[0, 4] % 10 + 6
    for causal, equal in ((True, True), (False, False)):
        same = np.allclose(mlm.logits(ids, [0, 1, 2, 3], causal=causal),
                           mlm.logits(other, [0, 1, 2, 3], causal=causal), atol=1e-7)
        assert same is equal


def test_drawn_kernels_differ_and_follow_the_seed():
    mlm = MaskedLanguageModel(**SIZES)
    mlm.draw_weights(3)
    first = [w.numpy() for w in mlm.weights]
    kernels = [w.tobytes() for w in first if w.ndim == 2]
    assert len(set(kernels)) == len(kernels)
    mlm.draw_weights(3)
    for one, two in zip(first, mlm.weights):
        np.testing.assert_array_equal(one, two)


def test_adamw_against_the_formula():
    draw = np.random.default_rng(0)
    kernel, norm = tf.Variable(draw.normal(size=(3, 2)).astype("float32"), name="Dense/kernel"), \
        tf.Variable(draw.normal(size=3).astype("float32"), name="MLM-Norm/gamma")
    optimizer = AdamW([kernel, norm], weight_decay=0.1, beta_2=0.98, epsilon=1e-6)
    expected = [[w.numpy().astype("float64"), 0.0, 0.0, decay]
                for w, decay in ((kernel, 0.1), (norm, 0.0))]
    for t in range(1, 5):
        gradients = [draw.normal(size=w.shape).astype("float32") for w in (kernel, norm)]
        optimizer.apply([tf.constant(g) for g in gradients], 0.01 * t)
        for state, g in zip(expected, gradients):
            state[1] = 0.9 * state[1] + 0.1 * g
            state[2] = 0.98 * state[2] + 0.02 * g * g
            m, v = state[1] / (1 - 0.9 ** t), state[2] / (1 - 0.98 ** t)
            correction = np.sqrt(1 - 0.98 ** t)  # ε stands beside √v, not beside √v̂
            step = m / (np.sqrt(v) + 1e-6 / correction)
            state[0] = state[0] * (1 - 0.01 * t * state[3]) - 0.01 * t * step
    for weight, state in zip((kernel, norm), expected):
        np.testing.assert_allclose(weight, state[0], rtol=2e-5)


def test_what_decays():
    mlm = MaskedLanguageModel(**SIZES)
    kept = {w.name for w in mlm.weights if not decays(w.name)}
    assert all(len(w.shape) == 1 for w in mlm.weights if w.name in kept)
    assert all(len(w.shape) > 1 for w in mlm.weights if w.name not in kept)


def test_learning_rate():
    rate = LearningRate(1.0, steps=10, warmup=2)
    assert [round(rate(s), 3) for s in (0, 1, 2, 6, 9)] == [0.5, 1.0, 1.0, 0.5, 0.125]


def test_accumulator_holds_one_copy():
    weights = [tf.Variable(tf.zeros([5, 2])), tf.Variable(tf.zeros([2]))]
    accumulator = Accumulator(weights)
    assert [v.shape for v in accumulator.sums] == [w.shape for w in weights]
    sparse = tf.IndexedSlices(tf.ones([2, 2]), tf.constant([1, 1]), tf.constant([5, 2]))
    for _ in range(2):
        accumulator.add([sparse, tf.ones([2])])
    table, vector = accumulator.take()
    assert table.numpy().tolist()[1] == [4.0, 4.0] and vector.numpy().tolist() == [2.0, 2.0]
    assert all(float(tf.reduce_sum(abs(v))) == 0 for v in accumulator.sums)


def test_metrics_count_masked_positions():
    logits = tf.constant([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    loss, hits = masked_metrics(logits, tf.constant([1, 2]))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert abs(float(loss) + np.log(p[0, 1]) + np.log(p[1, 2])) < 1e-5 and float(hits) == 1


def test_cooccurrence_start_is_frequency_and_company():
    draw = np.random.default_rng(0)
    rows = np.concatenate([draw.integers(5, 10, (300, 12)), draw.integers(10, 15, (100, 12))])
    embeddings, bias = cooccurrence_start([rows[:200], rows[200:]], 16, 4, deviation=0.05)
    assert abs(embeddings[5:15].std() - 0.05) < 1e-3
    same, other = embeddings[5] @ embeddings[6], embeddings[5] @ embeddings[12]
    assert same > 3 * abs(other)
    counts = np.bincount(rows.ravel(), minlength=16) + 1
    np.testing.assert_allclose(bias, np.log(counts / counts.sum()), rtol=1e-5)


# the loop

def trainer(folder, steps=6, **changes):
    mlm = MaskedLanguageModel(**SIZES)
    mlm.draw_weights(1)
    recipe = Recipe(**{**dict(steps=steps, batch_size=4, maxlen=16, learning_rate=1e-2, warmup=2,
                              decay=3, rate=0.3, seed=7), **changes})
    return Pretrainer(mlm, "records", recipe, VOCAB["[MASK]"], ORDINARY, folder)


@pytest.fixture
def records():
    write_records("records", texts(), tokenizer, Packing(maxlen=16, shards=2, unseen_one_in=5))


def test_an_interrupted_run_ends_at_the_same_weights(records):
    whole = trainer("whole", causal_steps=2)
    whole.run(report_steps=2, unseen_steps=3)
    part = trainer("part", steps=4, decay=1, causal_steps=2)  # another end, the same beginning
    part.rate = whole.rate
    part.run()
    rest = trainer("part", causal_steps=2)
    assert rest.restore() and rest.step == 4
    rest.run(report_steps=2, unseen_steps=3)
    for one, two in zip(whole.mlm.weights, rest.mlm.weights):
        np.testing.assert_array_equal(one, two)
    assert whole.metrics[-1]["unseen_loss"] == rest.metrics[-1]["unseen_loss"]
    lines = [json.loads(line) for line in Path("part/metrics.jsonl").read_text().splitlines()]
    assert lines == rest.metrics and lines[-1]["step"] == 6
    with pytest.raises(InputError, match="batch_size=4"):
        trainer("part", batch_size=5).restore()


def test_accumulated_steps_are_one_large_batch(records):
    """Two micro steps of 4 are one step on those 8 rows, weighted by their masked positions."""
    small = trainer("small", steps=1, accumulate=2, clip_norm=None)
    small.run(unseen_steps=0)
    large = trainer("large", steps=1, clip_norm=None)
    rows = [batch for batch in islice(batches("records", 4, 16, 7), 2)]
    with tf.GradientTape() as tape:
        parts = [large._forward(b, tf.constant([7, i + 1]), True) for i, b in enumerate(rows)]
        mean = (parts[0][0] + parts[1][0]) / (parts[0][2] + parts[1][2])
    large.optimizer.apply(tape.gradient(mean, large.mlm.weights), large.rate(0))
    for one, two in zip(small.mlm.weights, large.mlm.weights):
        np.testing.assert_allclose(one, two, atol=2e-5)


def test_training_learns(records):
    run = trainer("run", steps=150, learning_rate=2e-2, warmup=5, decay=None)
    before = run.unseen()
    metrics = run.run(report_steps=50, unseen_steps=0)
    assert metrics[-1]["unseen_loss"] < before["unseen_loss"]
    assert list(Path("run/tensorboard").glob("events*"))
    assert metrics[-1]["tokens_per_second"] > 0

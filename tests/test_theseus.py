import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from harness import assert_close, check_layer

from bert_theseus.backend import keras, set_seed
from bert_theseus.errors import InputError
from bert_theseus.export import export_bert
from bert_theseus.theseus import (BinaryRandomChoice, ConstantRate, LinearRate, ModuleReplacing,
                                  ReplacingDraws, ReplacingRateScheduler, bert_of_theseus,
                                  check_schedule, classification_head, distillation_model,
                                  module_groups, tagging_head)

HIDDEN = 8


def transformer(layers, model="bert", dropout=0.0, **kwargs):
    from bert4keras.models import build_transformer_model
    config = {"vocab_size": 30, "hidden_size": HIDDEN, "num_hidden_layers": layers,
              "num_attention_heads": 2, "intermediate_size": 16, "hidden_act": "gelu",
              "max_position_embeddings": 16, "type_vocab_size": 2, "embedding_size": HIDDEN,
              "attention_probs_dropout_prob": dropout, "hidden_dropout_prob": dropout}
    with open("bert_config.json", "w") as file:
        json.dump(config, file)
    built = build_transformer_model("bert_config.json", model=model, return_keras_model=False,
                                    **kwargs)
    for weight in built.model.weights:      # larger than BERT's 0.02: differences must show
        if len(weight.shape) > 1:
            weight.assign(tf.random.normal(weight.shape, stddev=0.3))
    return built


def batch(rows=4, length=7, padded=2):
    ids = np.random.RandomState(0).randint(1, 30, (rows, length))
    ids[1:, length - padded:] = 0
    segments = (np.arange(length) > 3) * np.ones((rows, 1), int)
    return [ids.astype("int32"), segments.astype("int32")], np.arange(rows) % 3


def predecessor_output(built, head, x):
    outputs = built.model(x)
    return head(outputs)


def loss_gradients(model, x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(
            y, model(x, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    return [np.zeros(w.shape) if g is None else tf.convert_to_tensor(g).numpy()
            for g, w in zip(gradients, model.trainable_variables)], loss


@pytest.mark.parametrize("make, call", [
    (lambda: BinaryRandomChoice(0.3, seed=1), {}),
    (lambda: BinaryRandomChoice(1.0, draw="sample"), {"training": True}),
    (lambda: BinaryRandomChoice(0.0), {"training": True}),
])
def test_choice_layer_passes_the_harness(make, call):
    inputs = [np.full((2, 3, 4), 1, "float32"), np.full((2, 3, 4), 2, "float32")]
    output = check_layer(make, inputs, call=call)
    rate = make().initial_rate if call else 1
    assert np.all(output == (2 if rate else 1))


def test_draws_and_replacing_layer_pass_the_harness():
    check_layer(lambda: ReplacingDraws(num_modules=3, draw="sample", seed=1),
                np.ones((2, 3), "float32"))
    dense = [keras.layers.Dense(4), keras.layers.Dense(4)]
    check_layer(lambda: ModuleReplacing(*dense), [np.ones((2, 3, 4), "float32"),
                                                  np.array([[True], [False]])])


def test_draw_frequency_is_the_rate_and_draws_are_independent():
    choices = ReplacingDraws(num_modules=4, replacing_rate=0.3, draw="sample", seed=3)(
        np.zeros((20000, 1)), training=True).numpy()
    assert np.allclose(choices.mean(0), 0.3, atol=0.02)
    assert np.abs(np.corrcoef(choices.T) - np.eye(4)).max() < 0.03
    per_batch = ReplacingDraws(num_modules=4, seed=3)(np.zeros((8, 1)), training=True)
    assert per_batch.shape == (1, 4)


def test_generator_state_is_a_weight_and_continues_the_sequence():
    layer = ReplacingDraws(num_modules=5, seed=7)
    x = np.zeros((1, 1))
    layer(x, training=True)
    saved = layer.get_weights()
    expected = [layer(x, training=True).numpy() for _ in range(4)]
    layer.set_weights(saved)
    assert_close([layer(x, training=True).numpy() for _ in range(4)], expected)
    assert len({e.tobytes() for e in expected}) > 1


@pytest.mark.parametrize("model, kwargs, draw", [
    ("bert", {}, "batch"),
    ("bert", {}, "sample"),
    ("roformer", {}, "sample"),
    ("nezha", {"application": "unilm"}, "batch"),
    ("electra", {}, "batch"),
    ("albert_unshared", {}, "batch"),
    ("bert", {"custom_position_ids": True, "application": "lm"}, "sample"),
])
def test_one_branch_gives_the_outputs_and_gradients_of_mixing_both(model, kwargs, draw):
    set_seed(0)
    predecessor, successor = (transformer(n, model, prefix=p, **kwargs)
                              for n, p in ((3, "Predecessor-"), (2, "Successor-")))
    head = classification_head(HIDDEN, 3)
    x, y = batch()
    if kwargs.get("custom_position_ids"):
        x = x + [np.tile(np.arange(7), (4, 1)).astype("int32")]
    lazy, mixed = (bert_of_theseus(predecessor, successor, head, draw=draw, lazy=lazy, seed=5)
                   for lazy in (True, False))
    seen = set()
    for _ in range(3):
        (ours, loss), (reference, expected) = (loss_gradients(m, x, y) for m in (lazy, mixed))
        assert_close([loss.numpy(), *ours], [expected.numpy(), *reference], 1e-5)
        seen.add(float(loss))
    assert len(seen) > 1, "the draws never changed: nothing was compared"


def test_training_moves_only_the_successor_at_the_scheduled_rate():
    set_seed(0)
    predecessor, successor = transformer(3, prefix="P-"), transformer(2, prefix="S-")
    head, schedule = classification_head(HIDDEN, 3), LinearRate(0.1, 0.4)
    x, y = batch()
    model, eager = (bert_of_theseus(predecessor, successor, head, schedule, seed=5)
                    for _ in range(2))
    frozen = [w.numpy() for part in (predecessor.model, head) for w in part.weights]
    start = [w.numpy() for w in successor.model.weights]
    flags = [layer.trainable for layer in predecessor.model.layers]
    expected = float(loss_gradients(eager, x, y)[1])
    assert {w.ref() for w in model.trainable_weights} == {
        w.ref() for w in successor.model.trainable_weights}
    assert len(model.weights) == 2 + sum(len(part.weights) for part in (
        predecessor.model, successor.model, head))
    model.compile("sgd", "sparse_categorical_crossentropy")
    history = model.fit(x, y, batch_size=4, epochs=5, verbose=0,
                        callbacks=[ReplacingRateScheduler(schedule)]).history
    assert history["loss"][0] == pytest.approx(expected, abs=1e-5)
    assert history["replacing_rate"] == pytest.approx([0.4, 0.5, 0.6, 0.7, 0.8])
    assert model.replacing_rate == pytest.approx(0.8)
    after = [w.numpy() for part in (predecessor.model, head) for w in part.weights]
    assert all(np.array_equal(a, b) for a, b in zip(frozen, after))
    assert [layer.trainable for layer in predecessor.model.layers] == flags
    assert all(not np.array_equal(a, w.numpy()) for a, w in zip(start, successor.model.weights))


@pytest.mark.parametrize("lazy", [True, False])
def test_rate_0_is_the_predecessor_and_rate_1_the_successor_to_the_bit(lazy):
    set_seed(1)
    predecessor, successor = transformer(2, prefix="P-"), transformer(1, prefix="S-")
    head = classification_head(HIDDEN, 3)
    x, _ = batch()
    model = bert_of_theseus(predecessor, successor, head, replacing_rate=0.0, lazy=lazy)
    assert model.replacing_rate == 0
    assert np.array_equal(model(x, training=True), head(predecessor.model(x)))
    model.replacing_rate = 1
    assert np.array_equal(model(x, training=True), head(successor.model(x)))
    model.replacing_rate = 0
    assert np.array_equal(model(x, training=False), head(successor.model(x)))
    assert np.array_equal(model.predict(x, verbose=0), keras.Model(
        successor.inputs, head(successor.model.output)).predict(x, verbose=0))


def test_inference_graph_holds_the_successor_only():
    predecessor, successor = transformer(2, prefix="P-"), transformer(1, prefix="S-")
    model = bert_of_theseus(predecessor, successor, classification_head(HIDDEN, 3))
    x, _ = batch()
    graph = tf.function(lambda *x: model(list(x), training=False)).get_concrete_function(
        *map(tf.constant, x)).graph
    read = {id(v) for v in graph.variables}
    assert not read & {id(v) for v in predecessor.model.variables}
    assert read >= {id(v) for v in successor.model.trainable_variables}


def test_shared_embeddings_are_the_predecessors_and_stay():
    set_seed(2)
    predecessor, successor = transformer(3, prefix="P-"), transformer(1, prefix="S-")
    model = bert_of_theseus(predecessor, successor, classification_head(HIDDEN, 3),
                            embeddings="share")
    table = predecessor.layers["P-Embedding-Token"].embeddings
    assert_close(successor.layers["S-Embedding-Token"].embeddings.numpy(), table.numpy(), 1e-9)
    learning = {w.ref() for w in model.trainable_weights}
    assert not any("Embedding" in w.name for w in model.trainable_weights)
    assert learning == {w.ref() for w in successor.model.trainable_weights
                        if "Embedding" not in w.name}


def test_conditional_layer_norm_is_carried_into_the_modules():
    set_seed(3)
    from bert4keras.models import build_transformer_model
    transformer(2)                                               # writes the config

    def conditional(layers, prefix):
        given = keras.Input((3,))
        return build_transformer_model(
            "bert_config.json", return_keras_model=False, num_hidden_layers=layers, prefix=prefix,
            layer_norm_cond=keras.layers.Dense(5)(given), additional_input_layers=given)

    predecessor, successor = conditional(4, "P-"), conditional(2, "S-")
    for built in (predecessor, successor):
        for w in built.model.weights:
            w.assign(tf.random.normal(w.shape, stddev=0.3))
    head = classification_head(HIDDEN, 3)
    x = batch()[0] + [np.random.RandomState(1).randn(4, 3).astype("float32")]
    model = bert_of_theseus(predecessor, successor, head, replacing_rate=0.0)
    assert_close(model(x, training=True), head(predecessor.model(x)).numpy(), 1e-6)
    assert_close(model(x), head(successor.model(x)).numpy(), 1e-6)
    other = x[:2] + [x[2] + 1]
    assert np.abs(model(other) - model(x)).max() > 1e-3


def test_tagging_head_labels_every_token_of_the_successor():
    set_seed(4)
    predecessor, successor = transformer(2, prefix="P-"), transformer(1, prefix="S-")
    head = tagging_head(HIDDEN, 3)
    model = bert_of_theseus(predecessor, successor, head, replacing_rate=0.0)
    x, _ = batch()
    hidden, (kernel, bias) = predecessor.model(x).numpy(), head.get_weights()
    scores = np.exp(hidden @ kernel + bias)
    assert_close(model(x, training=True), scores / scores.sum(-1, keepdims=True), 1e-5)


def test_distillation_loss_is_the_formula():
    set_seed(5)
    make = lambda: keras.Sequential([keras.layers.Dense(3, "softmax", input_shape=(4,))])  # noqa
    teacher, student = make(), make()
    x, y = np.random.RandomState(0).randn(5, 4).astype("float32"), np.array([0, 1, 2, 0, 1])
    p, q = teacher(x).numpy().astype("float64"), student(x).numpy().astype("float64")
    soft = [r ** 0.5 / (r ** 0.5).sum(-1, keepdims=True) for r in (p, q)]
    divergence = (soft[0] * np.log(soft[0] / soft[1])).sum(-1).mean()
    expected = 0.7 * -np.log(q[np.arange(5), y]).mean() + 0.3 * 4 * divergence
    x, y = tf.constant(x), tf.constant(y)
    model = distillation_model(teacher, student, temperature=2.0, alpha=0.3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model.compute_loss(x, y, model(x)).numpy() == pytest.approx(expected, rel=1e-5)
    before, kernel = teacher.get_weights(), student.get_weights()[0]
    model.train_on_batch(x, y)
    with tf.GradientTape() as tape:
        student.layers[0].kernel.assign(kernel)
        loss = model.compute_loss(x, y, model(x))
    assert tape.gradient(loss, teacher.trainable_weights) == [None, None]
    assert all(np.array_equal(a, b) for a, b in zip(before, teacher.get_weights()))
    assert not np.array_equal(model.get_weights()[1], np.zeros(3)), "the student learned nothing"
    with pytest.raises(InputError, match="alpha"):
        distillation_model(teacher, student, alpha=1.5)


def test_successor_leaves_as_a_folder_that_needs_only_bert4keras():
    set_seed(6)
    successor, head = transformer(2, prefix="Successor-"), classification_head(HIDDEN, 3)
    x, _ = batch()
    expected = head(successor.model(x)).numpy()
    folder = export_bert(successor, head, "out", [f"t{i}" for i in range(30)], ["a", "b", "c"])
    np.savez("x.npz", *x)
    code = """
import sys; sys.modules["bert_theseus"] = None
import numpy as np
from bert4keras.models import build_transformer_model
bert = build_transformer_model("out/bert/bert_config.json", "out/bert/bert_model.ckpt")
x, head = np.load("x.npz"), np.load("out/classifier.npz")
scores = np.exp(bert.predict([x["arr_0"], x["arr_1"]])[:, 0] @ head["kernel"] + head["bias"])
np.save("p.npy", scores / scores.sum(-1, keepdims=True))"""
    environment = {**os.environ, "TF_KERAS": "1", "TF_USE_LEGACY_KERAS": "1"}
    if sys.version_info >= (3, 12):
        pytest.skip("bert4keras alone needs distutils, which this Python no longer has")
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert_close(np.load("p.npy"), expected, 1e-5)
    assert (folder / "labels.txt").read_text() == "a\nb\nc\n"
    with pytest.raises(InputError, match="2 labels for 3 outputs"):
        export_bert(successor, head, "out", [f"t{i}" for i in range(30)], ["a", "b"])


@pytest.mark.parametrize("old, new, groups", [
    (12, 3, [4, 4, 4]), (12, 5, [3, 3, 2, 2, 2]), (7, 3, [3, 2, 2]), (4, 4, [1, 1, 1, 1])])
def test_any_depth_to_any_depth(old, new, groups):
    made = module_groups(old, new)
    assert [len(g) for g in made] == groups and sum(made, []) == list(range(old))
    assert module_groups(old, new, made) == made


@pytest.mark.parametrize("modules, reason", [
    ([[0, 1], [3]], "leaves out layer 2"), ([[0, 1, 1], [2, 3]], "repeats layer 1"),
    ([[1, 0], [2, 3]], "reorders"), ([[0, 1, 2, 3]], "1 groups for 2"),
    ([[], [0, 1, 2, 3]], "empty group"), ([[0, 1, 2, 3], [4]], "names layer 4")])
def test_wrong_module_list_is_refused_with_the_reason(modules, reason):
    with pytest.raises(InputError, match=reason):
        module_groups(4, 2, modules)


def test_deeper_successor_or_unfit_pair_is_refused():
    with pytest.raises(InputError, match="use 1 … 3"):
        module_groups(3, 4)
    one, other = transformer(2), transformer(1, custom_position_ids=True)
    with pytest.raises(InputError, match="different inputs"):
        bert_of_theseus(one, other, classification_head(HIDDEN, 2))
    with pytest.raises(InputError, match="share"):
        bert_of_theseus(one, one, classification_head(HIDDEN, 2))
    with pytest.raises(InputError, match="use 'replace'"):
        bert_of_theseus(one, transformer(1), classification_head(HIDDEN, 2), embeddings="keep")


def test_schedules():
    assert [LinearRate(0.25, 0.5)(s) for s in range(4)] == [0.5, 0.75, 1, 1]
    assert ConstantRate(0)(9) == 0
    with pytest.raises(InputError):
        ConstantRate(1.2)
    with pytest.raises(InputError, match="positive"):
        LinearRate(0, 0.5)
    with pytest.raises(InputError, match="fine-tune the successor directly"):
        check_schedule(ConstantRate(1))
    check_schedule(LinearRate(1e-3, 0.9))

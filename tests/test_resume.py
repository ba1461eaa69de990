"""Training that is killed at any step and goes on: equal to the last bit."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from bert4keras.models import build_transformer_model
from bert4keras.optimizers import Adam

from bert_theseus.backend import keras, set_seed
from bert_theseus.errors import InputError
from bert_theseus.training import History, load_weights, save_weights
from bert_theseus.training.state import load_arrays, save_arrays

from training_runs import Interrupt, assert_same_weights, data, same, small_model, train


def big_enough_model():
    set_seed(3)
    json.dump({"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 2, "hidden_act": "gelu",
               "num_attention_heads": 2, "intermediate_size": 16, "hidden_dropout_prob": 0.2,
               "attention_probs_dropout_prob": 0.2, "max_position_embeddings": 16,
               "type_vocab_size": 2}, open("config.json", "w"))
    bert = build_transformer_model("config.json", return_keras_model=False)
    x = keras.layers.Lambda(lambda x: x[:, 0])(bert.output)
    model = keras.Model(bert.model.inputs, keras.layers.Dense(3, "softmax")(x))
    model.compile(Adam(1e-2), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def bert_run(folder, **options):
    source, model = data(), big_enough_model()
    make = source.make

    def with_segments(rows):
        (tokens,), labels = make(rows)
        return [tokens, 0 * tokens], labels

    source.make = with_segments
    return model, train(model, batches=source, folder=folder, epochs=2, **options)


KILLED = """
import bert_theseus, sys; sys.path.insert(0, {tests!r})
from test_resume import bert_run
from training_runs import Interrupt
import signal
bert_run({folder!r}, save_steps=1, callbacks=[Interrupt(9, signal.SIGKILL)])
"""


def test_killed_in_mid_epoch_it_ends_with_the_very_same_weights(tmp_path):
    code = KILLED.format(tests=os.path.dirname(__file__), folder=str(tmp_path / "killed"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert load_arrays("killed/state.npz")[0][0] == 8
    whole, expected = bert_run("whole", callbacks=[Interrupt(99)])
    resumed, history = bert_run("killed", resume=True, callbacks=[Interrupt(99)])
    assert same(history) == same(expected)
    assert_same_weights(resumed.get_weights(), whole.get_weights())


class Noise(keras.layers.Layer):
    """Random numbers from a generator of its own."""

    def build(self, shape):
        self.generator = tf.random.Generator.from_seed(7)

    def call(self, x, training=None):
        return x + 0.1 * self.generator.normal(tf.shape(x)) if training else x


def noisy_run(interrupt=99, **options):
    slower = keras.callbacks.ReduceLROnPlateau("val_score", 0.5, 1, mode="min")
    model = small_model(layer=Noise())
    return model, train(model, callbacks=[slower, Interrupt(interrupt)], **options)


@pytest.fixture(scope="module")
def whole_noisy_run():
    return noisy_run()


@pytest.mark.parametrize("at", [1, 6, 7, 12, 18])
def test_interrupted_at_any_step_it_ends_with_the_very_same_weights(at, whole_noisy_run):
    whole, expected = whole_noisy_run
    with pytest.raises(KeyboardInterrupt):
        noisy_run(at, folder="run", save_steps=1000)
    resumed, history = noisy_run(folder="run", resume=True)
    assert same(history) == same(expected) and len({e["lr"] for e in history.epochs}) > 1
    assert_same_weights(resumed.get_weights(), whole.get_weights())


def test_a_forgotten_piece_of_state_would_be_seen():
    """Resuming without the optimizer's slots, or at another step, gives other weights."""
    whole = small_model()
    train(whole)
    for forget in (1, -1):   # the first weight, the last captured variable of the optimizer
        with pytest.raises(KeyboardInterrupt):
            train(small_model(), folder="run", callbacks=[Interrupt(8)])
        arrays, record = load_arrays("run/state.npz")
        arrays[forget] = arrays[forget] * 0.5
        save_arrays("run/state.npz", arrays, record)
        resumed = small_model()
        train(resumed, folder="run", resume=True, callbacks=[Interrupt(99)])
        with pytest.raises(AssertionError):
            assert_same_weights(resumed.get_weights(), whole.get_weights())


def test_extra_state_is_saved(tmp_path):
    class Counter(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.generator, self.variable = tf.random.Generator.from_seed(1), tf.Variable(0)
            self.drawn = []

        def get_state(self):
            return {"drawn": self.drawn}

        def set_state(self, state):
            self.drawn = state["drawn"]

        def on_train_batch_begin(self, batch, logs=None):
            self.variable.assign_add(1)
            self.drawn.append([float(self.generator.normal([])), int(self.variable),
                               np.random.rand()])

    def run(counter, **options):
        train(small_model(), callbacks=[counter, *options.pop("more", [Interrupt(99)])],
              extra={"generator": counter.generator, "variable": counter.variable}, **options)

    np.random.seed(0)
    run(whole := Counter())
    np.random.seed(0)
    with pytest.raises(KeyboardInterrupt):
        run(Counter(), folder="a", more=[Interrupt(7)])
    np.random.seed(1)
    run(resumed := Counter(), folder="a", resume=True)
    assert resumed.drawn == whole.drawn and len(whole.drawn) == 18


def test_what_cannot_be_saved_is_said(caplog):
    noisy = keras.layers.Lambda(lambda x: x + tf.random.uniform(tf.shape(x)))
    train(small_model(layer=noisy), folder="a", epochs=1)
    assert "RandomUniform" in caplog.text and "will differ" in caplog.text
    caplog.clear()
    train(small_model(), folder="b", epochs=1)
    assert not caplog.text


def test_a_finished_run_returns_at_once_with_its_best_weights():
    model = small_model()
    first = train(model, folder="a")
    assert not os.path.exists("a/state.npz")
    again = small_model(dropout=0.3)
    second = train(again, folder="a", resume=True, evaluate=lambda model: 1 / 0)
    assert second == first and isinstance(second, History)
    assert_same_weights(again.get_weights(), model.get_weights())
    assert train(small_model(), folder="a", epochs=1, evaluate=lambda model: 7).best == 7


@pytest.mark.parametrize("change, message", [
    (dict(epochs=4), "epochs was 3, is now 4"),
    (dict(seed=9), "seed was 0, is now 9"),
    (dict(batches=data(batch_size=5)), "steps per epoch was 6, is now 5"),
    (dict(batches=data(size=21)), "examples was 22, is now 21"),
    (dict(model=dict(units=5)), "parameters was 95, is now 118"),
    (dict(model=dict(optimizer=Adam(1e-3))), "optimizer settings was"),
    (dict(model=dict(optimizer="sgd")), "optimizer was \"Adam\", is now \"SGD\""),
])
def test_other_settings_are_refused(change, message):
    with pytest.raises(KeyboardInterrupt):
        train(small_model(), folder="a", callbacks=[Interrupt(4)])
    model = small_model(**change.pop("model", {}))
    before = os.path.getmtime("a/state.npz")
    with pytest.raises(InputError, match="cannot go on with other settings: " + message):
        train(model, folder="a", resume=True, **change)
    assert os.path.getmtime("a/state.npz") == before


def test_a_failing_save_leaves_the_old_state(monkeypatch):
    save_arrays("a.npz", [np.arange(3)], {"step": 1})
    monkeypatch.setattr(os, "fsync", lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_arrays("a.npz", [np.arange(4)], {"step": 2})
    assert load_arrays("a.npz")[1] == {"step": 1} and os.listdir() == ["a.npz"]


def test_damaged_and_foreign_files_are_named():
    save_weights(small_model(), "a.npz")
    with pytest.raises(InputError, match=r"\[20, 4\] here, \[20, 5\] in the model, a.npz"):
        load_weights(small_model(units=5), "a.npz")
    whole = open("a.npz", "rb").read()
    os.makedirs("run")
    for content in (whole[:len(whole) // 2], b"", b"text"):
        open("run/state.npz", "wb").write(content)
        with pytest.raises(InputError, match="not a saved state.*run/state.npz.*start anew"):
            train(small_model(), folder="run", resume=True)

"""Training: equality with Keras' own loop, and with itself after being killed at any step."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from bert4keras.models import build_transformer_model
from bert4keras.optimizers import Adam

from bert_theseus.backend import keras, set_seed
from bert_theseus.clue import NumpyBatches
from bert_theseus.errors import InputError
from bert_theseus.training import History, TrainingStep, fit, load_weights, save_weights
from bert_theseus.training.ahead import Ahead
from bert_theseus.training.saving import SaveTimer
from bert_theseus.training.state import load_arrays, save_arrays

SIZE, BATCH = 22, 4


def data(seed=0, size=SIZE, batch_size=BATCH):
    random = np.random.default_rng(0)
    lengths = random.integers(3, 9, size)
    tokens = random.integers(1, 20, [size, 9]).astype("int32")
    labels = tokens[:, 0] % 3

    def make(rows):
        return [tokens[rows, :lengths[rows].max()]], labels[rows]

    return NumpyBatches(size, batch_size, make, True, seed, lengths, tokens.tobytes())


def small_model(dropout=0.3, units=4, optimizer=None, layer=None):
    set_seed(5)
    tokens = keras.Input([None], dtype="int32")
    x = keras.layers.Embedding(20, units)(tokens)
    x = keras.layers.Dropout(dropout)(x)
    x = layer(x) if layer else x
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = keras.layers.Dropout(dropout)(x)
    model = keras.Model([tokens], keras.layers.Dense(3)(x))
    model.compile(optimizer or Adam(1e-2), metrics=["accuracy"],
                  loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def score(model):
    """A dev metric that goes up and down."""
    return float(np.sin(1e3 * np.abs(model.get_weights()[0]).sum()))


def train(model, **options):
    options = {"epochs": 3, "evaluate": score, "progress": False, **options}
    return fit(model, options.pop("batches", None) or data(), **options)


def assert_same_weights(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def same(history):
    """What of a history does not depend on the clock."""
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in history.epochs], (
        history.best, history.best_epoch, history.monitor)


class Interrupt(keras.callbacks.Callback):
    """Stops the program at the end of a training step, counted over all epochs."""

    def __init__(self, at, how=None):
        super().__init__()
        self.at, self.how, self.done = at, how, 0

    def get_state(self):
        return None

    def set_state(self, state):
        pass

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        if self.done == self.at:
            if self.how is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), self.how)


# the loop itself

def test_same_weights_as_keras_own_fit():
    ours, theirs = small_model(dropout=0.0), small_model(dropout=0.0)
    history = train(ours, evaluate=None, epochs=2)
    batches = data()
    feed = (batch for epoch in range(2) for batch in batches.epoch(epoch))
    expected = theirs.fit(feed, steps_per_epoch=len(batches), epochs=2, verbose=0).history
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert [e["loss"] for e in history.epochs] == pytest.approx(expected["loss"], abs=1e-5)
    assert [e["accuracy"] for e in history.epochs] == pytest.approx(expected["accuracy"])


def test_one_trace_serves_all_lengths():
    step = TrainingStep(small_model(), next(data().epoch(0)), 0)
    for batch in data().epoch(0):
        step(batch)
    assert step.traces == 1 and int(step.number) == 6 and step.unrepeatable() == []


def test_best_weights_are_kept_with_and_without_folder():
    seen = []

    def remember(model):
        seen.append((score(model), model.get_weights()))
        return {"score": seen[-1][0], "minus": -seen[-1][0]}

    history = train(small_model(), evaluate=remember, epochs=5, folder="a")
    best = max(seen, key=lambda pair: pair[0])
    assert history.best == best[0] and history.best_epoch == seen.index(best) + 1 < 5
    assert [e["val_score"] for e in history.epochs] == [value for value, _ in seen]
    model = small_model()
    assert load_weights(model, "a/weights.npz")["val_score"] == best[0]
    assert_same_weights(model.get_weights(), best[1])
    for options in ({"folder": "b"}, {}):
        seen.clear()
        model = small_model()
        history = train(model, evaluate=remember, epochs=5, monitor="minus", mode="min", **options)
        best = max(seen, key=lambda pair: pair[0])
        assert history.best == -best[0] and history.monitor == "minus"
        assert_same_weights(model.get_weights(), best[1])


def test_callbacks_see_the_run_and_put_values_into_the_logs(capsys):
    class Rate(keras.callbacks.Callback):
        calls = []

        def on_train_batch_end(self, batch, logs):
            logs["rate"] = 0.125

        def on_epoch_end(self, epoch, logs):
            self.calls.append((epoch, self.model.name, self.params["steps"], "val_score" in logs))

    model = small_model()
    history = train(model, callbacks=[Rate()], epochs=2, progress=True, name="stage")
    assert [e["rate"] for e in history.epochs] == [0.125] * 2
    assert Rate.calls == [(0, model.name, 6, True), (1, model.name, 6, True)]
    assert "rate=0.125" in (shown := capsys.readouterr().err) and "stage epoch 2/2" in shown


def test_early_stopping_is_honoured():
    stop = keras.callbacks.EarlyStopping("val_score", patience=1, mode="max")
    history = train(small_model(), evaluate=lambda model: 0.0, epochs=9, callbacks=[stop])
    assert len(history.epochs) == 2


def test_a_run_that_was_stopped_stays_stopped():
    """Killed after the last save, before the record was written."""
    def run(**options):
        stop = keras.callbacks.EarlyStopping("val_score", patience=1, mode="max")
        return train(small_model(), evaluate=lambda model: 0.0, epochs=9, callbacks=[stop],
                     folder="a", **options)

    class Killed(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(small_model(), evaluate=lambda model: 0.0, epochs=9, folder="a", callbacks=[
            keras.callbacks.EarlyStopping("val_score", patience=1, mode="max"), Killed()])
    assert len(run(resume=True).epochs) == 2


def test_sample_weights_reach_the_loss():
    x, y = np.ones([4, 1], "float32"), np.array([0, 0, 8, 8], "float32")[:, None]
    weights = np.array([1, 1, 0, 0], "float32")
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="zeros", input_shape=(1,))])
    model.compile(keras.optimizers.legacy.SGD(1.0), "mse")
    fit(model, NumpyBatches(4, 4, lambda r: (x[r], y[r], weights[r])), 1, progress=False)
    assert not any(weights.any() for weights in model.get_weights())


def test_an_infinite_loss_ends_the_run_with_its_place():
    model = small_model()
    model.set_weights([w * np.nan for w in model.get_weights()])
    with pytest.raises(InputError, match="the loss became nan, epoch 1, step 1"):
        train(model)


# killed and resumed

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
from test_training import Interrupt, bert_run
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


# the parts

def test_dropout_is_a_function_of_seed_and_step():
    def masks(seed, steps):
        x = keras.Input([400])
        model = keras.Model(x, [keras.layers.Dropout(0.3)(x), keras.layers.Dropout(0.3)(x)])
        step = tf.Variable(0, dtype="int64")
        from bert_theseus.training.randomness import draws_by_step

        @tf.function
        def call():
            with draws_by_step(seed, step):
                return model(tf.ones([50, 400]), training=True)
        result = []
        for number in steps:
            step.assign(number)
            result += [mask.numpy() for mask in call()]
        return result

    first, again = masks(1, [0, 1]), masks(1, [1, 0])
    np.testing.assert_array_equal(first[0], again[2])
    np.testing.assert_array_equal(first[3], again[1])
    different = [*first, masks(2, [0])[0]]
    for i, a in enumerate(different):
        assert abs((a == 0).mean() - 0.3) < 0.02 and a.max() == pytest.approx(1 / 0.7)
        for b in different[:i]:   # independent masks agree at 0.3² + 0.7² of the places
            assert abs(((a == 0) == (b == 0)).mean() - 0.58) < 0.02


def test_saving_takes_a_twentieth_of_the_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    timer, saved = SaveTimer(), 0
    for _ in range(1000):
        clock[0] += 0.1
        if timer.due():
            with timer.saving():
                clock[0] += 0.05
            saved += 1
    assert 90 <= saved <= 101
    assert [SaveTimer(3).due() for _ in range(4)] == [False] * 4
    fixed = SaveTimer(3)
    assert [fixed.due() for _ in range(7)] == [False, False, True, False, False, True, False]


def test_reading_ahead_keeps_order_and_errors():
    def source():
        yield from range(10)
        raise KeyError("broken")

    ahead = Ahead(source())
    assert [ahead.next() for _ in range(10)] == list(range(10))
    with pytest.raises(KeyError, match="broken"):
        ahead.next()
    endless = Ahead(iter(int, 1))
    endless.next()
    endless.close()
    assert not endless._thread.is_alive()


@pytest.mark.parametrize("options", [dict(epochs=0), dict(save_steps=0)])
def test_arguments_that_make_no_sense(options):
    with pytest.raises(InputError):
        train(small_model(), **options)

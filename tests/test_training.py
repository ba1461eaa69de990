"""Training: equality with Keras' own loop, and the parts it is made of."""

import time

import numpy as np
import pytest
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.clue import NumpyBatches
from bert_theseus.errors import InputError
from bert_theseus.training import TrainingStep, fit, load_weights
from bert_theseus.training.ahead import Ahead
from bert_theseus.training.saving import SaveTimer

from training_runs import assert_same_weights, data, score, small_model, train


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

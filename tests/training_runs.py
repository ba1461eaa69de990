"""A small model, its data and a way to interrupt it, for the tests of training."""

import os

import numpy as np
from bert4keras.optimizers import Adam

from bert_theseus.backend import keras, set_seed
from bert_theseus.clue import NumpyBatches
from bert_theseus.training import fit

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

"""Many last layers trained at once, one a loss, on the same batches of the same features.

The heads are one dense layer of heads · classes outputs; the loss is the sum of each head's own
loss. No weight is shared, and the optimizer treats each weight by itself, so that every head gets
exactly the training it would get alone — at the cost of one matrix product.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras


class Heads:
    """Linear heads for a set of losses.

    losses: name → Keras loss on logits [batch, outputs]; outputs: classes, or 1 for a binary task
    (one-hot labels for the losses named in ``one_hot``). bias_speed: the bias moves so many times
    as fast as the kernel: Adam's steps have the size of the learning rate, and a prior of 1 : 1000
    is 7 away from the zero that training starts at.
    """

    def __init__(self, losses: Mapping[str, keras.losses.Loss], dimensions: int, outputs: int,
                 learning_rate: float = 0.003, one_hot: Sequence[str] = (),
                 bias_speed: float = 10.0):
        self.losses, self.outputs, self.one_hot = dict(losses), outputs, set(one_hot)
        self.learning_rate, self.bias_speed = learning_rate, bias_speed
        self.layer = keras.layers.Dense(len(self.losses) * outputs, kernel_initializer="zeros")
        self.layer.build((None, dimensions))
        self._gradients = tf.function(self._gradients_of, reduce_retracing=True)

    def _gradients_of(self, x, y):
        with tf.GradientTape() as tape:
            logits = x @ self.layer.kernel + self.bias_speed * self.layer.bias
            logits = tf.reshape(logits, [-1, len(self.losses), self.outputs])
            total = tf.add_n([loss(self._labels(name, y), logits[:, i])
                              for i, (name, loss) in enumerate(self.losses.items())])
        return tape.gradient(total, self.layer.trainable_variables)

    def _labels(self, name, y):
        return tf.one_hot(y, self.outputs) if name in self.one_hot else y

    def train(self, x: np.ndarray, y: np.ndarray, steps: int, batch_size: int, seed: int,
              snapshots: Sequence[int]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """From zero weights; step → (kernel [dimensions, heads, outputs], bias) at the snapshots.

        Every epoch is a new order drawn from the seed; batches run on over epoch ends.
        """
        for weight in self.layer.trainable_variables:
            weight.assign(tf.zeros_like(weight))
        for loss in self.losses.values():
            if hasattr(loss, "statistic"):
                loss.statistic.reset()
        optimizer = keras.optimizers.legacy.Adam(self.learning_rate)
        x, order, result = tf.constant(x), _orders(len(y), steps * batch_size, seed), {}
        for step in range(1, steps + 1):
            rows = order[(step - 1) * batch_size:step * batch_size]
            gradients = self._gradients(tf.gather(x, rows), tf.constant(y[rows], tf.int32))
            optimizer.apply_gradients(zip(gradients, self.layer.trainable_variables))
            if step in snapshots:
                kernel, bias = self.layer.get_weights()
                result[step] = (kernel.reshape(-1, len(self.losses), self.outputs),
                                self.bias_speed * bias.reshape(len(self.losses), self.outputs))
        return result


def logits_of(weights, x: np.ndarray) -> np.ndarray:
    """Logits [heads, rows, classes]; a single binary logit becomes the pair (0, x)."""
    kernel, bias = weights
    logits = np.tensordot(x, kernel, 1).transpose(1, 0, 2) + bias[:, None]
    return np.concatenate([np.zeros_like(logits), logits], -1) if logits.shape[-1] == 1 else logits


def _orders(rows: int, wanted: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    epochs = -(-wanted // rows)
    return np.concatenate([rng.permutation(rows) for _ in range(epochs)])[:wanted]

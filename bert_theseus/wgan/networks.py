"""Generators and critics: for points and vectors, for digits, for images; one run or many.

``seed`` is one number, or a tuple of them: then the network is as many networks of the same size
side by side, each with weights drawn from its own seed, on inputs [runs, batch, features]. The
runs share nothing but the call, so ten seeds cost about three times one instead of ten times.
"""

from collections.abc import Sequence

import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.wgan.spectral import SpectralConv2D, SpectralDense, _Spectral

Seed = int | Sequence[int]


@keras.utils.register_keras_serializable("bert_theseus")
@tf.custom_gradient
def leaky_relu(x: tf.Tensor) -> tf.Tensor:
    """max(x, 0.2 x), whose second derivative is nothing instead of zeros.

    Under a gradient penalty TensorFlow carries the zeros of its own leaky ReLU's second
    derivative back through the whole critic once more; here that pass does not exist.

    >>> leaky_relu(tf.constant([-1., 2.])).numpy().tolist()
    [-0.20000000298023224, 2.0]
    """
    def gradient(upstream):
        return tf.raw_ops.LeakyReluGrad(gradients=upstream, features=tf.stop_gradient(x), alpha=0.2)
    return tf.nn.leaky_relu(x), gradient


class DenseRuns(keras.layers.Layer):
    """One dense layer per seed, side by side: [runs, batch, in] → [runs, batch, units].

    units: outputs; seeds: one a run, each draws its Glorot-uniform kernel; activation: as Keras.
    Run i computes what ``Dense(units, kernel_initializer=GlorotUniform(seeds[i]))`` would.

    Raises InputError when the first axis is not the number of seeds.

    >>> layer = DenseRuns(2, seeds=[1, 1, 5])
    >>> y = layer(tf.ones([3, 4, 7]))
    >>> bool(tf.reduce_all(y[0] == y[1])), bool(tf.reduce_all(y[0] == y[2]))
    (True, False)
    """

    def __init__(self, units: int, seeds: Sequence[int], activation=None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.seeds = units, [int(seed) for seed in seeds]
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        """Makes kernel [runs, in, units] and bias [runs, 1, units]."""
        runs, features = len(self.seeds), int(input_shape[-1])
        if input_shape[0] not in (None, runs):
            raise InputError(f"{input_shape[0]} runs for {runs} seeds", "DenseRuns",
                             "the first axis of the input counts the seeds")
        self.kernel = self.add_weight(name="kernel", shape=(runs, features, self.units),
                                      initializer=self._draw)
        self.bias = self.add_weight(name="bias", shape=(runs, 1, self.units), initializer="zeros")
        super().build(input_shape)

    def _draw(self, shape, dtype=None):
        return tf.stack([keras.initializers.GlorotUniform(seed)(shape[1:], dtype)
                         for seed in self.seeds])

    def call(self, inputs):
        """[runs, batch, in] → [runs, batch, units]."""
        return self.activation(tf.matmul(inputs, self.kernel) + self.bias)

    def get_config(self):
        """Every argument of the constructor."""
        return {**super().get_config(), "units": self.units, "seeds": self.seeds,
                "activation": keras.activations.serialize(self.activation)}


class SpectralDenseRuns(_Spectral, DenseRuns):
    """:class:`DenseRuns` that computes with W / σ(W), every run with its own σ.

    >>> layer = SpectralDenseRuns(1, seeds=[1, 2], power_iterations=10)
    >>> tf.norm(layer(tf.eye(3, batch_shape=[2])), axis=1).numpy().round(4).tolist()
    [[1.0], [1.0]]
    """

    def call(self, inputs, training=None):
        """[runs, batch, in] → [runs, batch, units]; training keeps the new u."""
        return self.activation(tf.matmul(inputs, self._normal_kernel(training)) + self.bias)


def dense_network(inputs: int, hidden: Sequence[int], outputs: int, seed: Seed = 0,
                  output_activation=None, spectral: bool = False, activation="relu",
                  name: str | None = None) -> keras.Sequential:
    """Dense layers inputs → hidden… → outputs, as one network or one per seed.

    [batch, inputs] → [batch, outputs], or [runs, batch, inputs] → [runs, batch, outputs] for a
    tuple of seeds. spectral: normalise every kernel.

    >>> dense_network(2, [8], 1, seed=(1, 2, 3))(tf.zeros([3, 5, 2])).shape.as_list()
    [3, 5, 1]
    """
    many = not isinstance(seed, int)
    network = keras.Sequential(name=name)
    network.add(keras.Input((None, inputs) if many else (inputs,)))
    for i, units in enumerate([*hidden, outputs]):
        function = activation if i < len(hidden) else output_activation
        if many:
            layer = SpectralDenseRuns if spectral else DenseRuns
            network.add(layer(units, [_layer_seed(s, i) for s in seed], function))
        else:
            layer = SpectralDense if spectral else keras.layers.Dense
            network.add(layer(units, function, kernel_initializer=keras.initializers.GlorotUniform(
                _layer_seed(seed, i))))
    return network


def _layer_seed(seed: int, layer: int) -> int:
    return 1000 * seed + layer


def generator_network(features: int, seed: Seed = 0, latent: int | None = None,
                      hidden: Sequence[int] | None = None,
                      output_activation=None) -> keras.Sequential:
    """The generator for vectors of ``features``: ReLU layers from a normal latent.

    Sizes unless given: latent max(4, min(features, 16)), two hidden layers of 64 up to 8 features
    and of 128 above. Digits take ``output_activation="sigmoid"``.

    >>> generator_network(64, output_activation="sigmoid").count_params()
    26944
    """
    latent = latent or max(4, min(features, 16))
    hidden = hidden or [64 if features <= 8 else 128] * 2
    return dense_network(latent, hidden, features, _shifted(seed, 1), output_activation,
                         name="generator")


def critic_network(features: int, seed: Seed = 0, hidden: Sequence[int] | None = None,
                   spectral: bool = False) -> keras.Sequential:
    """The critic for vectors of ``features``: leaky ReLU (0.2) layers, one score.

    Sizes unless given: two hidden layers of 64 up to 8 features and of 128 above.

    >>> critic_network(2).count_params()
    4417
    """
    hidden = hidden or [64 if features <= 8 else 128] * 2
    return dense_network(features, hidden, 1, _shifted(seed, 2), spectral=spectral,
                         activation=leaky_relu, name="critic")


def _shifted(seed: Seed, by: int) -> Seed:
    """Generator and critic of one seed draw different weights."""
    return 10 * seed + by if isinstance(seed, int) else tuple(10 * int(s) + by for s in seed)


def image_generator(shape: Sequence[int], seed: int = 0, latent: int = 64,
                    filters: int = 64) -> keras.Sequential:
    """Convolutional generator of images [height, width, channels] in [0, 1].

    From a quarter of the height and width (both must be multiples of 4) by two up-sampling steps.
    No batch normalisation: a batch of generated images is then as independent as its latents.

    >>> image_generator((8, 8, 1), latent=4, filters=8)(tf.zeros([2, 4])).shape.as_list()
    [2, 8, 8, 1]
    """
    height, width, channels = _image_shape(shape)
    start = (height // 4, width // 4, 2 * filters)
    network = keras.Sequential([keras.Input((latent,)),
                                _dense(start[0] * start[1] * start[2], _shifted(seed, 1)),
                                keras.layers.ReLU(), keras.layers.Reshape(start)], "generator")
    for i, units in enumerate((filters, channels)):
        network.add(keras.layers.UpSampling2D())
        network.add(keras.layers.Conv2D(
            units, 5, padding="same", activation="relu" if i == 0 else "sigmoid",
            kernel_initializer=_glorot(_shifted(seed, 1), i + 1)))
    return network


def image_critic(shape: Sequence[int], seed: int = 0, filters: int = 64,
                 spectral: bool = False) -> keras.Sequential:
    """Convolutional critic of images [height, width, channels]: two strided steps, one score.

    >>> image_critic((8, 8, 1), filters=8)(tf.zeros([2, 8, 8, 1])).shape.as_list()
    [2, 1]
    """
    convolution = SpectralConv2D if spectral else keras.layers.Conv2D
    seed = _shifted(seed, 2)
    network = keras.Sequential([keras.Input(_image_shape(shape))], "critic")
    for i, units in enumerate((filters, 2 * filters)):
        network.add(convolution(units, 5, strides=2, padding="same", activation=leaky_relu,
                                kernel_initializer=_glorot(seed, i)))
    network.add(keras.layers.Flatten())
    network.add((SpectralDense if spectral else keras.layers.Dense)(
        1, kernel_initializer=_glorot(seed, 3)))
    return network


def _dense(units: int, seed: int):
    return keras.layers.Dense(units, kernel_initializer=_glorot(seed, 0))


def _glorot(seed: int, layer: int):
    return keras.initializers.GlorotUniform(_layer_seed(seed, layer))


def _image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    shape = tuple(int(size) for size in shape)
    if len(shape) != 3 or shape[0] % 4 or shape[1] % 4:
        raise InputError(f"images of shape {list(shape)}", "image network",
                         "use [height, width, channels], height and width multiples of 4")
    return shape

"""Spectral normalisation: a layer computes with W / σ(W), σ the largest singular value.

Miyato et al., arXiv 1802.05957. The gradient flows through σ, which is estimated by power
iteration: every call makes ``power_iterations`` rounds from the vector u kept with the layer,
and calls in training keep the new u. With activations of slope at most 1 a stack of such dense
layers has Lipschitz constant at most 1 (up to the iteration's error); its gradient is usually
well below 1, which is why its estimate of the distance is low.

A convolution is normalised by the largest singular value of its kernel seen as a matrix
[height · width · in, out], as in the paper. That is not the norm of the convolution itself, which
can be larger by at most √(height · width).
"""

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras


def normalize_kernel(kernel: tf.Tensor, u: tf.Tensor,
                     power_iterations: int = 1) -> tuple[tf.Tensor, tf.Tensor]:
    """W / σ(W) and the new u, by power iteration without gradient, σ = vᵀ W u with gradient.

    kernel: [..., in, out]; u: [..., out, 1], not zero. Returns both, in the same shapes.

    >>> normal, u = normalize_kernel(tf.constant([[3., 0.], [0., 1.]]), tf.ones([2, 1]), 20)
    >>> [round(float(x), 3) for x in tf.linalg.diag_part(normal)]
    [1.0, 0.333]
    """
    fixed = tf.stop_gradient(kernel)
    for _ in range(power_iterations):
        v = _unit(tf.matmul(fixed, u))  # [..., in, 1]
        u = _unit(tf.matmul(fixed, v, transpose_a=True))  # [..., out, 1]
    sigma = tf.matmul(v, tf.matmul(kernel, u), transpose_a=True)  # [..., 1, 1]
    return kernel / tf.maximum(sigma, 1e-12), u


def _unit(vector: tf.Tensor) -> tf.Tensor:
    return vector / tf.maximum(tf.norm(vector, axis=-2, keepdims=True), 1e-12)


class _Spectral:
    """Mixed into a layer that has ``self.kernel`` and a way to compute with another kernel."""

    def __init__(self, *args, power_iterations: int = 1, **kwargs):
        super().__init__(*args, **kwargs)
        self.power_iterations = power_iterations

    def build(self, input_shape):
        """The layer's own weights and u [..., units, 1], which starts the same in every layer."""
        super().build(input_shape)
        *runs, _, units = self._matrix().shape
        start = np.broadcast_to(np.random.RandomState(0).randn(units, 1), (*runs, units, 1))
        self.u = self.add_weight(name="u", shape=start.shape, trainable=False,
                                 initializer=keras.initializers.Constant(start))

    def _matrix(self) -> tf.Tensor:
        return self.kernel

    def _normal_kernel(self, training) -> tf.Tensor:
        kernel, u = normalize_kernel(self._matrix(), self.u, self.power_iterations)
        if training:
            self.u.assign(u)
        return tf.reshape(kernel, tf.shape(self.kernel))

    def get_config(self):
        """Every argument of the constructor."""
        return {**super().get_config(), "power_iterations": self.power_iterations}


class SpectralDense(_Spectral, keras.layers.Dense):
    """``keras.layers.Dense`` that computes with W / σ(W).

    power_iterations: rounds a call; all other arguments are Dense's.

    >>> layer = SpectralDense(1, power_iterations=10)
    >>> y = layer(tf.eye(3))        # |W/σ| = 1: the outputs of e₁, e₂, e₃ have norm 1
    >>> round(float(tf.norm(y)), 4)
    1.0
    """

    def call(self, inputs, training=None):
        """[..., in] → [..., units]; training keeps the new u."""
        outputs = tf.matmul(inputs, self._normal_kernel(training))
        if self.use_bias:
            outputs = outputs + self.bias
        return outputs if self.activation is None else self.activation(outputs)


class SpectralConv2D(_Spectral, keras.layers.Conv2D):
    """``keras.layers.Conv2D`` that computes with W / σ(W), W as matrix [h · w · in, out].

    >>> layer = SpectralConv2D(4, 3, power_iterations=10)
    >>> layer(tf.ones([2, 8, 8, 1])).shape.as_list()
    [2, 6, 6, 4]
    """

    def _matrix(self):
        return tf.reshape(self.kernel, [-1, self.kernel.shape[-1]])

    def call(self, inputs, training=None):
        """As Conv2D's; training keeps the new u."""
        self._training = training
        return super().call(inputs)

    def convolution_op(self, inputs, kernel):
        """Keras' convolution with the normalised kernel, whatever it hands over."""
        return super().convolution_op(inputs, self._normal_kernel(self._training))

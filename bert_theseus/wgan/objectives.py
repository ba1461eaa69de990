"""What a critic maximises, as functions of its scores on one batch.

kexue.fm/archives/8244. With critic D (in the c-transforms: potential φ), real x, generated y:

    Wasserstein        E D(x) − E D(y)                      needs |D(a) − D(b)| ≤ |a − b|
    c-transform        E φ(x) + E φᶜ(y),     φᶜ(y) = min_x [c(x, y) − φ(x)]
    (c, ε)-transform   E φ(x) + E φᶜᵉ(y),    φᶜᵉ(y) = −ε log mean_x exp((φ(x) − c(x, y)) / ε)
    plain GAN          E log σ(D(x)) + E log(1 − σ(D(y)))

c(x, y) is the Euclidean distance. The sign inside the exponent is that of the formula above:
(φ − c)/ε, so that ε → 0 gives φᶜ; public code exists with the opposite sign. Every logarithm of
a sum of exponentials or of a sigmoid is taken in its stable form.

Scores have shape [..., batch], samples [..., batch, features]; leading axes are independent runs
and stay in the result.
"""

import math

import tensorflow as tf


def pairwise_distance(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Euclidean distances c(x_i, y_j); the gradient at distance 0 is 0, not NaN.

    x: [..., n, features]; y: [..., m, features]. Returns [..., n, m].

    >>> pairwise_distance([[0., 0.]], [[3., 4.], [0., 0.]]).numpy().tolist()
    [[5.0, 0.0]]
    """
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    center = tf.reduce_mean(x, axis=-2, keepdims=True)  # |x|² − 2xy + |y|² loses digits far from 0
    x, y = x - center, y - center
    squares = (tf.reduce_sum(x * x, -1)[..., :, None] + tf.reduce_sum(y * y, -1)[..., None, :]
               - 2 * tf.matmul(x, y, transpose_b=True))  # [..., n, m]
    return safe_sqrt(squares)


def safe_sqrt(squares: tf.Tensor) -> tf.Tensor:
    """√squares, and 0 with gradient 0 where ``squares`` is not positive.

    >>> with tf.GradientTape() as tape:
    ...     x = tf.constant([0., 4.]); tape.watch(x); y = safe_sqrt(x)
    >>> y.numpy().tolist(), tape.gradient(y, x).numpy().tolist()
    ([0.0, 2.0], [0.0, 0.25])
    """
    squares = tf.convert_to_tensor(squares)
    positive = squares > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, squares, tf.ones_like(squares))),
                    tf.zeros_like(squares))


def wasserstein(real_scores: tf.Tensor, fake_scores: tf.Tensor) -> tf.Tensor:
    """E D(x) − E D(y): the Wasserstein-1 distance at the best critic of Lipschitz constant 1.

    [..., n], [..., m] → [...].

    >>> float(wasserstein(tf.constant([1., 3.]), tf.constant([0., 1.])))
    1.5
    """
    return tf.reduce_mean(real_scores, -1) - tf.reduce_mean(fake_scores, -1)


def c_transform(real_scores: tf.Tensor, cost: tf.Tensor) -> tf.Tensor:
    """φᶜ(y_j) = min_i [c(x_i, y_j) − φ(x_i)].

    real_scores: φ(x) [..., n]; cost: c(x, y) [..., n, m]. Returns [..., m].

    >>> c_transform(tf.constant([0., 1.]), tf.constant([[1.], [3.]])).numpy().tolist()
    [1.0]
    """
    return tf.reduce_min(cost - real_scores[..., :, None], axis=-2)


def c_epsilon_transform(real_scores: tf.Tensor, cost: tf.Tensor, epsilon: float) -> tf.Tensor:
    """φᶜᵉ(y_j) = −ε log mean_i exp((φ(x_i) − c(x_i, y_j)) / ε), by log-sum-exp.

    real_scores: φ(x) [..., n]; cost: c(x, y) [..., n, m]; epsilon > 0. Returns [..., m].
    It lies between φᶜ and φᶜ + ε log n, and tends to φᶜ as ε → 0.

    >>> c_epsilon_transform(tf.constant([0., 1.]), tf.constant([[1.], [2.]]), 0.1).numpy().round(4)
    array([1.], dtype=float32)
    """
    exponents = (real_scores[..., :, None] - cost) / epsilon
    count = tf.cast(tf.shape(cost)[-2], cost.dtype)
    return -epsilon * (tf.reduce_logsumexp(exponents, axis=-2) - tf.math.log(count))


def dual_value(real_scores: tf.Tensor, transformed: tf.Tensor) -> tf.Tensor:
    """E φ(x) + E φᶜ(y). With φᶜ over the whole of x it never exceeds the exact distance.

    [..., n], [..., m] → [...].
    """
    return tf.reduce_mean(real_scores, -1) + tf.reduce_mean(transformed, -1)


def gan_value(real_scores: tf.Tensor, fake_scores: tf.Tensor) -> tf.Tensor:
    """E log σ(D(x)) + E log(1 − σ(D(y))) ≤ 0; at D = 0 it is −2 log 2. [..., n], [..., m] → [...].

    >>> round(float(gan_value(tf.zeros([4]), tf.zeros([4]))), 4) == round(-2 * math.log(2), 4)
    True
    """
    return (-tf.reduce_mean(tf.math.softplus(-real_scores), -1)
            - tf.reduce_mean(tf.math.softplus(fake_scores), -1))


def gan_estimate(value: tf.Tensor) -> tf.Tensor:
    """(value + 2 log 2) / 2: the Jensen-Shannon divergence at the best discriminator, in nats.

    It lies in [0, log 2] there. It is no distance in the units of the data.

    >>> float(gan_estimate(tf.constant(0.))) == float(tf.constant(math.log(2)))
    True
    """
    return value / 2 + math.log(2)

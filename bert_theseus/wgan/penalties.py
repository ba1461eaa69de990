"""How a critic is held to Lipschitz constant 1: penalties on its gradient, and clipping.

With x̂ = t x + (1 − t) y, t uniform in [0, 1], one t per sample (not per pixel, not normal):

    gradient penalty        10 · E (|∇D(x̂)| − 1)²             WGAN-GP, arXiv 1704.00028
    one-sided penalty       10 · E max(0, |∇D(x̂)| − 1)²        same paper, section 5
    zero-centred penalty    k · E |∇D(x̂)|^p,  k = 2, p = 6     WGAN-div, arXiv 1712.01026
    weight clipping         |w| ≤ 0.01                          WGAN, arXiv 1701.07875

The norm is taken over all features of one sample, and its gradient where ∇D = 0 is 0: a critic
that starts flat gives no NaN. The penalty speaks of one sample at a time; a critic that mixes
samples (batch normalisation) has no such gradient and the trainer refuses it.

The zero-centred penalty is an even power, so it needs no root. At its best critic the slope s is
not 1: s·W − k·s^p is largest at s = (W / (k p))^(1 / (p − 1)), about W^0.2 / 1.64 for the
values above.
"""

import tensorflow as tf


def interpolate(real: tf.Tensor, fake: tf.Tensor, mix: tf.Tensor) -> tf.Tensor:
    """x̂ = mix · real + (1 − mix) · fake, with one ``mix`` in [0, 1] per sample.

    real, fake: [..., batch, features…]; mix: [..., batch], one number a sample.

    >>> interpolate(tf.ones([2, 3]), tf.zeros([2, 3]), tf.constant([0.25, 1.0])).numpy().tolist()
    [[0.25, 0.25, 0.25], [1.0, 1.0, 1.0]]
    """
    features = len(real.shape) - len(mix.shape)
    mix = tf.reshape(mix, tf.concat([tf.shape(mix), tf.ones([features], tf.int32)], 0))
    return fake + mix * (real - fake)


def squared_gradient_norm(critic, samples: tf.Tensor, sample_axes: int = 1) -> tf.Tensor:
    """|∇D(x)|² of every sample, over all its features; differentiable once more.

    critic: samples → scores with a last axis of 1; samples: [..., batch, features…], of which
    the first ``sample_axes`` count runs and samples. Returns [..., batch].

    >>> critic = lambda x: 3. * x[:, :1] + 4. * x[:, 1:]
    >>> squared_gradient_norm(critic, tf.zeros([5, 2])).numpy().tolist()
    [25.0, 25.0, 25.0, 25.0, 25.0]
    """
    with tf.GradientTape() as tape:
        tape.watch(samples)
        scores = critic(samples)
    gradient = tape.gradient(scores, samples)
    return tf.reduce_sum(tf.square(gradient), axis=tuple(range(sample_axes, len(samples.shape))))


def gradient_penalty(squares: tf.Tensor) -> tf.Tensor:
    """E (|∇D| − 1)², from squared norms: [..., batch] → [...].

    >>> float(gradient_penalty(tf.constant([0., 4.])))
    1.0
    """
    return tf.reduce_mean(_squared_excess(squares, one_sided=False), -1)


def one_sided_penalty(squares: tf.Tensor) -> tf.Tensor:
    """E max(0, |∇D| − 1)², from squared norms: [..., batch] → [...].

    >>> float(one_sided_penalty(tf.constant([0., 4.])))
    0.5
    """
    return tf.reduce_mean(_squared_excess(squares, one_sided=True), -1)


def _squared_excess(squares: tf.Tensor, one_sided: bool) -> tf.Tensor:
    """(√s − 1)² with its derivative (√s − 1) / √s written down, 0 at s = 0; few operations."""
    @tf.custom_gradient
    def excess_of(squares):
        norm = tf.sqrt(squares)
        excess = tf.nn.relu(norm - 1) if one_sided else norm - 1
        return tf.square(excess), lambda upstream: upstream * tf.math.divide_no_nan(excess, norm)
    return excess_of(tf.convert_to_tensor(squares))


def zero_centered_penalty(squares: tf.Tensor, power: float = 6.) -> tf.Tensor:
    """E |∇D|^power, from squared norms: [..., batch] → [...].

    >>> float(zero_centered_penalty(tf.constant([0., 4.]), power=6.))
    32.0
    """
    return tf.reduce_mean(squares ** (power / 2), -1)


def clip_weights(weights, limit: float) -> None:
    """Clips every entry of every weight into [−limit, limit], in place."""
    for weight in weights:
        weight.assign(tf.clip_by_value(weight, -limit, limit))

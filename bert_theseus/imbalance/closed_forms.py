"""The few closed forms all losses of this room are made of; finite, with finite gradients.

With logits z and target t, the log-odds of the target against all other classes are

    x = z_t − log Σ_{i≠t} exp(z_i),     softmax(z)_t = sigmoid(x),

so that each multi-class loss that depends on p_t alone *is* its binary form at x. Nothing here
takes the logarithm of a rounded probability, hence no clip and no epsilon.
"""

import tensorflow as tf


def target_log_odds(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Log-odds of the target [...] from one-hot y [..., classes] and logits [..., classes].

    >>> import tensorflow as tf
    >>> float(target_log_odds(tf.constant([[0., 1.]]), tf.constant([[1e4, 3e4]]))[0])
    20000.0
    """
    target = tf.reduce_sum(tf.math.multiply_no_nan(logits, y), -1)
    others = tf.where(y > 0, tf.constant(logits.dtype.min, logits.dtype), logits)
    return target - tf.reduce_logsumexp(others, -1)


def signed(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Log-odds of the target for hard binary labels: x where y = 1, −x where y = 0."""
    return (2 * y - 1) * logits


def log_not_softmax(logits: tf.Tensor) -> tf.Tensor:
    """log(1 − softmax(z)) [..., classes], exact also where softmax rounds to 0 or to 1.

    Only the largest entry can exceed one half; it alone needs the sum over the others.

    >>> import tensorflow as tf
    >>> log_not_softmax(tf.constant([[50., 0.]])).numpy().round(6).tolist()
    [[-50.0, -0.0]]
    """
    classes = logits.shape[-1]
    top = tf.one_hot(tf.argmax(logits, -1), classes, dtype=logits.dtype)
    of_top = -tf.nn.softplus(target_log_odds(top, logits))      # log(1 − p_top)
    p = tf.where(top > 0, tf.zeros_like(logits), tf.nn.softmax(logits))
    return tf.where(top > 0, of_top[..., None], tf.math.log1p(-p))


def crossentropy(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """−Σ y log softmax(z), [...]; y may be soft; classes switched off by −inf logits are fine."""
    return -tf.reduce_sum(tf.math.multiply_no_nan(tf.nn.log_softmax(logits), y), -1)


def binary_crossentropy(y: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """−y log σ(x) − (1 − y) log σ(−x), element by element; y may be soft."""
    return y * tf.nn.softplus(-logits) + (1 - y) * tf.nn.softplus(logits)

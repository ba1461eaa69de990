"""Plain knowledge distillation (知识蒸馏), the usual alternative to module replacing.

    loss = (1 − α) · CE(y, student) + α T² · KL(teacher^{1/T} ‖ student^{1/T})

where p^{1/T} is p raised to 1/T and normalised again, i.e. the softmax of logits / T.
Source: https://arxiv.org/abs/1503.02531, the row "vanilla KD" of arXiv 2002.02925.
"""

import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError


def distillation_model(teacher: keras.Model, student: keras.Model, temperature: float = 2.0,
                       alpha: float = 0.5) -> keras.Model:
    """A model with the student's inputs, outputs and weights that also learns from the teacher.

    teacher, student: models on equal inputs whose outputs are probabilities [..., labels]. The
    teacher is run without dropout and does not learn. Compile with the task's loss, which the
    labels get; the teacher's part is added. Raises InputError for T ≤ 0 or α outside [0, 1].

    >>> from bert_theseus.backend import keras
    >>> teacher, student = (keras.Sequential([keras.layers.Dense(2, "softmax", input_shape=(3,))])
    ...                     for _ in range(2))
    >>> model = distillation_model(teacher, student)
    >>> len(model.trainable_weights)
    2
    """
    if temperature <= 0 or not 0 <= alpha <= 1:
        raise InputError(f"temperature {temperature}, alpha {alpha}", "distillation_model",
                         "use a temperature above 0 and an alpha between 0 and 1")
    model = _DistilledModel(student.inputs, student.outputs[0])
    model.teach = tf.function(lambda x: teacher(x, training=False))
    model.temperature, model.alpha = temperature, alpha
    return model


def soften(probabilities: tf.Tensor, temperature: float) -> tf.Tensor:
    """Logarithm of p^{1/T}, normalised: log softmax(log p / T).

    >>> tf.exp(soften(tf.constant([[0.5, 0.5]]), 2.0)).numpy().tolist()
    [[0.5, 0.5]]
    """
    return tf.nn.log_softmax(tf.math.log(probabilities + 1e-12) / temperature)


class _DistilledModel(keras.Model):
    """A student whose loss has the teacher's part; sample weights apply to both parts."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """(1 − α) task's loss + α T² KL(teacher‖student), mean over all places."""
        labels = super().compute_loss(x, y, y_pred, sample_weight)
        teacher = tf.stop_gradient(soften(self.teach(x), self.temperature))
        student = soften(y_pred, self.temperature)
        divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), -1)
        if sample_weight is not None:
            divergence *= tf.cast(sample_weight, divergence.dtype)
        scale = self.alpha * self.temperature ** 2
        return (1 - self.alpha) * labels + scale * tf.reduce_mean(divergence)

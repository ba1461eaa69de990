"""Which training titles argue for a held-out title's label, and which against it.

Default: BERT's features are computed once (mean of the last layer over the tokens) and a last
layer is trained on them; its tangent kernel is h·h' + 1, whatever the step, so the sum is exact.
With all parameters the kernel is that of the whole of BERT, moving along the path.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.clue import Task
from bert_theseus.path_kernel.result import PathKernel


def tokenised(texts: Sequence[str], tokenizer, maxlen: int) -> list[np.ndarray]:
    """[token ids, segment ids], each [texts, maxlen] int32, padded with 0."""
    tokens = np.zeros((len(texts), maxlen), "int32")
    for row, text in zip(tokens, texts):
        ids = tokenizer.encode(text, maxlen=maxlen)[0]
        row[:len(ids)] = ids
    return [tokens, np.zeros_like(tokens)]


def with_head(bert: keras.Model, num_labels: int) -> keras.Model:
    """Mean over the tokens and a last layer on BERT's output: logits [batch, labels]."""
    features = pooling(bert)
    logits = keras.layers.Dense(num_labels, name="Logits")(features.output)
    return keras.Model(bert.inputs, logits)


def pooling(bert: keras.Model) -> keras.Model:
    """Features [batch, size]: the last layer's mean over what is not padding."""
    def mean(pair):
        hidden, tokens = pair
        there = tf.cast(tf.cast(tokens, "int32") > 0, hidden.dtype)[..., None]
        return tf.reduce_sum(hidden * there, 1) / tf.reduce_sum(there, 1)
    pooled = keras.layers.Lambda(mean, name="Mean", mask=lambda *_: None)(
        [bert.output, bert.inputs[0]])
    return keras.Model(bert.inputs, pooled)


def features(bert: keras.Model, inputs: list[np.ndarray], batch_size: int = 128,
             on_step=None) -> np.ndarray:
    """Pooled features [texts, size] of all rows, a batch at a time."""
    run, parts = tf.function(pooling(bert), reduce_retracing=True), []
    for start in range(0, len(inputs[0]), batch_size):
        batch = [tf.constant(x[start:start + batch_size]) for x in inputs]
        parts.append(run(batch, training=False).numpy())
        if on_step:
            on_step(min(start + batch_size, len(inputs[0])), len(inputs[0]))
    return np.concatenate(parts)


def argument_table(task: Task, result: PathKernel, queries: Sequence, examples: Sequence,
                   n: int = 3) -> list[tuple[str, str, str, str]]:
    """Head and rows (title, label, role, contribution) of each query and its top examples.

    queries, examples: as from ``Task.load``.
    """
    name = lambda label: task.descriptions.get(label, label)  # noqa: E731
    cells = [("title", "label", "role", "contribution")]
    for q, query in enumerate(queries):
        output = int(result.output[q].argmax())
        cells.append((query.text, name(query.label), f"predicted {name(task.labels[output])}",
                      f"{result.output[q, output] - result.beta[q, output]:+.2f} in all"))
        for side in ("for", "against"):
            cells += [(f"  {examples[i].text}", name(examples[i].label), side, f"{value:+.3f}")
                      for i, value in result.top_examples(q, n, output, side)]
    return cells

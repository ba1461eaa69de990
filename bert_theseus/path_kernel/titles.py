"""Which training titles argue for a held-out title's label, and which against it.

Default: BERT's features are computed once (mean of the last layer over the tokens) and a last
layer is trained on them; its tangent kernel is h·h' + 1, whatever the step, so the sum is exact.
With all parameters the kernel is that of the whole of BERT, moving along the path.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.path_kernel.fixed import alpha_spread
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


def last_layer(features: np.ndarray, num_labels: int) -> keras.Model:
    """Logits [batch, labels] from features [batch, size], linear."""
    return keras.Sequential([keras.layers.Dense(num_labels, input_shape=features.shape[1:])])


def pooling(bert: keras.Model) -> keras.Model:
    """Features [batch, size]: the last layer's mean over what is not padding."""
    def mean(pair):
        """Hidden states [batch, length, size] and token ids [batch, length] → [batch, size]."""
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


def standardised(bert: keras.Model, train, held, on_step=None) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features of both parts, with mean 0 and deviation 1 over the training part."""
    train, held = (features(bert, part, on_step=on_step) for part in (train, held))
    center, spread = train.mean(0), train.std(0)
    return (train - center) / spread, (held - center) / spread


def numbers_of(result: PathKernel, labels: np.ndarray, accuracy: float, what: str,
               n: int = 3) -> dict[str, float]:
    """What is reported of one training: {"metric | what": value}.

    labels: of the training examples; accuracy: of the trained model on all held-out titles.
    """
    change = float(np.abs(result.output - result.initial).max())
    sides = sides_agree(result, labels, n)
    numbers = {f"accuracy | {what}, {len(labels)} titles": float(accuracy),
               f"residual / change | {what}, simpson": result.max_residual / change,
               "examples | carry 90 % of a query": float(result.support().mean()),
               f"share | of the top {n} for carry the predicted label": sides["for"],
               f"share | of the top {n} against carry another label": sides["against"]}
    if result.kernel is not None:
        numbers["spread / size | α over x, median"] = alpha_spread(result)
    return numbers


def sides_agree(result: PathKernel, labels: np.ndarray, n: int = 3) -> dict[str, float]:
    """How often a query's ``n`` top examples for its prediction carry the predicted label, and the
    ``n`` top ones against it another one.

    labels: of the training examples [examples].

    >>> zero, c = np.zeros([1, 2]), np.array([[[3.0, 0.0], [-1.0, 0.0]]])
    >>> sides_agree(PathKernel(zero, zero, c, None, c.sum(1)), np.array([0, 1]))
    {'for': 1.0, 'against': 1.0}
    """
    found = {"for": [], "against": []}
    for q, output in enumerate(result.output.argmax(1)):
        for side, agrees in found.items():
            top = [c.index for c in result.top_examples(q, n, int(output), side)]
            agrees.extend((labels[top] == output) == (side == "for"))
    return {side: float(np.mean(agrees)) for side, agrees in found.items()}


def argument_table(result: PathKernel, queries: Sequence[tuple[str, str]],
                   examples: Sequence[tuple[str, str]], outputs: Sequence[str],
                   n: int = 3) -> list[tuple[str, str, str, str]]:
    """Head and rows (text, label, role, contribution) of each query and its top examples.

    queries, examples: (text, label); outputs: names of the model's outputs.

    >>> zero = np.zeros([1, 1])
    >>> result = PathKernel(zero, zero, np.ones([1, 1, 1]), None, np.ones([1, 1]))
    >>> argument_table(result, [("new", "up")], [("old", "up")], ["up"])[2]
    ('  old', 'up', 'for', '+1.000')
    """
    cells = [("text", "label", "role", "contribution")]
    for q, (text, label) in enumerate(queries):
        output = int(result.output[q].argmax())
        change = result.output[q, output] - result.beta[q, output]
        cells.append((text, label, f"predicted {outputs[output]}", f"{change:+.2f} in all"))
        for side in ("for", "against"):
            cells += [(f"  {examples[i][0]}", examples[i][1], side, f"{value:+.3f}")
                      for i, value in result.top_examples(q, n, output, side)]
    return cells

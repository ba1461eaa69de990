"""What the article claims, made measurable: approximation error, exchange, recovery.

    relative error = (Σ |linear − exact|² / Σ |exact|²)^½   over real positions, heads and values
    it falls like m^slope; Monte Carlo promises −1/2 once the features are many

For queries and keys of a trained model the sum of exponentials is dominated by few pairs, and a
handful of features rarely points their way: that is where the error stays.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.performer.attention import favor_attention, softmax_attention
from bert_theseus.performer.projection import gaussian_projection, orthogonal_projection

WAYS = ("orthogonal", "independent", "equal-probability norms", "trigonometric")


def approximation_error(query, key, value, key_mask, way: str, num_features: int,
                        seed: int) -> float:
    """Relative error of one draw of ω against exact attention on [batch, length, heads, size].

    way: one of ``WAYS``; "trigonometric" takes orthogonal directions and has 2 m features.

    >>> x = np.random.default_rng(0).normal(size=(3, 1, 20, 2, 8)).astype("float32")
    >>> errors = [approximation_error(*x, None, "orthogonal", m, seed=0) for m in (8, 2048)]
    >>> errors[1] < errors[0]
    True
    """
    if way not in WAYS:
        raise InputError(f"unknown way {way!r}", "way", f"use one of {', '.join(WAYS)}")
    size = np.shape(key)[-1]
    if way == "independent":
        rows = gaussian_projection(num_features, size, seed)
    else:
        norms = "equal_probability" if way == "equal-probability norms" else "chi"
        rows = orthogonal_projection(num_features, size, seed, norms)
    kernel = "trigonometric" if way == "trigonometric" else "favor"
    linear = favor_attention(query, key, value, rows, key_mask, kernel=kernel)
    exact = softmax_attention(query, key, value, key_mask)
    real = 1.0 if key_mask is None else np.asarray(key_mask)[:, :, None, None]
    return float(tf.norm(real * (linear - exact)) / tf.norm(real * exact))


def queries_and_keys(transformer, inputs, layer: int):
    """(query, key, value, mask) that block ``layer`` of a bert4keras BERT sees for ``inputs``.

    inputs: [token ids, segment ids], [batch, length]; returns three [batch, length, heads, size]
    and the mask [batch, length].
    """
    name = transformer.prefixed(f"Transformer-{layer}-MultiHeadSelfAttention")
    attention = transformer.layers[name]
    source = attention.input[0] if isinstance(attention.input, (list, tuple)) else attention.input
    x = keras.Model(transformer.inputs, source)(inputs, training=False)
    sizes = (attention.key_size, attention.key_size, attention.head_size)
    parts = [tf.reshape(dense(x), [*x.shape[:2], attention.heads, size]).numpy() for dense, size in
             zip((attention.q_dense, attention.k_dense, attention.v_dense), sizes)]
    return *parts, np.asarray(inputs[0]) != 0


def concentration(query, key, key_mask) -> float:
    """How peaked exact attention is: mean over queries of the largest weight.

    >>> x = np.zeros((1, 4, 1, 2), "float32")
    >>> concentration(x, x, None)
    0.25
    """
    scores = np.einsum("bjhd,bkhd->bhjk", query, key) / np.shape(key)[-1]**0.5
    real = np.ones(np.shape(key)[:2], bool) if key_mask is None else np.asarray(key_mask, bool)
    scores = np.where(real[:, None, None, :], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    largest = (weights / weights.sum(-1, keepdims=True)).max(-1)
    return float(largest.transpose(0, 2, 1)[real].mean())


def copy_weights(source, target) -> None:
    """Gives every trained weight of ``source`` to the weight of ``target`` in its place.

    Raises InputError unless both have the same trainable weights; projections stay their own.
    """
    old, new = source.trainable_weights, target.trainable_weights
    if [w.shape for w in old] != [w.shape for w in new]:
        raise InputError("the two models have other weights", "target",
                         "build both from the same configuration")
    for weight, value in zip(new, old):
        weight.assign(value)


def recover(step: Callable, batches, stops: Sequence[int], evaluate: Callable) -> list[float]:
    """Trains on and evaluates after each number of steps in ``stops``; returns what ``evaluate()``
    gave.

    step: ``step(batch)`` trains on one batch. batches: ``epoch(number)`` gives the batches of an
    epoch. ``stops`` rise, and 0 is before any step.
    """
    values, done, epoch = [], 0, 0
    source = iter(())
    for stop in stops:
        while done < stop:
            batch = next(source, None)
            if batch is None:
                source, epoch = iter(batches.epoch(epoch)), epoch + 1
                continue
            step(batch)
            done += 1
        values.append(evaluate())
    return values

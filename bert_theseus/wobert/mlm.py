"""BERT with its masked-language-model head, projected onto the vocabulary where it is asked.

bert4keras' ``with_mlm=True`` multiplies every position of the batch with the whole embedding
table; 85 % of that is never looked at. Here the same layers (same names, same weights, so the
checkpoint is the published kind) are applied to the masked positions only:

    logits = (LayerNorm(gelu(W h + b)) at the masked positions) · embeddingᵀ + bias

So is the feed-forward part of the last layer, which looks at its own position only.
"""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from bert_theseus.backend import K, keras
from bert_theseus.errors import InputError
from bert_theseus.wobert.lean import lean
from bert4keras.models import BERT, NEZHA, RoFormer, build_transformer_model

MODELS = {"bert": BERT, "roberta": BERT, "nezha": NEZHA, "roformer": RoFormer}


class MaskedLanguageModel:
    """The encoder and the head of a BERT, NEZHA or RoFormer.

    config_path, checkpoint_path, model, overrides: as of ``build_transformer_model``; without a
    checkpoint the weights are drawn anew. Dropout is off: the model sees each text a few times
    at most, and a run without it is a function of its seed alone.

    >>> mlm = MaskedLanguageModel(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16, hidden_act="gelu", max_position=8)
    >>> mlm.logits([[2, 4, 3, 0]], positions=[1]).shape
    TensorShape([1, 9])
    """

    def __init__(self, config_path=None, checkpoint_path=None, model: str = "bert", **overrides):
        if model not in MODELS:
            raise InputError(f"no masked language model of type {model!r}", "model",
                             f"choose from {', '.join(MODELS)}")
        off = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}
        self._arguments = {"config_path": config_path, "model": lean(MODELS[model]),
                           "with_mlm": "linear", "return_keras_model": False, **off, **overrides}
        self.transformer = build_transformer_model(checkpoint_path=checkpoint_path,
                                                   **self._arguments)
        self._keep_dropout_in_config(config_path, overrides)
        layers = self.transformer.layers
        self._last = f"Transformer-{self.transformer.num_hidden_layers - 1}"
        attended = layers[f"{self._last}-MultiHeadSelfAttention-Norm"].output
        self.encoder = keras.Model(self.transformer.inputs, attended)
        self.head = [layers["MLM-Dense"], layers["MLM-Norm"]]
        self.embedding, self.bias = layers["Embedding-Token"], layers["MLM-Bias"]
        self.weights = self.transformer.model.trainable_weights

    def _keep_dropout_in_config(self, config_path, overrides) -> None:
        """What is saved is fine-tuned with dropout: its config says the rates it came with."""
        config = json.loads(Path(config_path).read_text(encoding="utf-8")) if config_path else {}
        rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, **config,
                 **overrides}
        self.transformer.dropout_rate = rates["hidden_dropout_prob"]
        self.transformer.attention_dropout_rate = rates["attention_probs_dropout_prob"]

    def logits(self, ids, positions, training: bool = False, causal: bool = False):
        """Logits [chosen, vocabulary] at ``positions`` of the flattened ids [batch, length].

        causal: each position sees itself and what is before it, as in a left-to-right model.
        """
        ids = tf.cast(ids, K.floatx())
        encoder = self.causal_encoder if causal else self.encoder
        inputs = [ids] + [tf.zeros_like(ids)] * (len(encoder.inputs) - 1)
        hidden = encoder(inputs, training=training)  # [batch, length, hidden]
        x = tf.gather(tf.reshape(hidden, [-1, hidden.shape[-1]]), positions)  # [chosen, hidden]
        x = self._feed_forward(x, training)
        for layer in self.head:
            x = layer(x)
        return self.bias(self.embedding(x, mode="dense"))

    def _feed_forward(self, x, training: bool):
        """The rest of the last layer, [chosen, hidden] → [chosen, hidden]."""
        layers, name = self.transformer.layers, f"{self._last}-FeedForward"
        y = layers[name](x)
        if f"{name}-Dropout" in layers:
            y = layers[f"{name}-Dropout"](y, training=training)
        return layers[f"{name}-Norm"](layers[f"{name}-Add"]([x, y]))

    @cached_property
    def causal_encoder(self) -> keras.Model:
        """The same layers under a causal mask."""
        causal = build_transformer_model(**self._arguments, application="lm",
                                         layers=self.transformer.layers)
        attended = causal.layers[f"{self._last}-MultiHeadSelfAttention-Norm"].get_output_at(-1)
        return keras.Model(causal.inputs, attended)

    def draw_weights(self, seed: int) -> None:
        """Draws all weights anew for training from scratch: no two kernels equal, gains 1,
        offsets 0, tables N(0, 0.02), and two things that make a small model start sooner:

        * kernels N(0, 0.02 √(768 / hidden size)), which keeps the gain of BERT-base's layers:
          with 0.02 at 128 units attention starts out flat;
        * learned positions start as sinusoids, so that "one to the left" is one linear map for
          all places, those beyond the training length included.
        """
        hidden = self.transformer.hidden_size
        for index, weight in enumerate(self.weights):
            rng = np.random.default_rng([seed, index])
            weight.assign(_initial(weight, rng, 0.02 * (768 / hidden) ** 0.5))

    def start_from(self, embeddings: np.ndarray, bias: np.ndarray) -> None:
        """Sets the token embeddings [vocabulary, size] and the head's bias [vocabulary], and
        brings the positions to the embeddings' deviation (see :mod:`~.warm_start`)."""
        self.embedding.embeddings.assign(embeddings)
        self.bias.trainable_weights[0].assign(bias)
        positions = self.transformer.layers.get("Embedding-Position")
        if positions is not None and positions.weights:
            values = positions.weights[0].numpy()
            positions.weights[0].assign(values * embeddings.std() / values.std())

    def values(self) -> dict[str, np.ndarray]:
        """The weights under the names of published checkpoints."""
        layers = self.transformer.layers
        return {name: weight.numpy()
                for layer, names in self.transformer.variable_mapping().items() if layer in layers
                for name, weight in zip(names, layers[layer].trainable_weights)}


def _initial(weight, rng, kernel_deviation: float) -> np.ndarray:
    kind = weight.name.split("/")[-1]
    if kind.startswith("gamma"):
        return np.ones(weight.shape, "float32")
    if len(weight.shape) < 2:
        return np.zeros(weight.shape, "float32")
    if "Embedding-Position" in weight.name:
        return _sinusoids(*weight.shape)
    values = rng.standard_normal(weight.shape)
    while (far := np.abs(values) > 2).any():
        values[far] = rng.standard_normal(int(far.sum()))
    return (values * (0.02 if "Embedding" in weight.name else kernel_deviation)).astype("float32")


def _sinusoids(positions: int, size: int) -> np.ndarray:
    """[positions, size], sine and cosine alternating, of deviation 0.02."""
    angles = np.arange(positions)[:, None] / 10000 ** (np.arange(0, size, 2) / size)
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(positions, -1)[:, :size]
    return (0.02 * 2 ** 0.5 * waves).astype("float32")


def masked_metrics(logits, labels):
    """Sum of the cross-entropies and number of hits over the masked positions."""
    logits = tf.cast(logits, tf.float32)  # [chosen, vocabulary]
    hits = tf.equal(tf.argmax(logits, -1, tf.int32), labels)
    return _cross_entropy(logits, labels), tf.reduce_sum(tf.cast(hits, tf.float32))


@tf.custom_gradient
def _cross_entropy(logits, labels):
    """Sum of −log softmax(logits)[label]; one table of exponentials serves loss and gradient."""
    top = tf.reduce_max(logits, -1, keepdims=True)
    powers = tf.exp(logits - top)
    total = tf.reduce_sum(powers, -1, keepdims=True)
    places = tf.stack([tf.range(tf.size(labels)), labels], axis=-1)  # [chosen, 2]
    losses = (tf.math.log(total) + top)[:, 0] - tf.gather_nd(logits, places)

    def gradient(dy):
        ones = tf.ones_like(losses)
        return tf.tensor_scatter_nd_sub(powers * (dy / total), places, ones * dy), None

    return tf.reduce_sum(losses), gradient

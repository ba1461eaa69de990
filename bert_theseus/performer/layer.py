"""Linear attention as a bert4keras layer: same weights as ``MultiHeadAttention``, plus ω.

The projection is a non-trainable weight, drawn from ``projection_seed`` when the layer is built:
the same at every call, saved with the weights, and independent of the data.
"""

import tensorflow as tf
from bert4keras.backend import apply_rotary_position_embeddings
from bert4keras.layers import MultiHeadAttention

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.performer.attention import favor_attention, softmax_attention
from bert_theseus.performer.kernels import KERNELS
from bert_theseus.performer.projection import gaussian_projection, orthogonal_projection

CROSSOVER = 2.4     # length at which linear attention pays, per feature: docs/performer.md
_PROJECTIONS = ("orthogonal", "equal_probability", "independent")


@keras.utils.register_keras_serializable("bert_theseus")
class PerformerAttention(MultiHeadAttention):
    """Multi-head attention whose time and memory grow linearly with the length.

    Inputs as for bert4keras' ``MultiHeadAttention``: [query, key, value], each [batch, length,
    hidden], their masks, and with ``a_bias=True`` segment ids [batch, length] for the UniLM mask
    (where bert4keras passes a [length, length] matrix, which linear attention never forms);
    with ``p_bias="rotary"`` rotary positions. Returns [batch, length, out_dim].

    num_features:     ω per head, default 4 · key_size ("usually several times d", 7921)
    kernel:           a name in ``KERNELS``
    causal:           each position sees itself and those before it
    attention:        "linear", or "auto": exact below ``crossover``, linear from there on
    crossover:        a length; default ``CROSSOVER`` · features, measured on two CPU cores
    projection:       "orthogonal", "equal_probability" norms (7921), or "independent"
    projection_seed:  draws ω; survives the configuration
    rotary_at:        "features" (RoFormer's paper) or "inputs" (what a trained RoFormer computes)
    attention_dropout drops the value of a whole key in a head: linear attention has no matrix
    whose entries could be dropped.

    Raises InputError for sizes below 1, unknown names, ``return_attention_scores``, another
    ``normalization``; at the call for relative position biases and for attention matrices.

    >>> layer = PerformerAttention(heads=2, head_size=8, num_features=32)
    >>> x = tf.random.normal([1, 10, 16])
    >>> layer([x, x, x], mask=[None, None, tf.sequence_mask([7], 10)]).shape
    TensorShape([1, 10, 16])
    """

    def __init__(self, heads: int, head_size: int, num_features: int | None = None,
                 kernel: str = "favor", causal: bool = False, attention: str = "linear",
                 crossover: int | None = None, projection: str = "orthogonal",
                 projection_seed: int = 0, rotary_at: str = "features", **kwargs):
        super().__init__(heads, head_size, **kwargs)
        self.num_features = 4 * self.key_size if num_features is None else num_features
        self.kernel, self.causal, self.attention = kernel, causal, attention
        self.projection_kind, self.projection_seed = projection, projection_seed
        self.rotary_at = rotary_at
        self._check()
        self.crossover = int(CROSSOVER * self._features()) if crossover is None else crossover

    def build(self, input_shape):
        """bert4keras' kernels, and ω [num_features, key_size] if the kernel draws one."""
        super().build(input_shape)
        self.projection = None
        if KERNELS[self.kernel].random:
            drawn = self.draw(self.projection_seed)
            self.projection = self.add_weight(
                name="projection", shape=drawn.shape, trainable=False,
                initializer=lambda shape, dtype=None: tf.constant(drawn, dtype),
                experimental_autocast=False)
        if self.attention_dropout:
            self.key_dropout = keras.layers.Dropout(
                self.attention_dropout, noise_shape=(None, None, None, 1))

    def draw(self, seed):
        """A projection [num_features, key_size] of this layer's kind; the layer keeps its own."""
        if self.projection_kind == "independent":
            return gaussian_projection(self.num_features, self.key_size, seed)
        norms = "chi" if self.projection_kind == "orthogonal" else self.projection_kind
        return orthogonal_projection(self.num_features, self.key_size, seed, norms)

    def pay_attention_to(self, inputs, mask=None, **kwargs):
        """[b, n, h, d] × 3 (+ segment ids, + rotary) → ([b, n, h, d], None): no matrix."""
        query, key, value, *more = inputs
        key_mask = None if mask is None else mask[1]
        segment_ids = self._segment_ids(more.pop(0)) if kwargs.get("a_bias") else None
        rotary = self._rotary(more, kwargs.get("p_bias"))
        if self.attention_dropout:
            value = self.key_dropout(value)
        arguments = (query, key, value, key_mask, segment_ids, rotary)
        return self._exact_or_linear(*arguments), None

    def _exact_or_linear(self, *arguments):
        query = arguments[0]
        if self.attention == "linear":
            return self._linear(*arguments)
        if query.shape[1] is not None:
            chosen = self._exact if query.shape[1] < self.crossover else self._linear
            return chosen(*arguments)
        return tf.cond(tf.shape(query)[1] < self.crossover,
                       lambda: self._exact(*arguments), lambda: self._linear(*arguments))

    def _linear(self, query, key, value, key_mask, segment_ids, rotary):
        return favor_attention(query, key, value, self.projection, key_mask, self.causal,
                               kernel=self.kernel, segment_ids=segment_ids, rotary=rotary,
                               rotary_at=self.rotary_at, scale=self.attention_scale)

    def _exact(self, query, key, value, key_mask, segment_ids, rotary):
        if rotary is not None:
            query, key = apply_rotary_position_embeddings(rotary, query, key)
        return softmax_attention(query, key, value, key_mask, self.causal,
                                 segment_ids=segment_ids, scale=self.attention_scale)

    def _segment_ids(self, bias):
        if self.causal:
            raise InputError("a causal layer was given another attention mask", self.name,
                             "build it with causal=False, or leave a_bias out")
        if bias.shape.rank != 2:
            raise InputError(f"an attention mask of rank {bias.shape.rank}", self.name,
                             "linear attention forms no [length, length] matrix: pass segment ids "
                             "[batch, length] for the UniLM mask, or causal=True")
        return bias

    def _rotary(self, more, p_bias):
        if p_bias is None:
            return None
        if p_bias != "rotary":
            raise InputError(
                f"position bias {p_bias!r} is added to the attention matrix, which linear "
                "attention never forms", self.name, "use absolute or rotary positions")
        if self.attention == "auto" and self.rotary_at == "features":
            raise InputError("linear attention with rotated features does not approximate exact "
                             "attention, so attention='auto' would be two different models",
                             self.name, "use rotary_at='inputs', or attention='linear'")
        return more[0]

    def _features(self) -> int:
        return KERNELS[self.kernel].size(self.num_features, self.key_size)

    def _check(self):
        _known("kernel", self.kernel, tuple(KERNELS))
        _known("projection", self.projection_kind, _PROJECTIONS)
        _known("attention", self.attention, ("linear", "auto"))
        _known("rotary_at", self.rotary_at, ("features", "inputs"))
        _known("normalization", self.normalization, ("softmax",))
        for name in ("heads", "head_size", "key_size", "num_features"):
            size = getattr(self, name)
            if int(size) != size or size < 1:
                raise InputError(f"{name} is {size}", name, "give a whole number of at least 1")
        if self.return_attention_scores:
            raise InputError("linear attention has no attention scores to return",
                             "return_attention_scores", "use MultiHeadAttention for them")
        if self.attention == "auto" and not KERNELS[self.kernel].softmax:
            raise InputError(f"kernel {self.kernel!r} does not approximate exact attention, so "
                             "attention='auto' would be two different models", "attention",
                             "use kernel='favor', or attention='linear'")

    def get_config(self):
        """Every argument of the constructor; ω itself is among the weights."""
        return {**super().get_config(), "num_features": self.num_features, "kernel": self.kernel,
                "causal": self.causal, "attention": self.attention, "crossover": self.crossover,
                "projection": self.projection_kind, "projection_seed": self.projection_seed,
                "rotary_at": self.rotary_at}


class RedrawProjection(keras.callbacks.Callback):
    """Draws new ω for every ``PerformerAttention`` of the model each ``every`` training steps.

    The draw depends on ``seed``, the optimizer's step and the layer's place only, so that a
    resumed training draws what an uninterrupted one would. Evaluation keeps the last draw.
    Source: arXiv 2009.14794, section 4.2 ("feature redrawing").

    >>> RedrawProjection(every=1000, seed=0).every
    1000
    """

    def __init__(self, every: int = 1000, seed: int = 0):
        super().__init__()
        if every < 1:
            raise InputError(f"every is {every}", "every", "give a number of steps, at least 1")
        self.every, self.seed = every, seed

    def on_train_batch_end(self, batch, logs=None):
        """Draws where the optimizer's step is a multiple of ``every``."""
        step = int(self.model.optimizer.iterations.numpy())
        if step % self.every:
            return
        layers = [x for x in self.model.submodules if isinstance(x, PerformerAttention)]
        for index, layer in enumerate(sorted(layers, key=lambda layer: layer.name)):
            if layer.projection is not None:
                layer.projection.assign(layer.draw((self.seed, step, index)))


def _known(name: str, value, names: tuple):
    if value not in names:
        raise InputError(f"unknown {name} {value!r}", name, f"use one of {', '.join(names)}")

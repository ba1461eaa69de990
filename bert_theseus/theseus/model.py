"""``bert_of_theseus``: two bert4keras transformers and a classifier → the model that replaces."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from bert_theseus.backend import K, keras
from bert_theseus.errors import InputError
from bert_theseus.theseus.layers import ModuleReplacing, ReplacingDraws
from bert_theseus.theseus.schedules import as_schedule


class TheseusModel(keras.Model):
    """A functional model of which only the successor learns, whatever the layers' flags say.

    ``replacing_rate`` is the current rate; assign to it, or give a
    :class:`~bert_theseus.theseus.ReplacingRateScheduler` to ``fit``.
    """

    _constants = frozenset()

    @property
    def trainable_weights(self):
        """The successor's weights, less those whose layer is not trainable."""
        return [w for w in super().trainable_weights if w.ref() not in self._constants]

    @property
    def non_trainable_weights(self):
        """All others: predecessor, classifier, replacing rate, generator state."""
        learning = {w.ref() for w in self.trainable_weights}
        return [w for w in self.weights if w.ref() not in learning]

    @property
    def replacing_rate(self) -> float:
        """Probability with which a module is the successor's in the next step."""
        return float(K.get_value(self.get_layer("Replacing-Draws").replacing_rate))

    @replacing_rate.setter
    def replacing_rate(self, rate: float) -> None:
        self.get_layer("Replacing-Draws").replacing_rate.assign(rate)


def bert_of_theseus(predecessor, successor, classifier,
                    replacing_rate: float | Callable[[int], float] = 0.5,
                    modules: Sequence[Sequence[int]] | None = None, embeddings: str = "replace",
                    draw: str = "batch", lazy: bool = True,
                    seed: int | None = None) -> TheseusModel:
    """The model of the replacing stage, https://kexue.fm/archives/7575.

    predecessor, successor: bert4keras transformers of equal hidden size, made by
        ``build_transformer_model(…, return_keras_model=False)``; the first is fine-tuned.
    classifier: a Keras model or layer on [batch, length, hidden_size]; it stays as it is.
    replacing_rate: a number, or a schedule step → rate; a schedule also needs the callback
        ``ReplacingRateScheduler(schedule)`` in ``fit``.
    modules:    which predecessor layers each successor layer replaces, e.g. [[0, 1], [2, 3, 4]];
                default: as even as possible (:func:`module_groups`).
    embeddings: "replace" treats them as one more module (article); "share" uses the
                predecessor's, frozen, and copies them into the successor now (paper).
    draw:       "batch" (article) or "sample". lazy: run only the chosen branch.
    seed:       of the draws. The generator's state is a weight of the model.

    Raises InputError where the two do not fit. Returns a Keras model on the predecessor's inputs.

        predecessor = build_transformer_model(config, checkpoint, return_keras_model=False,
                                              prefix='Predecessor-')
        successor = build_transformer_model(config, checkpoint, return_keras_model=False,
                                            num_hidden_layers=3, prefix='Successor-')
        theseus_model = bert_of_theseus(predecessor, successor, classifier)
    """
    groups = module_groups(predecessor.num_hidden_layers, successor.num_hidden_layers, modules)
    _check_pair(predecessor, successor, embeddings)
    replace_embeddings = embeddings == "replace"
    inputs = predecessor.inputs
    draws = ReplacingDraws(len(groups) + replace_embeddings, draw=draw, seed=seed,
                           replacing_rate=as_schedule(replacing_rate)(0),
                           name="Replacing-Draws")(inputs[0])
    if replace_embeddings:
        outputs = ModuleReplacing(embeddings_model(predecessor), embeddings_model(successor),
                                  lazy=lazy, name="Replacing-Embeddings")(
            [inputs[0], draws, *inputs[1:]])
    else:
        _copy_embeddings(predecessor, successor)
        outputs = embeddings_model(predecessor)(inputs)
    for i, group in enumerate(groups):
        outputs = ModuleReplacing(layers_model(predecessor, group), layers_model(successor, [i]),
                                  index=i + replace_embeddings, lazy=lazy,
                                  name=f"Replacing-Module-{i}")([outputs, draws, *inputs])
    model = TheseusModel(inputs, classifier(outputs))
    model._constants = frozenset(w.ref() for part in (predecessor.model, classifier)
                                 for w in part.weights)
    return model


def module_groups(predecessor_layers: int, successor_layers: int,
                  modules: Sequence[Sequence[int]] | None = None) -> list[list[int]]:
    """The predecessor's layers in as many groups as the successor has layers.

    Without ``modules`` the groups differ by one layer at most, longer ones first; a given list is
    checked: every layer once, in order.

    >>> module_groups(12, 5)
    [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9], [10, 11]]
    """
    if modules is None:
        if not 1 <= successor_layers <= predecessor_layers:
            raise InputError(f"a successor of {successor_layers} layers cannot replace "
                             f"{predecessor_layers} layers", "successor_layers",
                             f"use 1 … {predecessor_layers}")
        return [group.tolist()
                for group in np.array_split(np.arange(predecessor_layers), successor_layers)]
    groups = [list(group) for group in modules]
    flat = [layer for group in groups for layer in group]
    expected = list(range(predecessor_layers))
    reason = None
    if len(groups) != successor_layers:
        reason = f"has {len(groups)} groups for {successor_layers} successor layers"
    elif not all(groups):
        reason = f"has an empty group ({groups.index([])})"
    elif len(set(flat)) < len(flat):
        reason = f"repeats layer {next(x for x in flat if flat.count(x) > 1)}"
    elif set(flat) - set(expected):
        reason = f"names layer {min(set(flat) - set(expected))}, which the predecessor has not"
    elif set(expected) - set(flat):
        reason = f"leaves out layer {min(set(expected) - set(flat))}"
    elif flat != expected:
        reason = "reorders the layers"
    if reason:
        raise InputError(f"the module list {groups} {reason}", "modules",
                         f"name each of the layers 0 … {predecessor_layers - 1} once, in order")
    return groups


def embeddings_model(transformer) -> keras.Model:
    """The embedding part of a bert4keras transformer as a model: its inputs → [b, n, hidden]."""
    with _rewired(transformer) as inputs:
        return keras.Model(inputs, transformer.apply_embeddings(inputs))


def layers_model(transformer, indices: Sequence[int]) -> keras.Model:
    """Some main layers of a bert4keras transformer as a model.

    Inputs: hidden states [b, n, hidden_size], then the transformer's own inputs, from which the
    attention mask, position bias and conditions of these layers are computed. All weights are the
    transformer's.
    """
    with _rewired(transformer) as inputs:
        hidden = keras.Input((transformer.sequence_length, transformer.hidden_size))
        outputs = keras.layers.Lambda(_identity, mask=_given_mask_or_ones)(hidden)
        for index in indices:
            outputs = transformer.apply_main_layers(outputs, index)
        return keras.Model([hidden, *inputs], outputs)


def _identity(x):
    return x


def _given_mask_or_ones(x, mask):
    """NEZHA's position layer asks for a mask even where there is none."""
    return tf.ones(tf.shape(x)[:2], tf.bool) if mask is None else mask


@contextlib.contextmanager
def _rewired(transformer) -> Iterator[list]:
    """Lends a transformer new inputs, on which its biases and conditions are computed anew.

    bert4keras caches mask and position bias of the first call; both hang on the inputs of then.
    """
    saved = {name: getattr(transformer, name)
             for name in ("inputs", "attention_bias", "position_bias", "layer_norm_conds")}
    inputs = [keras.Input(batch_shape=K.int_shape(x), dtype=K.dtype(x))
              for x in transformer.inputs]
    condition, *condition_settings = transformer.layer_norm_conds
    if condition is not None:
        condition = keras.Model(transformer.inputs, condition)(inputs)
    try:
        transformer.inputs = inputs
        transformer.attention_bias = transformer.position_bias = None
        transformer.layer_norm_conds = [condition, *condition_settings]
        yield inputs
    finally:
        for name, value in saved.items():
            setattr(transformer, name, value)


def _check_pair(predecessor, successor, embeddings: str) -> None:
    def shapes(transformer):
        return [tuple(K.int_shape(x)) for x in transformer.inputs]

    if embeddings not in ("replace", "share"):
        raise InputError(f"unknown embeddings {embeddings!r}", "embeddings",
                         "use 'replace' (article) or 'share' (paper)")
    for name in ("hidden_size", "vocab_size"):
        ours, theirs = getattr(predecessor, name), getattr(successor, name)
        if ours != theirs:
            raise InputError(f"predecessor and successor differ in {name}: {ours} and {theirs}",
                             "bert_of_theseus", "build both from one bert_config.json")
    if shapes(predecessor) != shapes(successor):
        raise InputError(f"predecessor and successor take different inputs: {shapes(predecessor)} "
                         f"and {shapes(successor)}", "bert_of_theseus",
                         "build both with the same arguments")
    shared = _weights(predecessor) & _weights(successor)
    if shared:
        raise InputError(f"predecessor and successor share {len(shared)} weights",
                         "bert_of_theseus", "build the successor on its own")
    if any(t.residual_attention_scores for t in (predecessor, successor)):
        raise InputError("residual attention scores run through all layers and cannot be cut "
                         "into modules", "residual_attention_scores")


def _weights(transformer) -> set:
    return {w.ref() for w in transformer.model.weights}


def _copy_embeddings(predecessor, successor) -> None:
    embeddings_model(successor).set_weights(embeddings_model(predecessor).get_weights())


def classification_head(hidden_size: int, num_labels: int, name: str = "Classifier"
                        ) -> keras.Model:
    """[CLS] vector → softmax over the labels, as in the article: [b, n, h] → [b, num_labels]."""
    x = keras.Input((None, hidden_size))
    first = keras.layers.Lambda(lambda x: x[:, 0], name="CLS")(x)
    return keras.Model(x, keras.layers.Dense(num_labels, "softmax", name="Probabilities")(first),
                       name=name)


def tagging_head(hidden_size: int, num_labels: int, name: str = "Tagger") -> keras.Model:
    """Every token → softmax over the tags: [b, n, h] → [b, n, num_labels]."""
    x = keras.Input((None, hidden_size))
    return keras.Model(x, keras.layers.Dense(num_labels, "softmax", name="Probabilities")(x),
                       name=name)

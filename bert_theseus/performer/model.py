"""A published BERT with its attention exchanged: same weights, same layer names.

The exchange happens where bert4keras applies a layer: ``MultiHeadAttention`` of the chosen blocks
becomes ``PerformerAttention``. The causal and the UniLM mask go into the layer itself, so that no
[length, length] matrix is made, except for blocks that keep exact attention.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bert4keras.layers import MultiHeadAttention
from bert4keras.models import (BERT, LM_Mask, RoFormer, UniLM_Mask, build_transformer_model)

from bert_theseus.checkpoint import load_checked
from bert_theseus.errors import InputError
from bert_theseus.performer.layer import PerformerAttention
from bert_theseus.performer.saving import (add_projections, assign_projections,
                                           read_projections)

MODELS = {"bert": BERT, "roberta": BERT, "roformer": RoFormer}


def build_performer_model(config_path, checkpoint_path=None, model: str = "bert",
                          num_features: int | None = None, kernel: str = "favor",
                          causal: bool = False, performer_layers: Sequence[int] | None = None,
                          attention: str = "linear", crossover: int | None = None,
                          projection: str = "orthogonal", projection_seed: int | None = None,
                          rotary_at: str = "features", application: str = "encoder",
                          return_keras_model: bool = True, **kwargs):
    """bert4keras' ``build_transformer_model`` with linear attention.

    config_path, checkpoint_path: bert_config.json and bert_model.ckpt of any BERT, as published
    model:             "bert", "roberta" or "roformer"
    causal:            causal attention without a language model's head; with one it is
                       ``application="lm"``; ``application="unilm"`` is the UniLM mask
    num_features:      ω per head; default those of the checkpoint, else 4 · head size
    performer_layers:  indices of the blocks that get linear attention, default all
    projection_seed:   block i draws its ω from projection_seed + i. Default: the ω that the
                       checkpoint of a Performer holds, drawn from 0 + i where there are none
    The other options are those of :class:`PerformerAttention`, or of bert4keras.
    Returns a Keras model, or the bert4keras transformer. Raises InputError for bad sizes, names,
    masks that contradict each other, and models whose positions live in the attention matrix.

    >>> import json
    >>> config = dict(vocab_size=30, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
    ...               intermediate_size=32, hidden_act="gelu", max_position_embeddings=40)
    >>> _ = Path("bert_config.json").write_text(json.dumps(config))
    >>> bert = build_performer_model("bert_config.json", num_features=32)
    >>> type(bert.get_layer("Transformer-1-MultiHeadSelfAttention")).__name__
    'PerformerAttention'
    """
    config = _read_config(config_path, kwargs)
    saved = {} if checkpoint_path is None or projection_seed is not None else (
        read_projections(checkpoint_path))
    if num_features is None and saved:
        num_features = len(saved[min(saved)])
    options = {"num_features": num_features, "kernel": kernel, "attention": attention,
               "crossover": crossover, "projection": projection, "rotary_at": rotary_at}
    if causal and application == "unilm":
        raise InputError("causal=True contradicts the UniLM mask", "causal", "choose one of them")
    base = type("Performer", (_Exchange, _model_class(model)), {})
    if causal and application == "encoder":
        base = type("CausalPerformer", (LM_Mask, base), {})
    transformer = build_transformer_model(
        config_path, model=base, application=application, return_keras_model=False,
        performer_options=options, projection_seed=projection_seed or 0,
        performer_layers=_chosen(performer_layers, config["num_hidden_layers"]), **kwargs)
    if checkpoint_path is not None:
        load_checked(transformer, checkpoint_path)
        assign_projections(transformer, saved, checkpoint_path)
    return transformer.model if return_keras_model else transformer


def check_token_ids(token_ids, vocab_size: int, where: str = "token ids") -> None:
    """Raises InputError unless all ids are whole numbers in 0 … vocab_size − 1.

    bert4keras' inputs are floats, cut to whole numbers inside the model, and an embedding looked up
    beyond its end is an error on a CPU and zeros on a GPU: check what comes from elsewhere.

    >>> check_token_ids([[1, 2, 3]], vocab_size=4)
    """
    ids = np.asarray(token_ids)
    bad = ~np.isfinite(ids) | (ids != np.floor(ids)) | (ids < 0) | (ids >= vocab_size)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(f"token id {ids[place]} at {place} is none of 0 … {vocab_size - 1}", where,
                         "encode the text with the vocabulary the model was built for")


class _Exchange:
    """Mixin for bert4keras transformers: linear attention in the chosen blocks."""

    def __init__(self, performer_options, performer_layers, projection_seed, **kwargs):
        super().__init__(**kwargs)
        if self.residual_attention_scores:
            raise InputError("residual attention scores need attention matrices",
                             "residual_attention_scores", "leave it out")
        self.performer_options = performer_options
        self.performer_layers = performer_layers
        self.projection_seed = projection_seed

    def apply(self, inputs=None, layer=None, arguments=None, **kwargs):
        """As bert4keras'; attention in a chosen block becomes :class:`PerformerAttention`."""
        index = _block_index(kwargs.get("name"))
        if layer is not MultiHeadAttention or index not in self.performer_layers:
            return super().apply(inputs, layer, arguments, **kwargs)
        self._check_shared(kwargs["name"])
        kwargs.update(self.performer_options, projection_seed=self.projection_seed + index,
                      causal=isinstance(self, LM_Mask))
        inputs, arguments = self._mask_of_layer(inputs, arguments)
        return super().apply(inputs, PerformerAttention, arguments, **kwargs)

    def save_weights_as_checkpoint(self, filename, mapping=None, dtype=None):
        """As in bert4keras, and the projections: see saving.py."""
        super().save_weights_as_checkpoint(filename, mapping, dtype)
        add_projections(self, filename)

    def _mask_of_layer(self, inputs, arguments):
        """Takes the [length, length] mask out; UniLM gets the segment ids in its place."""
        if inputs is None or not arguments.get("a_bias"):
            return inputs, arguments
        if isinstance(self, UniLM_Mask):
            return inputs[:3] + [self.inputs[1]] + inputs[4:], arguments
        return inputs[:3] + inputs[4:], {**arguments, "a_bias": None}

    def _check_shared(self, name):
        shared = self.layers.get(self.prefixed(name))
        if shared is not None and not isinstance(shared, PerformerAttention):
            raise InputError(f"the shared layer {name} has exact attention", "layers",
                             "share layers of a Performer, or leave that block out of "
                             "performer_layers")


def _block_index(name: str | None) -> int | None:
    found = re.fullmatch(r"Transformer-(\d+)-MultiHeadSelfAttention", name or "")
    return found and int(found.group(1))


def _model_class(model: str):
    if model in MODELS:
        return MODELS[model]
    reason = f"unknown model {model!r}"
    if model == "nezha" or str(model).startswith(("t5", "mt5")):
        reason = f"{model} adds its relative positions to the attention matrix, which linear " \
                 "attention never forms"
    raise InputError(reason, "model", f"use one of {', '.join(MODELS)}")


def _chosen(layers, num_layers: int) -> frozenset:
    chosen = frozenset(range(num_layers) if layers is None else layers)
    wrong = sorted(chosen - set(range(num_layers)))
    if wrong:
        raise InputError(f"there is no block {wrong[0]}", "performer_layers",
                         f"use indices 0 … {num_layers - 1}")
    return chosen


def _read_config(config_path, overrides) -> dict:
    try:
        config = json.loads(Path(config_path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the configuration ({error.strerror})", str(config_path),
                         "give the bert_config.json of a published BERT") from None
    except ValueError:
        raise InputError("the configuration is no JSON", str(config_path),
                         "give the bert_config.json of a published BERT") from None
    config = {**config, **overrides}
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if hidden % heads and not config.get("attention_head_size"):
        raise InputError(f"{heads} heads do not divide the hidden size {hidden}", str(config_path),
                         "use a number of heads that does")
    return config

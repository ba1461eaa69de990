"""The projection ω in a published checkpoint: one more variable for each block.

    bert/encoder/layer_0/attention/self/projection        [num_features, head_size]

Whatever reads Google's BERT takes the names it knows and leaves these alone; a Performer takes
them, so that it computes after loading what it computed before saving, redrawn ω included.
"""

import re

import numpy as np
import tensorflow as tf

from bert_theseus.checkpoint import _Variables
from bert_theseus.errors import InputError
from bert_theseus.performer.layer import PerformerAttention

_NAME = "bert/encoder/layer_{}/attention/self/projection"


def attention_layers(transformer) -> dict[int, PerformerAttention]:
    """Block → its linear attention, for the blocks that have it and have been built."""
    names = {i: transformer.prefixed(f"Transformer-{i}-MultiHeadSelfAttention")
             for i in range(transformer.num_hidden_layers)}
    found = {i: transformer.layers.get(name) for i, name in names.items()}
    return {i: layer for i, layer in found.items() if isinstance(layer, PerformerAttention)}


def add_projections(transformer, path: str) -> None:
    """Writes the transformer's ω into a checkpoint that holds its other weights."""
    added = {_NAME.format(i): layer.projection for i, layer in attention_layers(transformer).items()
             if layer.projection is not None}
    if not added:
        return
    old = _Variables(path)
    tensors = {name: tf.constant(old[name]) for name in old.names} | added
    tf.raw_ops.SaveV2(prefix=str(path), tensor_names=list(tensors),
                      shape_and_slices=[""] * len(tensors),
                      tensors=[tf.convert_to_tensor(x) for x in tensors.values()])


def read_projections(path: str) -> dict[int, np.ndarray]:
    """Block → ω [num_features, head_size], as far as the checkpoint holds them."""
    variables, pattern = _Variables(path), re.compile(_NAME.format(r"(\d+)") + "$")
    return {int(found[1]): variables[name] for name in variables.names
            if (found := pattern.match(name))}


def assign_projections(transformer, projections: dict[int, np.ndarray], path: str) -> None:
    """Gives each block its ω; InputError where it is of another size than the model's."""
    for i, layer in attention_layers(transformer).items():
        if i not in projections or layer.projection is None:
            continue
        held, wanted = projections[i].shape, tuple(layer.projection.shape)
        if held != wanted:
            raise InputError(f"the projection of block {i} has another shape: the model expects "
                             f"{list(wanted)}, the checkpoint holds {list(held)}", str(path),
                             f"give num_features={held[0]}, or a projection_seed to draw anew")
        layer.projection.assign(projections[i])

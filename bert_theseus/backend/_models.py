"""Repairs of bert4keras' ``Transformer``: checkpoints written and read in eager mode."""

import contextlib

import tensorflow as tf


def repair(models) -> None:
    """Applies the repairs of this file to ``bert4keras.models``."""
    models.Transformer.save_weights_as_checkpoint = save_weights_as_checkpoint
    give_every_error_a_message(models.Transformer)
    load_into_frozen_layers(models.Transformer)


def save_weights_as_checkpoint(self, filename, mapping=None, dtype=None) -> None:
    """Writes ``filename.index`` and ``.data-…`` as Google publishes BERT: plain names → values.

    bert4keras builds a graph and a ``tf.Session`` for it: neither can read eager variables.
    ``SaveV2`` writes the same file without both. Frozen layers, which bert4keras leaves out,
    are written too.
    """
    tensors = {}
    for layer, names in mapped_layers(self, mapping):
        with all_trainable(layer):
            values = [weight.numpy() for weight in layer.trainable_weights]
        for name, value in zip(names, values):
            variable, value = self.create_variable(name, value, dtype)
            tensors[name] = tf.cast(value, variable.dtype)
    tf.raw_ops.SaveV2(prefix=str(filename), tensor_names=list(tensors),
                      shape_and_slices=[""] * len(tensors), tensors=list(tensors.values()))


def mapped_layers(transformer, mapping=None) -> list[tuple]:
    """(layer, names of its variables in a checkpoint) for each layer the transformer has."""
    mapping = mapping or transformer.variable_mapping()
    named = ((transformer.prefixed(name), names) for name, names in mapping.items())
    return [(transformer.layers[name], names) for name, names in named
            if name in transformer.layers]


@contextlib.contextmanager
def all_trainable(*layers):
    """Inside, all weights of the layers count as trainable, in the order they were made in."""
    parts = [part for layer in layers for part in (layer, *layer.submodules)
             if isinstance(part, tf.keras.layers.Layer)]
    flags = [part.trainable for part in parts]
    for part in parts:
        part.trainable = True
    try:
        yield
    finally:
        for part, flag in zip(parts, flags):    # a layer before those inside it
            part.trainable = flag


def give_every_error_a_message(transformer) -> None:
    """``ignore_invalid_weights=True`` prints ``e.message``, which Python's own errors lack."""
    original = transformer.load_variable

    def load_variable(self, checkpoint, name):
        try:
            return original(self, checkpoint, name)
        except KeyError as error:
            error.message = f"variable {name} not found"
            raise

    transformer.load_variable = load_variable


def load_into_frozen_layers(transformer) -> None:
    """A frozen layer has no trainable weights, so bert4keras silently loads nothing into it."""
    original = transformer.load_weights_from_checkpoint

    def load_weights_from_checkpoint(self, checkpoint, mapping=None):
        with all_trainable(*(layer for layer, _ in mapped_layers(self, mapping))):
            original(self, checkpoint, mapping)

    transformer.load_weights_from_checkpoint = load_weights_from_checkpoint

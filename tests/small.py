"""Small models and batches that several tests share."""

import numpy as np
from bert4keras.models import build_transformer_model

from bert_theseus.backend import keras, set_seed


def small_bert(**kwargs):
    settings = dict(vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=16, hidden_act="gelu", max_position=12)
    return build_transformer_model(return_keras_model=False, **{**settings, **kwargs})


def small_batch():
    tokens = np.array([[2, 5, 6, 7, 3, 0, 0], [2, 9, 8, 3, 11, 12, 3]])
    return [tokens, np.array([[0] * 7, [0] * 4 + [1] * 3])]


def small_model():
    set_seed(1)
    return keras.Sequential([keras.layers.Embedding(20, 4, input_length=7), keras.layers.Dense(1)])

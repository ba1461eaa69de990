"""Performer (kexue.fm 7921, with 7546): linear attention that is right under padding.

    Attention_i = Σ_j sim(q_i, k_j) v_j / Σ_j sim(q_i, k_j),   sim(q, k) = φ(q)·ϕ(k)
    e^{q·k} = E_{ω~N(0, I)} [ e^{ω·q − |q|²/2} e^{ω·k − |k|²/2} ]               (FAVOR+)

so that ϕ(K)ᵀ V, whose size does not depend on the length, replaces the matrix of all pairs.

=================  ==========================================================================
``projection.py``  the ω_i: orthogonal, independent, and the article's equal-probability norms
``kernels.py``     the feature maps φ and ϕ: FAVOR+ and its alternatives
``sums.py``        Σ_j ϕ(k_j) [v_j, 1]: over all keys, over a prefix, one key at a time
``attention.py``   ``favor_attention`` and the exact attention it stands for; token streaming
``layer.py``       ``PerformerAttention``, a bert4keras ``MultiHeadAttention``
``model.py``       ``build_performer_model``: a published BERT with its attention exchanged
``saving.py``      the ω_i in a published checkpoint
``cost.py``        multiply-adds and times by length, the crossover
``study.py``       what scripts/performer.py measures; with ``parts``, ``data``, ``journal``,
                   ``plots``
=================  ==========================================================================

>>> import tensorflow as tf
>>> query, key, value = (tf.random.normal([2, 20, 4, 16]) for _ in range(3))
>>> projection = orthogonal_projection(num_features=64, head_size=16, seed=0)
>>> favor_attention(query, key, value, projection).shape
TensorShape([2, 20, 4, 16])
"""

from bert_theseus.performer.attention import (favor_attention, favor_state, favor_step,
                                              softmax_attention)
from bert_theseus.performer.kernels import KERNELS
from bert_theseus.performer.layer import CROSSOVER, PerformerAttention, RedrawProjection
from bert_theseus.performer.model import build_performer_model, check_token_ids
from bert_theseus.performer.projection import (equal_probability_norms, gaussian_projection,
                                               orthogonal_projection)

__all__ = ["CROSSOVER", "KERNELS", "PerformerAttention", "RedrawProjection",
           "build_performer_model", "check_token_ids", "equal_probability_norms", "favor_attention",
           "favor_state", "favor_step", "gaussian_projection", "orthogonal_projection",
           "softmax_attention"]

"""Losses for class imbalance: kexue.fm 7708, 4733, 7359, 7615, one family on logits.

| loss | idea | article |
|---|---|---|
| WeightedCrossentropy, ClassBalancedCrossentropy | weights outside the logarithm | 7708, 7615 |
| SmoothAccuracyLoss, SmoothF1Loss | the metric itself, made smooth | 7708 |
| F1WeightedCrossentropy | smooth F1 after "p → log p" | 7708 |
| HardTruncated-, SoftTruncated-, FocalCrossentropy | what is right no longer trains | 4733 |
| MarginCrossentropy | rare classes hold larger balls | 7708 |
| LogitAdjustedCrossentropy, adjust_logits | the prior inside the logarithm | 7615 |
| MultilabelCrossentropy, SparseMultilabelCrossentropy, SubsetCrossentropy | several labels | 7359 |
| DiceLoss | for comparison | – |

All are Keras losses on logits: integer, one-hot or binary labels, sample weights, masks, an
ignore label, reductions; finite with finite gradients at any logit; saved with the model.

>>> from bert_theseus.backend import keras
>>> from bert_theseus.imbalance import LogitAdjustedCrossentropy, class_prior
>>> labels = [0] * 90 + [1] * 9 + [2]
>>> model = keras.Sequential([keras.layers.Dense(3, input_shape=(8,))])
>>> model.compile("adam", LogitAdjustedCrossentropy(class_prior(labels, 3)))
"""

from bert_theseus.imbalance.dice import DiceLoss
from bert_theseus.imbalance.f1 import (F1WeightedCrossentropy, FullDataF1, SmoothAccuracyLoss,
                                       SmoothF1Loss)
from bert_theseus.imbalance.logit_adjustment import (LogitAdjustedCrossentropy, adjust_logits,
                                                     estimate_prior, prediction_scores)
from bert_theseus.imbalance.margins import MarginCrossentropy, ldam_margins, prior_margins
from bert_theseus.imbalance.multilabel import (MultilabelCrossentropy,
                                               SparseMultilabelCrossentropy)
from bert_theseus.imbalance.priors import class_counts, class_prior
from bert_theseus.imbalance.subsets import SubsetCrossentropy
from bert_theseus.imbalance.truncated import (FocalCrossentropy, HardTruncatedCrossentropy,
                                              SoftTruncatedCrossentropy)
from bert_theseus.imbalance.weights import (ClassBalancedCrossentropy, WeightedCrossentropy,
                                            effective_number_weights, inverse_frequency_weights)

__all__ = [
    "ClassBalancedCrossentropy", "DiceLoss", "F1WeightedCrossentropy", "FocalCrossentropy",
    "FullDataF1", "HardTruncatedCrossentropy", "LogitAdjustedCrossentropy", "MarginCrossentropy",
    "MultilabelCrossentropy", "SmoothAccuracyLoss", "SmoothF1Loss", "SoftTruncatedCrossentropy",
    "SparseMultilabelCrossentropy", "SubsetCrossentropy", "WeightedCrossentropy", "adjust_logits",
    "class_counts", "class_prior", "effective_number_weights", "estimate_prior",
    "inverse_frequency_weights", "ldam_margins", "prediction_scores", "prior_margins",
]

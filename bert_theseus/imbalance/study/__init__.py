"""The measurement the four articles leave out: every loss, long-tailed real data, several seeds.

``load_corpus`` → ``text_features`` → ``run_group`` (all losses, settings and seeds of one task at
one imbalance) → ``chosen`` (settings by dev, values by test) → ``judge`` (the statements).
"""

from bert_theseus.imbalance.study.claims import CLAIMS, judge, steps_claim
from bert_theseus.imbalance.study.cost import step_costs
from bert_theseus.imbalance.study.data import (SOURCES, Corpus, Cut, cut, load_corpus,
                                               long_tail_counts, possible)
from bert_theseus.imbalance.study.features import text_features
from bert_theseus.imbalance.study.gaussian import bayes_measures, gaussian_corpus
from bert_theseus.imbalance.study.heads import Heads, logits_of
from bert_theseus.imbalance.study.measures import MEASURES, measure, paired_test, verdict
from bert_theseus.imbalance.study.runs import chosen, run_group
from bert_theseus.imbalance.study.several_labels import load_entity_types, run_several_labels

__all__ = ["CLAIMS", "MEASURES", "SOURCES", "Corpus", "Cut", "Heads", "bayes_measures", "chosen",
           "cut", "gaussian_corpus", "judge", "load_corpus", "load_entity_types", "logits_of",
           "long_tail_counts", "measure", "paired_test", "possible", "run_group",
           "run_several_labels",
           "step_costs", "steps_claim", "text_features", "verdict"]

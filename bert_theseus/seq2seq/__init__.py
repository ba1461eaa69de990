"""Seq2Seq answers from a prefix tree: cached, batched, constrained beam search (kexue.fm 8802).

The model reads a question and writes  S [SEP] P [SEP] M [SEP];  at every step only tokens that
continue a path of the tree are allowed, and the object is looked up at the end.

What differs from the article's loop: many questions and beams in one batch, keys and values
cached (``cached``), a search that keeps what it finished and returns n best with probabilities
(``search``), the look-ahead computed incrementally (``lookahead``), predicates scored whole.
"""

from bert_theseus.seq2seq.cached import CachedUniLM
from bert_theseus.seq2seq.decoder import Answer, ConstrainedDecoder
from bert_theseus.seq2seq.search import RULES

__all__ = ["Answer", "CachedUniLM", "ConstrainedDecoder", "RULES"]

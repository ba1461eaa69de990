"""The knowledge base as a memory-mapped prefix tree (kexue.fm 8802).

A key is the token sequence  S [SEP] P [SEP] M [SEP]  of a triple's subject without its bracket,
its predicate, and the bracketed disambiguation (the *meaning*, possibly empty), each tokenised
on its own as in the article; its values are the objects in file order.

The article nests dictionaries, one per node, keyed by strings, and walks from the root at every
step. Here the distinct subjects, predicates and meanings are three sorted token tables, and the
keys are rows (subject, predicate, meaning) sorted by them. A prefix is then a range of rows: the
cursor ``[lo, hi)`` with the table it stands in. Children of a range are found where its next
tokens change; among subjects, whose ranges are long, a trie of the branching nodes gives them
directly. All arrays stay in one file; texts and objects are read from disk when asked for.

Nothing here imports TensorFlow.
"""

from bert_theseus.prefix_tree.cursors import CURSOR
from bert_theseus.prefix_tree.fields import join_subject, split_subject
from bert_theseus.prefix_tree.tree import Children, Fact, Paths, PrefixTree

__all__ = ["CURSOR", "Children", "Fact", "Paths", "PrefixTree", "join_subject", "split_subject"]

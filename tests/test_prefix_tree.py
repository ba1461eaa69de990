"""The tree against the article's own: nested dictionaries walked from the root."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from bert4keras.tokenizers import Tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_theseus.errors import InputError
from bert_theseus.prefix_tree import PrefixTree, build, fields, join_subject, split_subject
from bert_theseus.prefix_tree.tables import Sequences, branching_nodes, sort_sequences
from bert_theseus.prefix_tree.tokens import BatchTokenizer, fingerprint

WORDS = ("[PAD] [UNK] [CLS] [SEP] [MASK] a b ##a ##b 1 ##1 （ ） 《 甲 乙 丙 丁 子 丑 · é "
         "e ##e ab ! 中 国").split()
TOKENIZER = Tokenizer({word: i for i, word in enumerate(WORDS)}, do_lower_case=True)
NAMES = st.text("甲乙丙丁子龘靐aAb1（）· ", min_size=1, max_size=5).filter(str.strip)
TRIPLES = st.lists(st.tuples(NAMES, st.text("甲乙子丑a", min_size=1, max_size=4),
                             st.text("甲乙a1", min_size=1, max_size=3)), min_size=1, max_size=40)
FEW = settings(max_examples=40, deadline=None,
               suppress_health_check=[HealthCheck.function_scoped_fixture])


def article_ids(subject, predicate, meaning):
    """As in the article: encode(s, p)[1:] + encode(m)[1:]."""
    return TOKENIZER.encode(subject, predicate)[0][1:] + TOKENIZER.encode(meaning)[0][1:]


def reference(triples):
    """Token ids of each key → its objects by full subject and predicate, in file order."""
    keys = {}
    for name, predicate, text in triples:
        subject, meaning = split_subject(name)
        ids = tuple(article_ids(subject, predicate, meaning))
        texts = keys.setdefault(ids, {}).setdefault((subject, predicate, meaning), [])
        if (text := " ".join(text.split())) not in texts:
            texts.append(text)
    return keys


def write(triples, path="knowledge.txt"):
    text = "".join("\t".join(triple) + "\n" for triple in triples)
    Path(path).write_text(text, encoding="utf-8", newline="\n")
    return path


def check_equal(tree, keys):
    """The tree's children, keys and objects are those of ``keys``, prefix by prefix."""
    below = {}
    for ids in keys:
        for length in range(len(ids)):
            below.setdefault(ids[:length], set()).add(ids[length])
    prefixes = sorted(below)
    cursors = np.concatenate([tree.walk(prefix) for prefix in prefixes])
    owners, tokens = tree.children(cursors)
    found = {prefix: set() for prefix in prefixes}
    for owner, token in zip(owners.tolist(), tokens.tolist()):
        found[prefixes[owner]].add(token)
    assert found == below
    assert len(tokens) == sum(map(len, below.values()))
    assert not tree.is_key(cursors).any()
    for ids, facts in keys.items():
        leaf = tree.walk(ids)
        assert tree.is_key(leaf).all()
        assert {(f.subject, f.predicate, f.meaning): list(f.objects)
                for f in tree.facts(leaf)} == facts


@FEW
@given(TRIPLES)
def test_it_is_the_articles_tree(triples):
    tree = PrefixTree.build(write(triples), TOKENIZER, "k.tree", threads=1)
    check_equal(tree, reference(triples))


@FEW
@given(TRIPLES, st.lists(st.integers(0, len(WORDS) - 1), max_size=6))
def test_a_token_that_is_no_child_leaves_the_tree(triples, tokens):
    tree = PrefixTree.build(write(triples), TOKENIZER, "k.tree", threads=1)
    prefixes = {ids[:n] for ids in reference(triples) for n in range(len(ids) + 1)}
    cursor = tree.walk(tokens)
    inside = tuple(tokens) in prefixes
    assert inside == bool(len(tree.children(cursor).tokens) or tree.is_key(cursor)[0])
    if not inside:
        assert tree.objects(cursor) == []

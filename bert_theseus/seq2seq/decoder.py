"""``ConstrainedDecoder``: texts in, answers with probabilities out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bert_theseus.backend import keras
from bert_theseus.errors import InputError
from bert_theseus.prefix_tree import Fact, PrefixTree
from bert_theseus.prefix_tree.tokens import fingerprint
from bert_theseus.seq2seq import lookahead
from bert_theseus.seq2seq.beams import Session
from bert_theseus.seq2seq.cached import CachedUniLM
from bert_theseus.seq2seq.search import RULES, Finished, Search


@dataclass(frozen=True)
class Answer:
    """One answer: the fact as texts, and its probability among all facts of the tree.

    subject: as in the knowledge file, bracket included. meaning: what stands in the bracket.
    overridden: the answer was set with ``PrefixTree.override`` and not searched for.
    """

    subject: str
    predicate: str
    meaning: str
    objects: tuple[str, ...]
    probability: float
    overridden: bool = False


class ConstrainedDecoder:
    """Answers questions from a tree by constrained beam search.

    model: ``build_transformer_model(..., with_mlm=True, application="unilm")`` of type bert,
    roformer or nezha, or a ``CachedUniLM`` of it that several decoders share. tokenizer: the one
    the tree was built with. beam_size: hypotheses kept per question. rule: "none", "look-ahead"
    (the article's), "exact" or "exact+look-ahead" (see ``search.Search``). maxlen: tokens of a
    question that are read; batch_size: questions searched together.

    Raises InputError for another model, another tokenizer, an unknown rule. kexue.fm 8802.

    >>> from pathlib import Path
    >>> from bert4keras.models import build_transformer_model
    >>> from bert4keras.tokenizers import Tokenizer
    >>> words = "[PAD] [UNK] [CLS] [SEP] 龙 晶 繁 体 游 戏".split()
    >>> tokenizer = Tokenizer({word: i for i, word in enumerate(words)}, do_lower_case=True)
    >>> _ = Path("kg.txt").write_text("龙晶（游戏）\\t繁体\\t龍晶\\n龙\\t繁体\\t龍\\n", encoding="utf-8")
    >>> model = build_transformer_model(
    ...     None, None, "bert", "unilm", vocab_size=10, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=8, hidden_act="gelu", with_mlm=True)
    >>> tree = PrefixTree.build("kg.txt", tokenizer, "kg.tree")
    >>> decoder = ConstrainedDecoder(model, tokenizer, tree)
    >>> answers = decoder.answer(["龙晶的繁体是什么？"], n_best=2)[0]
    >>> sorted(answer.objects for answer in answers)
    [('龍',), ('龍晶',)]
    >>> round(sum(answer.probability for answer in answers), 4)
    1.0
    """

    def __init__(self, model: keras.Model | CachedUniLM, tokenizer, tree: PrefixTree,
                 beam_size: int = 3, rule: str = "look-ahead", maxlen: int = 128,
                 batch_size: int = 16):
        if rule not in RULES:
            raise InputError(f"unknown rule {rule!r}", "rule", f"use one of {', '.join(RULES)}")
        if min(beam_size, batch_size) < 1 or maxlen < 3:
            raise InputError("beam_size and batch_size must be at least 1, maxlen 3", "decoder")
        if fingerprint(tokenizer) != tree.info["tokenizer"]:
            raise InputError("the tree was built with another tokenizer", tree.path,
                             "use its vocabulary and settings, or build it again")
        self.model = model if isinstance(model, CachedUniLM) else CachedUniLM(model)
        self.tokenizer, self.tree = tokenizer, tree
        self.beam_size, self.rule = beam_size, rule
        self.maxlen, self.batch_size = maxlen, batch_size

    def answer(self, questions: Sequence[str], n_best: int = 1) -> list[list[Answer]]:
        """For each question its ``n_best`` (or all found) answers, most probable first."""
        answers: list[list[Answer]] = [[] for _ in questions]
        open_ = []
        for i, question in enumerate(questions):
            fact = self.tree.overridden(question)
            if fact is None:
                open_.append(i)
            else:
                answers[i] = [_answer(fact, 1.0, overridden=True)]
        ids = {i: self.tokenizer.encode(questions[i], maxlen=self.maxlen)[0] for i in open_}
        open_.sort(key=lambda i: len(ids[i]))
        for start in range(0, len(open_), self.batch_size):
            batch = open_[start:start + self.batch_size]
            found = self._search([np.array(ids[i]) for i in batch], n_best)
            for i, finished in zip(batch, found):
                answers[i] = self._texts(questions[i], finished)[:n_best]
        return answers

    def _search(self, ids: list[np.ndarray], n_best: int) -> list[list[Finished]]:
        length = -(-max(map(len, ids)) // 4) * 4  # few different shapes, see ``Session``
        length = min(length, self.model.max_position or length)
        padded = np.zeros((len(ids), length), "int32")
        for row, own in zip(padded, ids):
            row[:len(own)] = own
        room = 512 if self.model.max_position is None else self.model.max_position - length
        return Search(Session(self.model, padded), self.tree, ids, max(self.beam_size, n_best),
                      n_best, self.rule, room).run()

    def _texts(self, question: str, finished: list[Finished]) -> list[Answer]:
        """Facts of the leaves. Facts with the same token ids (rare characters are all [UNK]) are
        told apart by the question's own characters."""
        answers = []
        for found in finished:
            facts = self.tree.facts(found.leaf)
            match = [_match(fact, question) for fact in facts]
            best = [fact for fact, m in zip(facts, match) if m == max(match)]
            answers += [_answer(fact, math.exp(found.score) / len(best)) for fact in best]
        return answers


def _answer(fact: Fact, probability: float, overridden: bool = False) -> Answer:
    return Answer(fact.name, fact.predicate, fact.meaning, fact.objects, probability, overridden)


def _match(fact: Fact, question: str) -> tuple[bool, int]:
    """How well a fact's texts fit the question: subject found in it, then common characters."""
    codes = np.array([ord(c) for c in question] or [0])
    row = lookahead.first_row(codes)
    for character in fact.subject + fact.predicate + fact.meaning:
        row = lookahead.next_row(row[None], np.array([ord(character)]), codes)[0]
    return fact.subject in question, int(row[-1])

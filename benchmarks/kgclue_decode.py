"""Answering a question: cached and batched, beside the article's loop. Base-size RoFormer.

    python benchmarks/kgclue_decode.py

The article's loop takes one question at a time and runs the whole sequence of every beam at every
step (bert4keras' ``AutoRegressiveDecoder``, called with ``predict_on_batch``, which is faster than
the article's ``predict``; its allowed tokens come from our tree, which is faster than its own).
Both use beam 3 and the look-ahead. Weights are random (speed does not depend on them), drawn
wide enough that the choices are not ties. All ways answer the same questions, in alternating
rounds; the best round of each counts.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np

from bert_theseus.backend import set_seed
from bert_theseus.prefix_tree import PrefixTree
from bert_theseus.published import format_table
from bert_theseus.results import write_results
from bert_theseus.seq2seq import CachedUniLM, ConstrainedDecoder, lookahead
from bert4keras.models import build_transformer_model
from bert4keras.snippets import AutoRegressiveDecoder
from bert4keras.tokenizers import Tokenizer

from make_knowledge import generate

BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "hidden_act": "gelu"}
MARKS = {1: 6, 16: 30}


class ArticleDecoder(AutoRegressiveDecoder):
    """The article's loop: whole sequences, one question, its own beam search."""

    def __init__(self, model, tokenizer, tree):
        super().__init__(None, tokenizer._token_end_id, 128)
        self.model, self.tokenizer, self.tree, self.steps = model, tokenizer, tree, 0

    @AutoRegressiveDecoder.wraps(default_rtype="probas")
    def predict(self, inputs, output_ids, states):
        """Next token [beams, vocabulary]: what the tree allows, with the look-ahead."""
        tokens, segments = inputs
        self.steps += 1
        probas = self.last_token(self.model).predict_on_batch([
            np.concatenate([tokens, output_ids], 1),
            np.concatenate([segments, np.ones_like(output_ids)], 1)]).astype("float64")
        result = np.zeros_like(probas)
        for row, ids in enumerate(output_ids):
            cursor = self.tree.walk(ids)
            allowed = self.tree.children(cursor).tokens
            if len(allowed) > 1 and self.end_id in ids:
                before = lookahead.first_row(tokens[row])
                for token in ids:
                    before = lookahead.next_row(before[None], np.array([token]), tokens[row])[0]
                gain = lookahead.gains(before, self.tree.paths(cursor).tokens, tokens[row])
                weights = np.array([1 / (gain[token] + 1) for token in allowed.tolist()])
                result[row, allowed] = probas[row, allowed] ** weights
            else:
                result[row, allowed] = probas[row, allowed]
        return result / result.sum(1, keepdims=True)

    def answer(self, question: str) -> tuple[str, str]:
        """(subject, predicate) of the best beam."""
        tokens, segments = self.tokenizer.encode(question, maxlen=128)
        output = self.beam_search([tokens, segments], topk=3, min_ends=3)
        fact = self.tree.facts(self.tree.walk(output))[0]
        return fact.name, fact.predicate


def make_questions(knowledge: Path, count: int) -> list[str]:
    """Questions from one pattern about ``count`` drawn facts."""
    lines = knowledge.read_text(encoding="utf-8").splitlines()
    rows = [lines[i].split("\t") for i in np.random.default_rng(0).integers(0, len(lines), count)]
    return [f"请问{row[0].split('（')[0]}的{row[1]}是什么？" for row in rows]


def spread(model, scale: float) -> None:
    """Widens the random token embeddings, so that predictions differ from each other."""
    layer = model.get_layer("Embedding-Token")
    layer.set_weights([w * scale for w in layer.get_weights()])


def timed(answer, questions: list[str]) -> tuple[float, list[tuple[str, str]]]:
    """Seconds a question, and the answers."""
    start = time.perf_counter()
    answers = answer(questions)
    return (time.perf_counter() - start) / len(questions), answers


def first_facts(decoder: ConstrainedDecoder, questions: list[str]) -> list[tuple[str, str]]:
    """(subject, predicate) of the best answer to each question."""
    return [(found[0].subject, found[0].predicate) for found in decoder.answer(questions)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path("output/kgclue_decode"))
    parser.add_argument("--results", type=Path, default=Path("output/benchmarks"))
    args, begin = parser.parse_args(), time.time()
    knowledge = args.folder / "knowledge.txt"
    generate(knowledge, 205_596)
    tokenizer = Tokenizer(str(args.folder / "vocab.txt"), do_lower_case=True)
    tree = PrefixTree.build(knowledge, tokenizer, args.folder / "knowledge.tree")
    set_seed(0)
    model = build_transformer_model(None, None, "roformer", "unilm", with_mlm=True,
                                    vocab_size=tokenizer._vocab_size, **BASE)
    spread(model, 5.0)
    questions = make_questions(knowledge, args.questions)
    article, cached = ArticleDecoder(model, tokenizer, tree), CachedUniLM(model)
    ways = {"article": lambda texts: [article.answer(text) for text in texts]} | {
        size: partial(first_facts, ConstrainedDecoder(cached, tokenizer, tree, 3, "look-ahead",
                                                      batch_size=size)) for size in MARKS}
    for answer in ways.values():
        answer(questions[:1])  # traces
    seconds, answers, article.steps = {way: [] for way in ways}, {}, 0
    for _ in range(args.rounds):
        for way, answer in ways.items():
            each, answers[way] = timed(answer, questions)
            seconds[way].append(each)
    best = {way: min(values) for way, values in seconds.items()}
    ratios = {size: best["article"] / best[size] for size in MARKS}
    same = {size: sum(one == two for one, two in zip(answers[size], answers["article"]))
            for size in MARKS}
    steps = article.steps / (args.rounds * len(questions))
    write_results(args.results / "kgclue_decode", 8802, {
        "rounds": args.rounds, "questions": len(questions)}, [], time.time() - begin,
        seconds_a_question=seconds, article_steps_a_question=steps, ratios=ratios, marks=MARKS,
        same_answers=same)
    print(format_table([
        ("", "seconds a question", "times faster", "mark", "same answers"),
        ("article's way", f"{best['article']:.2f}", "1", "", ""), *(
            (f"ours, batch {size}", f"{best[size]:.3f}", f"{ratios[size]:.1f}", mark,
             f"{same[size]} of {len(questions)}") for size, mark in MARKS.items())]))
    print(f"steps of the article's loop a question: {steps:.1f}")


if __name__ == "__main__":
    main()

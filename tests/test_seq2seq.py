"""The cached search against the model run on whole sequences and the enumeration of all keys."""

from pathlib import Path

import numpy as np
import pytest
from bert4keras.models import build_transformer_model
from bert4keras.snippets import longest_common_subsequence
from bert4keras.tokenizers import Tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_theseus.backend import set_seed
from bert_theseus.errors import InputError
from bert_theseus.prefix_tree import PrefixTree, split_subject
from bert_theseus.seq2seq import RULES, CachedUniLM, ConstrainedDecoder

WORDS = "[PAD] [UNK] [CLS] [SEP] 甲 乙 丙 丁 子 丑 寅 卯 ？".split()
TOKENIZER = Tokenizer({word: i for i, word in enumerate(WORDS)}, do_lower_case=True)
QUESTIONS = ["甲乙的子丑？", "丙？", "甲甲乙丁卯寅子？", "丁丑是甲"]
TRIPLES = [("甲乙（丙）", "子丑", "一"), ("甲乙（丙）", "子寅", "二"), ("甲乙（丁丁）", "子丑", "三"),
           ("甲乙", "卯", "四"), ("甲", "子", "五"), ("甲", "子丑寅", "六"), ("丙丁", "子丑", "七"),
           ("丙丁", "丑子", "八"), ("丁", "子", "九"), ("丁甲（子）", "子", "十"), ("甲乙", "卯子", "百"),
           ("甲乙（丙）", "丑", "千"), ("丙丁", "丑子", "万"), ("丁甲（丑）", "子", "亿")]


def make_model(kind, seed=1, **more):
    """Two tiny layers with weights large enough that predictions are far from even."""
    set_seed(seed)
    model = build_transformer_model(
        None, None, kind, "unilm", vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=16, hidden_act="gelu", max_position=64,
        with_mlm=True, **more)
    random = np.random.default_rng(seed)
    model.set_weights([w + random.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


MODELS = {kind: make_model(kind) for kind in ("bert", "roformer", "nezha")}
CACHED = {kind: CachedUniLM(model) for kind, model in MODELS.items()}  # traced once for all


def whole_log_probs(model, question, answer):
    """log P of the token after question + answer, the whole sequence at once."""
    tokens = np.array([[*question, *answer]])
    segments = np.array([[0] * len(question) + [1] * len(answer)])
    return np.log(model.predict_on_batch([tokens, segments])[0, -1].astype("float64"))


@pytest.mark.parametrize("kind", MODELS)
def test_cached_predictions_are_those_of_the_whole_sequence(kind):
    model, random = CACHED[kind], np.random.default_rng(0)
    questions = [TOKENIZER.encode(text)[0] for text in QUESTIONS]
    padded = np.zeros((4, max(map(len, questions))), int)
    for row, ids in zip(padded, questions):
        row[:len(ids)] = ids
    question, first = model.encode(padded)
    for ids, found in zip(questions, first.numpy()):
        np.testing.assert_allclose(found, whole_log_probs(MODELS[kind], ids, []), atol=1e-4)
    pool, entries = model.empty_pool(4), 0
    answers = [[[] for _ in range(3)] for _ in questions]
    past = np.zeros((4, 3, 0), bool)
    for step in range(4):                         # three beams that are shuffled at every step
        order = random.integers(0, 3, (4, 3))
        tokens = random.integers(3, len(WORDS), (4, 3))
        past = np.take_along_axis(past, order[..., None], 1)
        answers = [[[*answers[b][order[b, k]], tokens[b, k]] for k in range(3)] for b in range(4)]
        mask = np.concatenate([past, np.broadcast_to(np.eye(3, dtype=bool), (4, 3, 3))], 2)
        wanted = np.stack([np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)], 1)
        logs, pool = model.extend(question, pool, tokens, np.full((4, 3), step), mask, wanted,
                                  np.repeat(np.arange(12), len(WORDS)),
                                  np.tile(np.arange(len(WORDS)), 12))
        past = mask
        for (b, k), found in zip(wanted.tolist(), logs.numpy().reshape(12, -1)):
            np.testing.assert_allclose(
                found, whole_log_probs(MODELS[kind], questions[b], answers[b][k]), atol=1e-4)
    assert model.traces <= 3


def prefix_log_probs(model, question, keys):
    """Every prefix of the keys → log P of the token after it; no token looks at a later one."""
    length = max(map(len, keys))
    tokens = np.array([[*question, *key, *[3] * (length - len(key))] for key in keys])
    segments = np.repeat([[0] * len(question) + [1] * length], len(keys), axis=0)
    found = np.log(model.predict_on_batch([tokens, segments]).astype("float64"))
    return {key[:i]: found[row, len(question) + i - 1]
            for row, key in enumerate(keys) for i in range(len(key))}


def enumerate_keys(model, question, triples, rule):
    """Every key's probability, by the definition of each rule, from whole sequences."""
    keys = {}
    for name, predicate, _ in triples:
        subject, meaning = split_subject(name)
        ids = TOKENIZER.encode(subject, predicate)[0][1:] + TOKENIZER.encode(meaning)[0][1:]
        keys[tuple(ids)] = (name, predicate)
    logs = prefix_log_probs(model, question, sorted(keys))

    def log(prefix):
        return logs[prefix]

    def lcs(ids):
        return longest_common_subsequence(list(ids), question)[0]

    def step(prefix, token):
        allowed = sorted({key[len(prefix)] for key in keys if key[:len(prefix)] == prefix})
        weights = np.ones(len(WORDS))
        if rule == "look-ahead" and len(allowed) > 1 and 3 in prefix:
            for key in keys:
                if key[:len(prefix)] == prefix:
                    gain = lcs(key[:-1]) - lcs(prefix)
                    weights[key[len(prefix)]] = max(gain + 1, weights[key[len(prefix)]])
        powers = np.exp(log(prefix) / weights)
        return np.log(powers[token] / powers[allowed].sum())

    def parts(key):
        ends = [i + 1 for i, token in enumerate(key) if token == 3]
        return key[:ends[0]], key[ends[0]:ends[1]], key[ends[1]:]

    def part_log(prefix, part, rivals):
        gain = lcs(prefix + part[:-1]) - lcs(prefix) if "look" in rule and rivals > 1 else 0
        return sum(log(prefix + part[:i])[token] for i, token in enumerate(part)) / (gain + 1)

    scores = {}
    for key in keys:
        if not rule.startswith("exact"):
            scores[keys[key]] = sum(step(key[:i], token) for i, token in enumerate(key))
            continue
        subject, predicate, meaning = parts(key)
        total = sum(step(subject[:i], token) for i, token in enumerate(subject))
        for prefix, part, place in ((subject, predicate, 1), (subject + predicate, meaning, 2)):
            rivals = {parts(other)[place] for other in keys if other[:len(prefix)] == prefix}
            total += part_log(prefix, part, len(rivals)) - np.log(sum(
                np.exp(part_log(prefix, rival, len(rivals))) for rival in rivals))
        scores[keys[key]] = total
    return {key: np.exp(score) for key, score in scores.items()}


def make_tree(triples):
    Path("k.txt").write_text("".join("\t".join(t) + "\n" for t in triples), encoding="utf-8")
    return PrefixTree.build("k.txt", TOKENIZER, "k.tree", threads=1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", MODELS)
def test_a_wide_beam_finds_all_keys_with_their_probabilities(kind, rule):
    decoder = ConstrainedDecoder(CACHED[kind], TOKENIZER, make_tree(TRIPLES), 40, rule)
    for question, answers in zip(QUESTIONS, decoder.answer(QUESTIONS, n_best=40)):
        expected = enumerate_keys(MODELS[kind], TOKENIZER.encode(question)[0], TRIPLES, rule)
        found = {(a.subject, a.predicate): a.probability for a in answers}
        assert found == pytest.approx(expected, rel=1e-3)
        assert sum(found.values()) == pytest.approx(1, rel=1e-4)
        assert [a.probability for a in answers] == sorted(found.values(), reverse=True)


@pytest.mark.parametrize("rule", RULES)
def test_batched_answers_are_those_of_single_questions(rule):
    tree = make_tree(TRIPLES)
    alone = ConstrainedDecoder(CACHED["roformer"], TOKENIZER, tree, 2, rule, batch_size=1)
    together = ConstrainedDecoder(CACHED["roformer"], TOKENIZER, tree, 2, rule, batch_size=3)
    questions = QUESTIONS * 2 + ["丁"]
    one, two = alone.answer(questions, 2), together.answer(questions, 2)
    for a, b in zip(one, two):
        assert [(x.subject, x.predicate) for x in a] == [(x.subject, x.predicate) for x in b]
        assert [x.probability for x in a] == pytest.approx([x.probability for x in b], rel=1e-3)
    assert one[:4] != one[1:5] and together.model.traces <= 3


@settings(max_examples=8, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text("甲乙丙", min_size=1, max_size=3), st.text("子丑", min_size=1,
                max_size=3), st.just("一")), min_size=1, max_size=15),
       st.sampled_from(RULES), st.text("甲乙丙子丑？", min_size=1, max_size=6))
def test_any_small_tree_is_searched_completely(triples, rule, question):
    model = MODELS["bert"]
    decoder = ConstrainedDecoder(CACHED["bert"], TOKENIZER, make_tree(triples), 30, rule)
    found = {(a.subject, a.predicate): a.probability for a in decoder.answer([question], 30)[0]}
    expected = enumerate_keys(model, TOKENIZER.encode(question)[0], triples, rule)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_a_narrow_beam_keeps_what_it_finished():
    """The best of few hypotheses is never worse than what any of them could be kept for."""
    tree = make_tree(TRIPLES)
    for question in QUESTIONS:
        keys = enumerate_keys(MODELS["nezha"], TOKENIZER.encode(question)[0], TRIPLES, "none")
        best = 0.0
        for beam in (1, 2, 4, 20):
            decoder = ConstrainedDecoder(CACHED["nezha"], TOKENIZER, tree, beam, "none")
            answer, = decoder.answer([question])[0]
            assert answer.probability == pytest.approx(
                keys[answer.subject, answer.predicate], rel=1e-3)
            best = max(best, answer.probability)
        assert best == pytest.approx(max(keys.values()), rel=1e-3)


def test_changed_facts_and_overridden_answers_are_used_by_the_next_question():
    tree = make_tree([("甲", "子", "一")])
    decoder = ConstrainedDecoder(CACHED["bert"], TOKENIZER, tree, 9, "exact")
    assert len(decoder.answer(["甲？"], 9)[0]) == 1
    tree.add("乙（丙）", "子", "二")
    tree.add("甲", "丑", "三")
    assert {a.objects for a in decoder.answer(["甲？"], 9)[0]} == {("一",), ("二",), ("三",)}
    tree.delete("甲", "子")
    assert sum(a.probability for a in decoder.answer(["甲？"], 9)[0]) == pytest.approx(1, rel=1e-4)
    tree.override("谁？", "乙（丙）", "子")
    assert decoder.answer(["谁？"])[0][0].overridden


def test_subjects_of_unknown_characters_are_told_apart_by_the_question():
    tree = make_tree([("甲龘", "子", "一"), ("甲靐", "子", "二"), ("丙", "丑", "三")])
    decoder = ConstrainedDecoder(CACHED["bert"], TOKENIZER, tree, 9)
    for name, text in (("甲龘", "一"), ("甲靐", "二")):
        answers = decoder.answer([f"{name}的子？"], 9)[0]
        assert [a.objects for a in answers if a.predicate == "子"] == [(text,)]


def test_a_question_longer_than_the_model_and_wrong_arguments_are_refused():
    tree = make_tree(TRIPLES)
    decoder = ConstrainedDecoder(CACHED["bert"], TOKENIZER, tree, maxlen=40)
    assert decoder.answer(["甲" * 500])[0]
    other = Tokenizer({**TOKENIZER._token_dict, "午": 13}, do_lower_case=True)
    for arguments, what in (((MODELS["bert"], other, tree), "another tokenizer"),
                            ((MODELS["bert"], TOKENIZER, tree, 3, "best"), "unknown rule"),
                            ((MODELS["bert"], TOKENIZER, tree, 0), "beam_size")):
        with pytest.raises(InputError, match=what):
            ConstrainedDecoder(*arguments)
    encoder = build_transformer_model(None, None, "bert", vocab_size=9, hidden_size=8,
                                      num_hidden_layers=1, num_attention_heads=1,
                                      intermediate_size=8, hidden_act="gelu")
    with pytest.raises(InputError, match="no layer MLM-Dense"):
        CachedUniLM(encoder)

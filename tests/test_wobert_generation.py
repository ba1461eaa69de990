"""Titles from texts: pairs of all forms, bert4keras' beam search, the article's metrics."""

import json
from pathlib import Path

import numpy as np
import pytest

from bert_theseus.checkpoint import random_bert
from bert_theseus.clue.unilm import unilm_batches
from bert_theseus.errors import InputError
from bert_theseus.training import fit
from bert_theseus.wobert import CharTokenizer
from bert_theseus.wobert.generation import (Pair, Writer, build_generator, load_pairs, measure,
                                            pair_batches, score)
from bert_theseus.wobert.speed import speed_ups

VOCAB = "[PAD] [UNK] [CLS] [SEP] [MASK] 天 气 很 好 不 今 明".split()
PAIRS = [Pair("今天天气很好", "好天"), Pair("明天天气不好", "不好"), Pair("今天不好", "不")]


def write_rows(*rows):
    Path("csl").mkdir(exist_ok=True)
    Path("csl/train.json").write_text("\n".join(json.dumps(row) for row in rows))


@pytest.fixture
def generator():
    tokenizer = CharTokenizer({token: i for i, token in enumerate(VOCAB)}, do_lower_case=True)
    return build_generator(random_bert("b", VOCAB, 1, 32, heads=2), learning_rate=1e-2), tokenizer


def test_rows_of_csl_and_of_titles():
    write_rows({"abst": "甲" * 300, "keyword": ["乙", "丙"], "label": "1"},
               {"abst": "甲", "keyword": ["丁"], "label": "0"},
               {"content": "戊", "title": "己"})
    assert load_pairs(".", "csl") == [Pair("甲" * 256, "乙；丙"), Pair("戊", "己")]


@pytest.mark.parametrize("row", [{"abst": "甲"}, {"content": "甲", "title": ""},
                                 {"content": 3, "title": "乙"}])
def test_a_row_without_text_or_title_is_named(row):
    write_rows({"content": "甲", "title": "乙"}, row)
    with pytest.raises(InputError, match="no text and summary in the row, .*train.json:2"):
        load_pairs(".", "csl")


def test_the_model_learns_pairs_and_writes_them(generator):
    model, tokenizer = generator
    batches = pair_batches(PAIRS, tokenizer, batch_size=3)
    tokens, segments = batches.make(np.arange(3))[0]
    assert [tokenizer.decode(row[kind == 1]) for row, kind in zip(tokens, segments)] == [
        pair.summary for pair in PAIRS]
    before = measure(Writer(model, tokenizer, maxlen=6), PAIRS)["Rouge-1"]
    fit(model, batches, epochs=60, progress=False)
    writer = Writer(model, tokenizer, maxlen=6)
    assert before < 0.9 < measure(writer, PAIRS)["Rouge-1"]
    assert [writer.write(pair.content, beam_size=3) for pair in PAIRS] == [
        pair.summary for pair in PAIRS]


def test_greedy_writing_is_the_argmax_of_the_whole_sequence(generator):
    model, tokenizer = generator
    written = Writer(model, tokenizer, maxlen=5).write("今天很好")
    ids = tokenizer.encode("今天很好")[0]
    start = len(ids)
    for _ in range(5):
        tokens = np.array([ids])
        segments = (np.arange(len(ids)) >= start).astype(int)[None]
        ids = ids + [int(np.argmax(model.predict_on_batch([tokens, segments])[0, -1]))]
        if ids[-1] == tokenizer._token_end_id:
            break
    assert written == tokenizer.decode(ids[start:])


def test_an_empty_text_scores_nothing():
    assert score(["", "甲乙"], ["甲", "甲乙"])["Rouge-L"] == pytest.approx(0.5)
    assert score(["ABC"], ["abc"])["Rouge-2"] == pytest.approx(1)


def test_targets_are_the_answer_moved_by_one():
    (tokens, segments), targets = unilm_batches(
        [([2, 5, 3, 6, 7, 3], 3), ([2, 5, 6, 3, 8, 3], 4)], 2, seed=1).make(np.arange(2))
    assert targets.tolist() == [[0, 0, 6, 7, 3, 0], [0, 0, 0, 8, 3, 0]]
    assert segments.sum(1).tolist() == [3, 2]


def test_speed_ups_compare_the_same_texts():
    seen = []
    speed_ups(lambda texts: seen.append(("slow", texts)), lambda texts: seen.append(
        ("fast", texts)), ["甲乙丙"], count=2, lengths=(2,), rounds=2)
    assert [name for name, _ in seen] == ["slow", "fast"] * 3
    assert all(texts == ["甲乙", "甲乙"] for _, texts in seen)

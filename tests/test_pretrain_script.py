"""scripts/pretrain.py as a user starts it: from scratch, in words, bad input in one line."""

import json
from pathlib import Path

import pytest

from bert_theseus.checkpoint import load_bert, random_bert
from bert_theseus.wobert import __main__ as command
from bert_theseus.wobert import tokenizer_of

from running import refusal, run_script

VOCAB = "[PAD] [UNK] [CLS] [SEP] [MASK] 我 们 在 北 京 大 学 。 ，".split()


@pytest.fixture
def corpus():
    Path("corpus.txt").write_text("我们在北京大学。\n北京在我们大学，我们在。\n" * 60, encoding="utf-8")


def test_from_characters_to_words(corpus, monkeypatch):
    """A random model of characters goes on in words; the output is a model of words."""
    random_bert("chars", VOCAB, layers=1, hidden=8, heads=2, max_position=32)
    run_script(monkeypatch, "pretrain", "--corpus", "corpus.txt", "--bert_dir", "chars", "--unit",
               "word", "--num_words", 400, "--steps", 3, "--maxlen", 32, "--batch_size", 4,
               "--output_dir", "out")
    record = json.loads(Path("out/results.json").read_text())
    assert {row["metric"] for row in record["rows"]} >= {"tokens per second"}
    assert record["settings"]["steps"] == 3 and Path("out/curves.png").stat().st_size > 5000
    tokenizer = tokenizer_of("out/model")
    assert "我们" in tokenizer.tokenize("我们在北京")
    assert load_bert("out/model").vocab_size == len(VOCAB) + 400 == tokenizer._vocab_size


def test_several_seeds_are_refused(monkeypatch, capsys):
    line = refusal(monkeypatch, capsys, "pretrain", "--seed", 1, "--seed", 2)
    assert line.startswith("error: 2 seeds for one model")


def test_bad_corpus_is_one_line_and_status_2(monkeypatch, capsys):
    Path("gbk.txt").write_bytes("我们在北京大学".encode("gbk"))
    random_bert("chars", VOCAB, layers=1, hidden=8, heads=2, max_position=32)
    line = refusal(monkeypatch, capsys, "pretrain", "--corpus", "gbk.txt", "--bert_dir", "chars",
                   "--output_dir", "out")
    assert line.startswith("error: not UTF-8 (it reads as GBK), gbk.txt:1, convert it")


def test_convert_command_counts_before_and_after(corpus, capsys):
    random_bert("chars", VOCAB, layers=1, hidden=8, heads=2, max_position=32)
    command.main(["convert", "chars", "words", "--num_words", "0", "--extra_words", "北京大学",
                  "--corpus", "corpus.txt"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["chars", "14", "100.00", "0.000", "%"]
    assert lines[3].split() == ["words", "15", "85.00", "0.000", "%"]

"""Vocabulary surgery: which tokens, which rows, and what comes out as a folder."""

import json
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from bert4keras.models import build_transformer_model
from bert4keras.tokenizers import Tokenizer

from bert_theseus.checkpoint import random_bert
from bert_theseus.errors import InputError
from bert_theseus.wobert import (WordTokenizer, build_word_vocab, convert_checkpoint, coverage,
                                 frequent_vocab, ordinary_ids, read_vocab)
from bert_theseus.wobert.segmentation import jieba_frequencies
from bert_theseus.wobert.surgery import read_checkpoint, write_checkpoint

VOCAB = "[PAD] [unused1] [UNK] [CLS] [SEP] [MASK] 中 国 人 ##中 ##国 a ##b ##§ 。 ##。 量 子".split()
TABLES = ("bert/embeddings/word_embeddings", "cls/predictions/output_bias")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A random model of each kind, as published."""
    root = tmp_path_factory.mktemp("models")
    for model in ("bert", "nezha", "roformer"):
        random_bert(root / model, VOCAB, layers=1, hidden=8, heads=2, max_position=16, model=model)
    return root


@pytest.mark.parametrize("model", ["bert", "nezha", "roformer"])
def test_rows_are_kept_to_the_bit_or_means(folders, model):
    convert_checkpoint(folders / model, "words", num_words=3, extra_words=["量子人", "中国"])
    old, new = read_vocab(folders / model / "vocab.txt"), read_vocab("words/vocab.txt")
    before = read_checkpoint(folders / model / "bert_model.ckpt")
    after = read_checkpoint("words/bert_model.ckpt")
    assert list(new)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert {"##中", "##。", "##§", "[unused1]"}.isdisjoint(new) and {"a", "##b", "量子人"} <= set(new)
    for name in before:
        if name not in TABLES:
            np.testing.assert_array_equal(before[name], after[name])
    for name in TABLES:
        for token in set(old) & set(new):
            np.testing.assert_array_equal(after[name][new[token]], before[name][old[token]])
        mean = np.mean([before[name][old[c]] for c in "量子人"], axis=0)
        np.testing.assert_allclose(after[name][new["量子人"]], mean, atol=1e-6)
        assert len(after[name]) == len(new)


def test_the_folder_loads_and_computes_what_keep_and_compound_tokens_do(folders):
    """The article builds the same model with bert4keras' two arguments."""
    convert_checkpoint(folders / "bert", "words", num_words=2, extra_words=["量子人"])
    vocab = build_word_vocab(folders / "bert" / "vocab.txt", 2, ["量子人"])
    article = build_transformer_model(
        str(folders / "bert" / "bert_config.json"), str(folders / "bert" / "bert_model.ckpt"),
        with_mlm="linear", keep_tokens=vocab.keep_tokens, compound_tokens=vocab.compound_tokens)
    ours = build_transformer_model("words/bert_config.json", "words/bert_model.ckpt",
                                   with_mlm="linear")
    ids = np.arange(len(vocab.token_dict))[None, -12:].astype("float32")
    np.testing.assert_allclose(ours([ids, ids * 0]), article([ids, ids * 0]), atol=1e-5)
    assert WordTokenizer.load("words")._token_dict == vocab.token_dict


def test_words_come_by_frequency_and_without_what_is_known(folders):
    counts = jieba_frequencies()
    vocab = build_word_vocab(folders / "bert" / "vocab.txt", 50)
    words = list(vocab.token_dict)[-50:]
    frequencies = [counts[word] for word in words]
    assert frequencies == sorted(frequencies, reverse=True)
    left_out = [w for w, n in counts.items() if n > frequencies[-1] and w not in vocab.token_dict]
    assert left_out == []


def test_optimizer_states_fall_away(folders):
    values = read_checkpoint(folders / "bert" / "bert_model.ckpt")
    slot = "bert/embeddings/word_embeddings/adam_m"
    config = (folders / "bert" / "bert_config.json").read_text()
    write_folder("trained", config, {**values, slot: values[TABLES[0]], "global_step": np.int64(7)})
    convert_checkpoint("trained", "words", num_words=0)
    assert set(read_checkpoint("words/bert_model.ckpt")) == set(values)


def write_folder(name, config, values, vocab=VOCAB):
    from pathlib import Path
    Path(name).mkdir()
    Path(name, "bert_config.json").write_text(config)
    Path(name, "vocab.txt").write_text("".join(f"{token}\n" for token in vocab), encoding="utf-8")
    write_checkpoint(f"{name}/bert_model.ckpt", values)


def test_files_that_do_not_belong_together(folders):
    values = read_checkpoint(folders / "bert" / "bert_model.ckpt")
    config = json.loads((folders / "bert" / "bert_config.json").read_text())
    write_folder("config", json.dumps({**config, "vocab_size": 99}), values)
    with pytest.raises(InputError, match="vocab_size 99"):
        convert_checkpoint("config", "words", 0)
    short = {**values, TABLES[0]: values[TABLES[0]][:-1]}
    write_folder("table", json.dumps(config), short)
    with pytest.raises(InputError, match="17 rows"):
        convert_checkpoint("table", "words", 0)


def test_an_existing_folder_that_is_no_model_is_left_alone(folders, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="other files"):
        convert_checkpoint(folders / "bert", tmp_path / "mine", 0)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_coverage_counts(folders):
    convert_checkpoint(folders / "bert", "words", 0, ["中国人"])
    before, after = (coverage(folder, ["中国人 中", "猫"]) for folder in (folders / "bert", "words"))
    assert (before.tokens, before.unknown, before.characters) == (5, 1, 5)
    assert (after.tokens, after.tokens_per_100) == (3, 60.0)


def test_why_the_article_counts_one_token_more(real_data):
    """Google's vocabulary and 20,000 words are 33,585 tokens with today's Unicode tables. § was a
    symbol (So) until Unicode 6.1, as Python 2 has it, and so ``##§`` stayed: 33,586."""
    path = real_data / "vocab" / "vocab.txt"
    assert len(build_word_vocab(path, 20000).token_dict) == 33585
    then, now = unicodedata.ucd_3_2_0, unicodedata  # of §, 3.2 says what Python 2.7's 5.2 says

    def punctuation(token, tables):
        return {c for c in Tokenizer.stem(token) if tables.category(c).startswith("P")}

    changed = [t for t in read_vocab(path) if len(t) > 1 and punctuation(t, then) != punctuation(
        t, now)]
    assert changed == ["##§"]


def test_frequent_vocab_keeps_letters_and_the_commonest():
    vocab = {t: i for i, t in enumerate("[PAD] [UNK] [CLS] [SEP] [MASK] a ##a 1 中 国 人".split())}
    small = frequent_vocab(vocab, ["国国人", "国人中"], size=10)
    assert list(small) == "[PAD] [UNK] [CLS] [SEP] [MASK] a ##a 1 国 人".split()
    assert ordinary_ids(small) == [5, 6, 7, 8, 9]
    with pytest.raises(InputError, match="at least 8"):
        frequent_vocab(vocab, ["国"], size=6)


def test_checkpoints_round_trip():
    values = {"a/b": np.arange(6, dtype="float32").reshape(2, 3), "c": np.float32(1.5)}
    write_checkpoint("some.ckpt", values)
    back = read_checkpoint("some.ckpt")
    assert back.keys() == values.keys()
    for name in values:
        np.testing.assert_array_equal(back[name], values[name])
    assert tf.train.load_variable("some.ckpt", "c") == 1.5

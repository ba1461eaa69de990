"""Word and character tokenizers: the ids of bert4keras, for every text."""

import gzip
import json
import logging
import random
import subprocess
import sys

import jieba
import pytest
from bert4keras.tokenizers import Tokenizer, load_vocab
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bert_theseus.errors import InputError
from bert_theseus.wobert import (CharTokenizer, Segmenter, WordTokenizer, read_user_dict,
                                 read_vocab)
from bert_theseus.wobert.tokenizer import END, JOINED, tokenizer_of

jieba.setLogLevel(logging.WARNING)
SPECIAL = "[PAD] [UNK] [CLS] [SEP] [MASK]".split()
WORDS = "科学 空间 我们 北京 大学 自然 语言 处理 语言处理 今天 天气 iphone gpu world".split()
CHARS = "科学空间我们在北京大自然语言处理今天气很好，。！“”…—·%$#[]abc0123αβσςé"
PIECES = "ip ##hone hel ##lo wor ##ld ##a ##b ##c ##0 ##1 ##σ ##ς て ##か 〇".split()
VOCAB = {token: i for i, token in enumerate(dict.fromkeys([*SPECIAL, *CHARS, *WORDS, *PIECES]))}

word_reference = Tokenizer(VOCAB, do_lower_case=True,
                           pre_tokenize=lambda s: jieba.lcut(s, HMM=False))
char_reference = Tokenizer(VOCAB, do_lower_case=True)
word_tokenizer = WordTokenizer(VOCAB)
char_tokenizer = CharTokenizer(VOCAB, do_lower_case=True)

CHINESE = st.text(st.sampled_from(CHARS + "ABCΣÉ １Ａ\t\n\r\u0301\u3000的了和"), max_size=40)
ANY = st.text(max_size=30)  # all of Unicode
MIXED = st.lists(st.sampled_from([*WORDS, "GPU", "iPhone", "hello", " ", "\r\n", "3.14", "ΟΔΟΣ",
                                  "e\u0301", "\u302e", "豈", "Ⅷ", "😀"]), max_size=12).map("".join)
TEXTS = CHINESE | ANY | MIXED


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.none() | TEXTS, st.none() | st.integers(3, 20),
       st.sampled_from(["right", "left", -2, 1]), st.sampled_from(["S*E*E", "S*ES*E"]))
@example("ΑΣ ΣΑΣ", None, None, "right", "S*E*E")
@example("\r", "\n", 5, "right", "S*E*E")
@example("\U0001d165\u302e\u0301", None, None, "right", "S*E*E")
def test_ids_are_those_of_bert4keras(text, second, maxlen, truncate_from, pattern):
    arguments = (text, second, maxlen, pattern, truncate_from)
    for ours, reference in ((word_tokenizer, word_reference), (char_tokenizer, char_reference)):
        assert ours.encode(*arguments) == reference.encode(*arguments)
        assert ours.tokenize(text) == reference.tokenize(text)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.none() | st.integers(2, 12))
@example(["a\r", "\nb", ""], None)
def test_a_batch_is_its_texts(texts, maxlen):
    for tokenizer in (word_tokenizer, char_tokenizer):
        expected = [tokenizer.encode(text, maxlen=maxlen)[0] for text in texts]
        assert tokenizer.encode_batch(texts, maxlen) == expected


def test_pairs_in_a_batch():
    firsts, seconds = ["我们在北京", "今天"], ["天气很好", "语言处理"]
    assert word_tokenizer.encode_batch(firsts, 8, second_texts=seconds) == [
        word_reference.encode(a, b, maxlen=8) for a, b in zip(firsts, seconds)]


def test_processes_give_the_same_ids_in_order():
    draw = random.Random(1)
    texts = ["".join(draw.choices([*WORDS, *CHARS], k=5)) for _ in range(4100)]
    assert word_tokenizer.encode_batch(texts, 9, processes=2) == word_tokenizer.encode_batch(
        texts, 9, processes=1)
    pairs = word_tokenizer.encode_batch(texts, 9, second_texts=texts[::-1], processes=2)
    assert pairs[4000] == word_tokenizer.encode(texts[4000], texts[99], maxlen=9)


def test_an_error_in_a_process_reaches_the_caller():
    with pytest.raises(TypeError):
        char_tokenizer.encode_batch(["我"] * 4000 + [None], processes=2)


@settings(max_examples=200, deadline=None)
@given(CHINESE | MIXED)
@example("İstanbul在北京")
def test_rematch_fits_the_original_text(text):
    for tokenizer in (word_tokenizer, char_tokenizer):
        tokens = tokenizer.tokenize(text)
        positions = tokenizer.rematch(text, tokens)
        assert len(positions) == len(tokens) and positions[0] == positions[-1] == []
        flat = [i for part in positions for i in part]
        assert flat == sorted(flat)
        for token, part in zip(tokens[1:-1], positions[1:-1]):
            piece = text[part[0]:part[-1] + 1] if part else ""
            stem = tokenizer.stem(token)
            if not Tokenizer._is_special(token) and "Σ" not in piece:
                assert tokenizer._normal_form(piece)[0].startswith(stem[:1]) or stem in (
                    tokenizer._normal_form(piece)[0])


def test_rematch_where_lower_case_changes_the_length():
    tokens = char_tokenizer.tokenize("İ北京")
    assert char_tokenizer.rematch("İ北京", tokens)[-3:] == [[1], [2], []]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*WORDS, "，", "。", "hello", "3", "在", "%"]), max_size=12))
@example(["我们", "3", "我们", "。", "3", "%", "iphone", "北京"])
def test_decode_invents_no_space(parts):
    latin = [part.isascii() and part.isalnum() for part in parts]
    text = "".join("在" + part if k and latin[k - 1] and latin[k] else part
                   for k, part in enumerate(parts))
    decoded = word_tokenizer.decode(word_tokenizer.encode(text)[0])
    assert " " not in decoded
    assert word_tokenizer.encode(decoded) == word_tokenizer.encode(text)


def test_decode_keeps_latin_words_apart():
    ids = word_tokenizer.encode("hello world，gpu 3")[0]
    assert word_tokenizer.decode(ids) == "hello world，gpu 3"


def test_own_words_cut_and_are_tokens():
    vocab = {**VOCAB, "语言处理系统": len(VOCAB), "bert模型": len(VOCAB) + 1}
    assert "语言处理系统" not in WordTokenizer(vocab).tokenize("自然语言处理系统")
    tokenizer = WordTokenizer(vocab, words=["语言处理系统", "BERT模型"])
    assert tokenizer.tokenize("自然语言处理系统")[1:-1] == ["自然", "语言处理系统"]
    assert "bert模型" in tokenizer.tokenize("用BERT模型")


def test_both_engines_cut_alike_with_own_words():
    draw = random.Random(3)
    known = list(jieba.dt.FREQ) if jieba.dt.initialized else ["中国", "看的", "光路", "地理", "商品"]
    own = {word: None for word in draw.sample(known, 5)} | {"看的": None, "广州市民": 7, "量子云": None}
    rust, python = Segmenter(own, "rjieba"), Segmenter(own, "jieba")
    assert rust.words == python.words
    for _ in range(400):
        text = "".join(draw.choices([*own, *known[:2000], "abc", "，"], k=8))
        assert rust(text) == python(text)


def test_char_fallback():
    rare = WordTokenizer(VOCAB, min_frequency=float("inf"), words=["今天"])
    assert rare.tokenize("我们今天")[1:-1] == ["我", "们", "今天"]
    some = WordTokenizer(VOCAB, min_frequency=20000)
    assert some.tokenize("我们语言")[1:-1] == ["我们", "语", "言"]  # 我们 is frequent enough
    assert some.ids("我们语言") == some.tokens_to_ids(["我们", "语", "言"])


def test_saved_and_loaded_in_another_process(tmp_path):
    tokenizer = WordTokenizer({**VOCAB, "量子云": len(VOCAB)}, words={"量子云": None},
                              min_frequency=3)
    tokenizer.save("model")
    program = ("import json\nfrom bert_theseus.wobert import tokenizer_of\n"
               "print(json.dumps(tokenizer_of('model').encode('我们在量子云')[0]))")
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert json.loads(run.stdout.splitlines()[-1]) == tokenizer.encode("我们在量子云")[0]
    assert VOCAB.keys() <= tokenizer_of("model")._token_dict.keys()


@pytest.mark.parametrize("spoil", ["vocabulary", "words", "file"])
def test_a_fingerprint_that_does_not_fit_is_an_error(spoil):
    WordTokenizer(VOCAB, words=["量子云"]).save("model")
    if spoil == "vocabulary":
        with open("model/vocab.txt", "a", encoding="utf-8") as file:
            file.write("新词\n")
    else:
        with open("model/word_tokenizer.json", encoding="utf-8") as file:
            text = file.read()
        with open("model/word_tokenizer.json", "w", encoding="utf-8") as file:
            file.write(text.replace("量子云", "量子雾") if spoil == "words" else "{}")
    with pytest.raises(InputError):
        WordTokenizer.load("model")


def test_jieba_takes_over_with_the_same_ids(monkeypatch):
    monkeypatch.setitem(sys.modules, "rjieba", None)  # as if it were not installed
    tokenizer = WordTokenizer(VOCAB)
    assert tokenizer.segmenter.engine == "jieba"
    assert tokenizer.encode("自然语言处理 GPU") == word_tokenizer.encode("自然语言处理 GPU")
    with pytest.raises(InputError, match="rjieba is not installed"):
        Segmenter(engine="rjieba")


def test_user_dictionary_file():
    with open("own.txt", "w", encoding="utf-8") as file:
        file.write("云计算 5\n石墨烯\n创新办 3 i\n")
    assert read_user_dict("own.txt") == {"云计算": 5, "石墨烯": None, "创新办": 3}
    with open("gbk.txt", "wb") as file:
        file.write("自然语言处理\n".encode("gbk"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_user_dict("gbk.txt")
    with open("zero.txt", "w", encoding="utf-8") as file:
        file.write("石墨烯 0\n")
    with pytest.raises(InputError, match="zero.txt:1"):
        read_user_dict("zero.txt")


def test_ids_on_real_text(real_data):
    vocab = load_vocab(str(real_data / "vocab" / "vocab.txt"))
    vocab |= {word: len(vocab) + i for i, word in enumerate(WORDS) if word not in vocab}
    for folder, name, field in (("tnews", "train.json.gz", "sentence"),
                                ("iflytek", "dev.json.gz", "sentence")):
        with gzip.open(real_data / folder / name, "rt", encoding="utf-8") as file:
            texts = [json.loads(line)[field][:300] for line in file][::200]
        word = Tokenizer(vocab, do_lower_case=True, pre_tokenize=word_reference._pre_tokenize)
        char = Tokenizer(vocab, do_lower_case=True)
        assert WordTokenizer(vocab).encode_batch(texts) == [word.encode(t)[0] for t in texts]
        assert CharTokenizer(vocab, True).encode_batch(texts) == [char.encode(t)[0] for t in texts]


def test_batches_longer_than_one_cut():
    texts = ["我们" * (i % 3) for i in range(2 * JOINED + 5)]
    rows = word_tokenizer.encode_batch(texts)
    assert rows == [word_reference.encode(text)[0] for text in texts]
    assert END not in {i for row in rows for i in row}


def test_bad_vocabularies_are_named():
    cases = {"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n中\n中\n": "bad.txt:7",
             "[PAD]\n中\n": "lacks"}
    for content, message in cases.items():
        with open("bad.txt", "w", encoding="utf-8") as file:
            file.write(content)
        with pytest.raises(InputError, match=message):
            read_vocab("bad.txt")

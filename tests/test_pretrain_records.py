"""Pre-training, from text to shards: files, pieces, records, each against a plain reference."""

import gzip
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_theseus.errors import InputError
from bert_theseus.wobert import (
    CharTokenizer, Packing, Segmenter, batches, corpus_files, documents, records_of,
    task_texts, write_records)
from bert_theseus.wobert.corpus import held_out, pieces
from bert_theseus.wobert.records import unseen_batches

from pretraining_texts import TOKENS, texts, tokenizer


# text

def test_layouts_and_compression():
    Path("line.txt").write_text("一\n\n \n", encoding="utf-8")
    Path("more").mkdir()
    with gzip.open("more/blank.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\ufeff一\n二\n\n三\n")
    files = corpus_files(["line.txt", "more"])
    assert [list(documents(path)) for path in files] == [["一"], ["一\n二", "三"]]
    assert list(documents("more/blank.txt.gz", "line")) == ["一", "二", "三"]


@pytest.mark.parametrize("content, message", [
    (b"\x89PNG\0\0", "binary"), (b" \n\n", "no text"),
    ("好\n今天天气很好".encode("gbk"), "GBK"), ("好\n".encode() + b"\xff\xfe\xfd", ":2, give plain")])
def test_bad_corpus_files_are_named(content, message):
    Path("bad.txt").write_bytes(content)
    with pytest.raises(InputError, match=f"bad.txt.*{message}|{message}.*bad.txt"):
        list(documents("bad.txt"))
    with pytest.raises(InputError, match="no such corpus"):
        corpus_files(["nowhere"])


def test_a_damaged_gzip_file_is_named():
    Path("cut.txt.gz").write_bytes(gzip.compress("今天天气很好\n".encode() * 99)[:-9])
    with pytest.raises(InputError, match="gzip.*cut.txt.gz"):
        list(documents("cut.txt.gz"))


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("今天气。！？\n，”ab "), max_size=80), st.integers(2, 12))
def test_pieces_lose_nothing_and_keep_the_bounds(text, limit):
    cut = list(pieces(text, len, limit, max_chars=limit + 3))
    assert "".join("".join(cut).split()) == "".join(text.split())
    assert all(len(piece) <= limit for piece in cut)


def test_task_texts_leave_out_what_is_measured_on():
    Path("tnews").mkdir()
    rows = {"train": ["今 天", "北京", "北京", "大学"], "dev": ["今天"], "test": ["大 学"]}
    for name, sentences in rows.items():
        Path(f"tnews/{name}.json").write_text(
            "".join(json.dumps({"sentence": s, "label": "1"}) + "\n" for s in sentences))
    assert list(task_texts(".")) == ["北京"]


# records

def test_records_hold_every_token_once(tmp_path):
    packing = Packing(maxlen=16, shards=3, unseen_one_in=4)
    index = write_records(tmp_path, texts(), tokenizer, packing)
    rows = [row for batch in unseen_batches(tmp_path, 7, 16) for row in batch.numpy()]
    rows += [row for batch in islice(batches(tmp_path, 1, 16, seed=1),
                                     index["train"]["sequences"]) for row in batch.numpy()]
    counts = np.bincount(np.concatenate(rows), minlength=len(TOKENS))
    expected = np.bincount([i for text in texts() for i in tokenizer.ids(text)],
                           minlength=len(TOKENS))
    np.testing.assert_array_equal(counts[5:], expected[5:])
    assert counts[2] == len(rows) == sum(index[s]["sequences"] for s in ("train", "unseen"))
    assert index["unseen"]["documents"] == sum(held_out(text, 4) for text in texts())


def test_order_is_a_function_of_seed_and_position(tmp_path):
    write_records(tmp_path, texts(), tokenizer, Packing(maxlen=16, shards=2, unseen_one_in=0))

    def some(seed, start, count):
        return [b.numpy().tolist() for b in islice(batches(tmp_path, 4, 16, seed, start), count)]

    whole = some(1, 0, 30)
    assert some(1, 17, 13) == whole[17:]
    assert some(2, 0, 3) != whole[:3]
    per_epoch = json.loads((tmp_path / "index.json").read_text())["train"]["sequences"] // 4
    assert whole[:per_epoch] != whole[per_epoch:2 * per_epoch]  # another order in each epoch


def test_an_epoch_does_not_walk_through_the_corpus(tmp_path, monkeypatch):
    """Mean source position of 30 neighbours, over an epoch: as scattered as in a random order.

    Position n of the corpus is a row of the digits of n; 15 buffers of rows, as 150,000 real ones.
    """
    digits = CharTokenizer({t: i for i, t in enumerate([*TOKENS[:5], *"0123456789"])}, True)
    monkeypatch.setattr("bert_theseus.wobert.records.BUFFER", 200)

    def scatter(shards):
        write_records(tmp_path, (" ".join(f"{n:04d}") for n in range(3000)), digits,
                      Packing(maxlen=6, unseen_one_in=0, join=False, **shards))
        rows = np.stack([next_batch.numpy() for next_batch in islice(
            batches(tmp_path, 30, 6, seed=1), 100)])  # [100, 30, 6]
        places = (rows[:, :, 1:5] - 5) @ [1000, 100, 10, 1]
        assert sorted(places.ravel()) == list(range(3000))
        return places.mean(1).std() / (places.std() / 30 ** 0.5)

    assert scatter({}) < 1.35 and scatter({"shards": 8}) > 1.6


def test_records_of_eight_shards_are_used_as_they_are(tmp_path):
    old = write_records(tmp_path, texts(), tokenizer, Packing(maxlen=16, shards=8))
    again = records_of(tmp_path, texts, tokenizer, Packing(maxlen=16))
    assert again == old and len(list(tmp_path.glob("train-*-of-008.tfrecord"))) == 8
    records_of(tmp_path, texts, tokenizer, Packing(maxlen=12))
    assert len(list(tmp_path.glob("train-*.tfrecord"))) == 64


def test_words_are_marked_for_whole_word_masking(tmp_path):
    write_records(tmp_path, ["我们在北京大学。"] * 4, tokenizer,
                  Packing(maxlen=16, unseen_one_in=0, join=False), words=Segmenter())
    row = next(batches(tmp_path, 1, 16, 0)).numpy()[0]
    assert [TOKENS[abs(i)] + "-" * int(i < 0) for i in row[:10]] == [
        "[CLS]", "我", "们-", "在", "北", "京-", "大-", "学-", "。", "[SEP]"]


def test_a_corpus_larger_than_memory(tmp_path):
    """30 MB of text within 20 MB above what the imports take."""
    program = """if True:
        import resource, sys
        from bert_theseus.wobert import CharTokenizer, Packing, documents, write_records
        vocab = {t: i for i, t in enumerate("[PAD] [UNK] [CLS] [SEP] [MASK] 一 二 。".split())}
        def used(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        before = used()
        write_records("records", documents("big.txt"), CharTokenizer(vocab, True), Packing())
        print(used() - before)"""
    line = "一二。" * 2000 + "\n"
    with open("big.txt", "w", encoding="utf-8") as file:
        for _ in range(1_700):
            file.write(line)
    assert Path("big.txt").stat().st_size > 30e6
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(run.stdout.split()[-1]) < 20, run.stderr

"""CLUE tasks: what is read, what is refused, what a batch holds, what a score means."""

import gzip
import json

import numpy as np
import pytest
from bert4keras.tokenizers import Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_theseus.backend import keras
from bert_theseus.clue import (TASKS, BagOfWords, Batches, Example, NumpyBatches, decode_tags,
                               encode_tags, entities_of, entity_f1, evaluate, get_task, predict,
                               predict_outputs, read_rows, write_predictions)
from bert_theseus.errors import InputError

CHARACTERS = "[PAD] [UNK] [CLS] [SEP] [MASK] 股 市 大 涨 叶 老 桂 在 北 京 ， 。 a ##b".split()


@pytest.fixture
def tokenizer():
    return Tokenizer({token: i for i, token in enumerate(CHARACTERS)}, do_lower_case=True)


def write(folder, name, rows, encoding="utf-8"):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" if isinstance(row, dict) else row
                   for row in rows)
    opened = gzip.open if name.endswith(".gz") else open
    with opened(folder / name, "wb") as file:
        file.write(text.encode(encoding))
    return folder / name


def news(text="股市大涨", label="104"):
    return {"label": label, "label_desc": "", "sentence": text, "keywords": ""}


# what is read

def test_gzip_and_plain_files_and_separators_inside_texts(tmp_path):
    rows = [news("一\u2028二\u0085三"), news("四\u2029", 116)]
    write(tmp_path / "tnews", "train.json", rows)
    write(tmp_path / "tnews_public", "train.json.gz", rows)
    task = TASKS["tnews"]
    plain = task.load(tmp_path, "train")
    assert [e.text for e in plain] == ["一\u2028二\u0085三", "四\u2029"]
    assert [e.label for e in plain] == ["104", "116"]
    (tmp_path / "tnews" / "train.json").unlink()
    (tmp_path / "tnews").rmdir()
    assert task.load(tmp_path, "train") == plain


def test_left_out_labels_are_counted(tmp_path, caplog):
    pair = {"sentence1": "股市", "sentence2": "大涨"}
    write(tmp_path / "ocnli", "dev.json", [{**pair, "label": label} for label in
                                           ("-", "neutral", "-", "entailment")])
    with caplog.at_level("INFO"):
        examples = get_task("ocnli").load(tmp_path, "dev")
    assert [e.label for e in examples] == ["neutral", "entailment"]
    assert "2 rows with label '-' left out" in caplog.text


def test_unlabelled_test_file_and_ids(tmp_path):
    write(tmp_path / "afqmc", "test.json", [{"id": 7, "sentence1": "股", "sentence2": "市"}])
    example, = get_task("afqmc").load(tmp_path, "test")
    assert example.label is None and example.id == 7 and example.text2 == "市"


def test_cluewsc_marks_both_spans_whatever_their_order(tmp_path):
    def row(first, second):
        return {"text": "大老在北京", "label": True, "target": {
            "span1_text": first[1], "span1_index": first[0],
            "span2_text": second[1], "span2_index": second[0]}}
    write(tmp_path / "cluewsc", "train.json", [row((0, "大老"), (3, "北京")),
                                               row((3, "北京"), (0, "大"))])
    examples = get_task("cluewsc").load(tmp_path)
    assert [e.text for e in examples] == ["_大老_在[北京]", "[大]老在_北京_"]
    assert examples[0].label == "true"
    write(tmp_path / "cluewsc", "train.json", [row((1, "大老"), (3, "北京"))])
    with pytest.raises(InputError, match="'大老' does not stand at 1.*train.json:1"):
        get_task("cluewsc").load(tmp_path)


def test_csl_joins_keywords(tmp_path):
    write(tmp_path / "csl", "train.json", [{"id": 0, "abst": "股市", "keyword": ["大", "涨"],
                                            "label": "1"}])
    example, = get_task("csl").load(tmp_path)
    assert (example.text, example.text2) == ("股市", "大；涨")


def test_own_data_is_a_task(tmp_path):
    write(tmp_path / "mine", "train.json", [{"sentence": "股市", "label": "up"}])
    write(tmp_path / "mine", "labels.json", [{"label": "up"}, {"label": "down"}])
    task = get_task("mine", tmp_path)
    assert (task.kind, task.labels, task.num_outputs) == ("single", ("up", "down"), 2)
    assert task.load(tmp_path)[0].label == "up"
    write(tmp_path / "mine", "labels.json", [{"label": "up"}, {"label": "up"}])
    with pytest.raises(InputError, match="'up' for the second time.*labels.json:2"):
        get_task("mine", tmp_path)


def test_real_files_are_read_whole(real_data):
    counts = {name: len(get_task(name, real_data).load(real_data, split)) for name, split in
              [("tnews", "few_train"), ("iflytek", "test"), ("afqmc", "dev"), ("ocnli", "dev"),
               ("csl", "dev"), ("cluewsc", "train"), ("cluener", "dev"), ("cmnli", "dev")]}
    assert counts == {"tnews": 1185, "iflytek": 1222, "afqmc": 1510, "ocnli": 430, "csl": 160,
                      "cluewsc": 1244, "cluener": 470, "cmnli": 8569}
    assert get_task("tnews", real_data).labels == get_task("tnews").labels
    assert get_task("iflytek", real_data).labels == get_task("iflytek").labels


# what is refused

@pytest.mark.parametrize("rows, message", [
    ([news(), '{"sentence": "股\n'], "broken JSON.*:2"),
    ([news(), "[1, 2]\n"], "a JSON list where an object is wanted.*:2"),
    ([news(), {"label": "104"}], "no field 'sentence'.*:2.*the row has label"),
    ([news(), {"sentence": "股"}], "no field 'label'.*:2"),
    ([news(), "\n", news(label="105")], "unknown label '105'.*:3.*100, 101"),
    ([news(" \t")], "field 'sentence' is empty.*:1"),
    ([news(3)], "field 'sentence' is not a text.*:1"),
    ([], "no usable row"),
])
def test_faulty_rows_name_file_and_line(tmp_path, rows, message):
    path = write(tmp_path / "tnews", "train.json", rows)
    with pytest.raises(InputError, match=message) as caught:
        get_task("tnews").load(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_tolerant_reading_leaves_faulty_rows_out_and_says_so(tmp_path, caplog):
    write(tmp_path / "tnews", "train.json", [news(), news(label="x"), news(""), news("大涨")])
    examples = get_task("tnews").load(tmp_path, tolerant=True)
    assert [e.text for e in examples] == ["股市大涨", "大涨"]
    assert "2 faulty rows left out" in caplog.text and "train.json:2" in caplog.text


@pytest.mark.parametrize("encoding, hint", [("gb18030", "it looks like GBK"), ("utf-16", "UTF-16")])
def test_wrong_encoding(tmp_path, encoding, hint):
    path = write(tmp_path, "dev.json", [news()], encoding)
    with pytest.raises(InputError, match=f"not UTF-8.*{hint}.*dev.json:1"):
        list(read_rows(path))


def test_byte_order_mark_and_windows_line_ends_are_harmless(tmp_path):
    (tmp_path / "dev.json").write_bytes('\ufeff{"a": 1}\r\n{"a": 2}\r\n'.encode())
    assert [row["a"] for _, row in read_rows(tmp_path / "dev.json")] == [1, 2]


def test_damaged_gzip_files(tmp_path):
    whole = gzip.compress(b"".join(json.dumps(news(str(i) * 50)).encode() + b"\n"
                                   for i in range(500)))
    (tmp_path / "a.json.gz").write_bytes(whole[:-200])
    with pytest.raises(InputError, match="ends too early.*a.json.gz:\\d+"):
        list(read_rows(tmp_path / "a.json.gz"))
    (tmp_path / "a.json.gz").write_bytes(b'{"a": 1}\n')
    with pytest.raises(InputError, match="damaged gzip"):
        list(read_rows(tmp_path / "a.json.gz"))


def test_missing_folder_file_and_task(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        get_task("tnews").load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no folder tnews or tnews_public.*there is nothing"):
        get_task("tnews").load(tmp_path)
    write(tmp_path / "tnews", "dev.json", [news()])
    with pytest.raises(InputError, match="no file train.json or train.json.gz.*there is dev.json"):
        get_task("tnews").load(tmp_path)
    with pytest.raises(InputError, match="unknown task 'tnew'.*tnews, iflytek, afqmc"):
        get_task("tnew")


@pytest.mark.parametrize("label, message", [
    ({"name": {"老桂": [[0, 1]]}}, "'老桂' does not stand at"),
    ({"name": {"桂": [[2, 5]]}}, "'桂' does not stand at"),
    ({"person": {"叶": [[0, 0]]}}, "unknown entity type 'person'"),
    ({"name": ["叶"]}, "'label' is not"),
    ("name", "'label' is not"),
])
def test_faulty_entities(tmp_path, label, message):
    write(tmp_path / "cluener", "train.json", [{"text": "叶老桂", "label": label}])
    with pytest.raises(InputError, match=message + ".*train.json:1"):
        get_task("cluener").load(tmp_path)


# batches

def make_examples(tmp_path, sizes=range(1, 41)):
    rows = [news(("股市大涨" * 20)[:n], str(100 + n % 5)) for n in sizes]
    write(tmp_path / "tnews", "train.json", rows)
    return get_task("tnews").load(tmp_path)


def test_a_batch_is_what_the_tokenizer_gives(tmp_path, tokenizer):
    examples = make_examples(tmp_path)
    batches = Batches(get_task("tnews"), examples, tokenizer, maxlen=16, batch_size=8)
    seen = []
    for rows, ((tokens, segments), labels) in zip(batches.plan(3), batches.epoch(3), strict=True):
        assert tokens.dtype == segments.dtype == labels.dtype == np.int32
        expected = [tokenizer.encode(examples[row].text, maxlen=16)[0] for row in rows]
        assert tokens.shape[1] == max(map(len, expected))
        for line, ids in zip(tokens, expected):
            assert line[:len(ids)].tolist() == ids and not line[len(ids):].any()
        assert [TASKS["tnews"].labels[i] for i in labels] == [examples[r].label for r in rows]
        assert not segments.any()
        seen += rows.tolist()
    assert sorted(seen) == list(range(40)) and len(batches) == 5


def test_pairs_have_segments_and_lose_the_longer_text_first(tmp_path, tokenizer):
    write(tmp_path / "afqmc", "train.json", [{"sentence1": "股市" * 9, "sentence2": "大涨",
                                              "label": "0"}])
    batches = Batches(get_task("afqmc"), get_task("afqmc").load(tmp_path), tokenizer, maxlen=10)
    ((tokens, segments), _), = batches.epoch(0)
    assert [CHARACTERS[i] for i in tokens[0]] == (
        ["[CLS]", "股", "市", "股", "市", "股", "[SEP]", "大", "涨", "[SEP]"])
    assert segments[0].tolist() == [0] * 7 + [1] * 3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 5), st.integers(0, 2 ** 31),
       st.randoms(use_true_random=False))
def test_every_row_once_reproducible_and_resumable(size, batch_size, epoch, seed, random):
    lengths = [random.randint(1, 50) for _ in range(size)]

    def make():
        return NumpyBatches(size, batch_size, lambda rows: (rows,), True, seed, lengths)

    whole = [rows.tolist() for rows, in make().epoch(epoch)]
    assert sorted(sum(whole, [])) == list(range(size)) and len(whole) == len(make())
    start = random.randint(0, len(whole))
    assert [rows.tolist() for rows, in make().epoch(epoch, start)] == whole[start:]


def test_buckets_save_padding_and_epochs_differ():
    lengths = np.random.default_rng(0).integers(5, 60, 2000)
    batches = NumpyBatches(2000, 16, lambda rows: (rows,), True, 1, lengths)
    padding = [sum(len(rows) * lengths[rows].max() for rows in plan) / lengths.sum()
               for plan in (batches.plan(0), batches._cut(np.arange(2000)))]
    assert padding[0] < 1.05 and padding[1] > 1.5
    orders = [np.concatenate(batches.plan(epoch)).tolist() for epoch in (0, 1)]
    other = np.concatenate(NumpyBatches(2000, 16, None, True, 2, lengths).plan(0)).tolist()
    assert orders[0] != orders[1] and orders[0] != other
    means = np.array([lengths[rows].mean() for rows in batches.plan(0)])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_tokenised_once_and_together_where_the_tokenizer_can(tmp_path, tokenizer):
    class Together(Tokenizer):
        calls = 0

        def encode_batch(self, texts, maxlen=None):
            self.calls += 1
            return [self.encode(text, maxlen=maxlen)[0] for text in texts]

    examples, together = make_examples(tmp_path), Together(tokenizer._token_dict)
    fast = Batches(get_task("tnews"), examples, together, 16, 8)
    plain = Batches(get_task("tnews"), examples, tokenizer, 16, 8)
    for a, b in zip(list(fast.epoch(0)) + list(fast.epoch(1)),
                    list(plain.epoch(0)) + list(plain.epoch(1)), strict=True):
        np.testing.assert_array_equal(a[0][0], b[0][0])
    assert together.calls == 1 and fast.fingerprint() == plain.fingerprint()
    fewer = Batches(get_task("tnews"), examples[:-1], tokenizer, 16, 8)
    assert fewer.fingerprint()["data"] != plain.fingerprint()["data"]


def test_tf_dataset_holds_the_same_batches(tmp_path, tokenizer):
    batches = Batches(get_task("tnews"), make_examples(tmp_path), tokenizer, 16, 8)
    expected = [batch for epoch in (0, 1) for batch in batches.epoch(epoch)]
    for (inputs, labels), (x, y) in zip(batches.tf_dataset(2), expected, strict=True):
        np.testing.assert_array_equal(inputs[0], x[0])
        np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize("change, message", [
    (dict(examples=[]), "no example"), (dict(maxlen=4), "maxlen 4"),
    (dict(batch_size=0), "batch size 0")])
def test_batches_refuse(tmp_path, tokenizer, change, message):
    arguments = dict(task=get_task("tnews"), examples=make_examples(tmp_path), tokenizer=tokenizer)
    with pytest.raises(InputError, match=message):
        Batches(**{**arguments, **change})


# tagging

TAGS = get_task("cluener").tags


def spans_of(length):
    """Non-overlapping spans of a text of that length."""
    cuts = st.lists(st.integers(0, length), unique=True, min_size=2, max_size=8).map(sorted)
    kinds = st.sampled_from(get_task("cluener").labels)
    return cuts.flatmap(lambda c: st.lists(kinds, min_size=len(c) // 2, max_size=len(c) // 2).map(
        lambda ks: sorted((k, a, b - 1) for k, a, b in zip(ks, c[::2], c[1::2]))))


@settings(max_examples=60, deadline=None)
@given(spans_of(12))
def test_tags_and_spans_are_inverse(spans):
    mapping = [[], *([i] for i in range(12)), []]
    assert sorted(decode_tags(encode_tags(spans, mapping, TAGS), mapping, TAGS)) == spans


def test_stray_inside_tag_begins_an_entity_and_overlaps_keep_the_longer():
    mapping = [[0], [1], [2]]
    tags = ("O", "B-a", "I-a", "B-b", "I-b")
    assert decode_tags([2, 4, 4], mapping, tags) == [("a", 0, 0), ("b", 1, 2)]
    assert encode_tags([("a", 0, 0), ("b", 0, 2)], mapping, tags) == [3, 4, 4]


def test_entity_f1_counts_type_and_position():
    true = [[("name", 0, 1), ("book", 3, 4)], [("name", 0, 0)]]
    score = entity_f1([[("name", 0, 1), ("game", 3, 4)], []], true)
    assert score["precision"] == 1 / 2 and score["recall"] == 1 / 3
    assert score["entity F1"] == pytest.approx(0.4)
    assert entity_f1(true, true)["entity F1"] == 1 and entity_f1([[]], [[]])["entity F1"] == 0


def tagging_batches(tmp_path, tokenizer, maxlen=32):
    rows = [{"text": "叶老桂在AB北京。", "label": {"name": {"叶老桂": [[0, 2]]},
                                                 "address": {"北京": [[6, 7]]}}},
            {"text": "大涨，在北京", "label": {"address": {"北京": [[4, 5]]}}}]
    write(tmp_path / "cluener", "train.json", rows)
    task = get_task("cluener")
    return task, Batches(task, task.load(tmp_path), tokenizer, maxlen, 2, shuffle=False)


def test_tagging_batch_has_tags_at_token_positions_and_weights(tmp_path, tokenizer):
    _, batches = tagging_batches(tmp_path, tokenizer)
    ((tokens, _), tags, weights), = batches.epoch(0)
    assert [CHARACTERS[i] for i in tokens[0]] == (
        ["[CLS]", *"叶老桂在", "a", "##b", *"北京。", "[SEP]"])
    assert [TAGS[i] for i in tags[0]] == (
        ["O", "B-name", "I-name", "I-name", "O", "O", "O", "B-address", "I-address", "O", "O"])
    assert weights[0].tolist() == [0] + [1] * 9 + [0] and weights[1].sum() == 6


class Fixed:
    """Stands for a model: looks its outputs up by the second token."""

    def __init__(self, outputs, table):
        tokens = keras.Input([None], dtype="int32")
        segments = keras.Input([None], dtype="int32")
        looked = keras.layers.Embedding(len(CHARACTERS), outputs, name="table")(tokens)
        self.model = keras.Model([tokens, segments], table(looked))


def test_prediction_keeps_the_order_of_examples(tmp_path, tokenizer):
    examples = make_examples(tmp_path, [7, 4, 30, 9, 12])
    for example in examples:
        example.text = "市" + example.text
    examples[2].text = "大" + examples[2].text
    model = Fixed(15, lambda x: x[:, 1]).model
    table = np.zeros((len(CHARACTERS), 15))
    table[CHARACTERS.index("市"), 4] = table[CHARACTERS.index("大"), 2] = 1
    model.set_weights([table])
    task = get_task("tnews")
    batches = Batches(task, examples, tokenizer, 16, 2)
    assert predict(task, model, batches) == ["104", "104", "102", "104", "104"]
    assert np.shape(predict_outputs(model, batches)) == (5, 15)
    hits = np.mean([e.label == p for e, p in zip(examples, predict(task, model, batches))])
    assert evaluate(task, model, batches) == {"accuracy": 0.4} and hits == 0.4


def test_tagging_is_scored_at_characters(tmp_path, tokenizer):
    task, batches = tagging_batches(tmp_path, tokenizer)
    model, table = Fixed(21, lambda x: x).model, np.zeros((len(CHARACTERS), 21))
    for character, tag in zip("叶老桂北京", "B-name I-name I-name B-address I-address".split()):
        table[CHARACTERS.index(character), TAGS.index(tag)] = 1
    model.set_weights([table])
    assert evaluate(task, model, batches)["entity F1"] == 1
    short = tagging_batches(tmp_path, tokenizer, maxlen=6)[1]
    assert evaluate(task, model, short) == {"entity F1": 0.5, "precision": 1, "recall": 1 / 3}
    path = write_predictions(task, batches.examples, predict(task, model, batches), tmp_path)
    assert path.name == "cluener_predict.json"
    answers = [row for _, row in read_rows(path)]
    assert [entities_of(a["label"]) for a in answers] == [entities_of(e.label)
                                                          for e in batches.examples]
    assert answers[1]["id"] == 1


def test_leaderboard_file_is_complete_or_absent(tmp_path):
    task = get_task("ocnli")
    with pytest.raises(ValueError, match="0 examples but 1"):
        write_predictions(task, [], ["neutral"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_floor_sees_what_two_texts_share():
    pairs = [Example(a, b, str(int(a == b))) for a in "天地人和日月" for b in "天地人和日月"]
    floor = BagOfWords(get_task("afqmc"), pairs, strength=100.0)
    assert floor.accuracy(pairs) == 1
    assert floor.predict([Example("天天", "天天"), Example("天天", "地地")]).tolist() == ["1", "0"]
    with pytest.raises(InputError, match="no bag of words for a tagging task"):
        BagOfWords(get_task("cluener"), pairs)

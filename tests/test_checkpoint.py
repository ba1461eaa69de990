"""Published folders: round trips to the bit, and errors that name variable, file and shapes."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from bert4keras.models import build_transformer_model
from bert4keras.tokenizers import Tokenizer, load_vocab

from bert_theseus.__main__ import main
from bert_theseus.backend import keras, set_seed
from bert_theseus.checkpoint import (
    Loaded, bert_folder, load_bert, load_checked, published_config, random_bert, save_bert)
from bert_theseus.errors import InputError

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"甲乙丙丁戊己庚"]
WORDS = "bert/embeddings/word_embeddings"
BATCH = [np.array([[2, 5, 6, 3, 0], [2, 7, 8, 9, 3]]), np.array([[0] * 5, [0, 0, 1, 1, 1]])]


def tiny(model="bert", tokens=TOKENS, **kwargs):
    """A transformer whose every trainable weight is random, biases and norms included."""
    settings = dict(vocab_size=len(tokens), hidden_size=8, num_hidden_layers=2,
                    num_attention_heads=2, intermediate_size=12, hidden_act="gelu",
                    max_position=10, hidden_dropout_prob=0.1)
    bert = build_transformer_model(model=model, return_keras_model=False, **{**settings, **kwargs})
    rng = np.random.RandomState(7)
    for weight in bert.model.trainable_weights:
        weight.assign(rng.randn(*weight.shape))
    return bert


@pytest.fixture
def folder():
    return random_bert("model", TOKENS, layers=2, hidden=8, heads=2, intermediate=12,
                       max_position=10)


@pytest.mark.parametrize("model, kwargs", [
    ("bert", dict(with_mlm="linear", with_nsp=True)),
    ("bert", dict(hierarchical_position=True, embedding_size=4)),
    ("roformer", dict(with_mlm="linear", with_pool="linear")),
    ("nezha", dict(segment_vocab_size=0)),
    ("electra", dict(embedding_size=4, with_discriminator=True)),
    ("albert", dict(embedding_size=4, with_pool=True)),
    ("roformer_v2", dict(with_mlm="linear")),
])
def test_round_trip_gives_the_same_bits_here_and_in_plain_bert4keras(model, kwargs):
    bert = tiny(model, **kwargs)
    paths = bert_folder(save_bert(bert, "saved", TOKENS))
    heads = {k: v for k, v in kwargs.items() if k.startswith("with_")}
    batch = BATCH[:len(bert.model.inputs)]
    expected = tf.nest.flatten(bert.model(batch))
    ours = load_bert("saved", model, return_keras_model=True, **heads)
    plain = build_transformer_model(paths.config_path, paths.checkpoint_path, model, **heads)
    for other in (ours, plain):
        for actual, wanted in zip(tf.nest.flatten(other(batch)), expected, strict=True):
            np.testing.assert_array_equal(actual, wanted)
    assert all(np.array_equal(a, b) for a, b in zip(ours.get_weights(), bert.model.get_weights()))


def test_an_unshared_albert_leaves_as_the_bert_it_is():
    albert = tiny("albert_unshared", embedding_size=4)
    model = load_bert(save_bert(albert, "saved", TOKENS), "bert").model
    np.testing.assert_array_equal(model(BATCH), albert.model(BATCH))


def test_published_form_holds_googles_names_keys_and_files(folder):
    assert sorted(os.listdir(folder)) == [
        "bert_config.json", "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index",
        "vocab.txt"]
    names = dict(tf.train.list_variables(str(folder / "bert_model.ckpt")))
    assert names[WORDS] == [12, 8] and names["cls/seq_relationship/output_weights"] == [2, 8]
    assert names["bert/encoder/layer_1/attention/self/query/kernel"] == [8, 8]
    assert len(names) == 5 + 2 * 16 + 2 + 5 + 2
    config = json.loads((folder / "bert_config.json").read_text())
    assert config["max_position_embeddings"] == 10 and config["type_vocab_size"] == 2
    assert load_vocab(str(folder / "vocab.txt"))["甲"] == 5


def test_init_command_is_reproducible_and_seeded():
    Path("vocab.txt").write_text("\n".join(TOKENS), encoding="utf-8")
    words = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        main(["init", "--vocab", "vocab.txt", "--output_dir", name, "--layers", "1",
              "--hidden", "16", "--heads", "4", "--seed", str(seed)])
        words[name] = tf.train.load_variable(f"{name}/bert_model.ckpt", WORDS)
    assert (words["a"] == words["b"]).all() and not (words["a"] == words["c"]).any()
    assert 0.01 < words["a"].std() < 0.03
    config = json.loads(Path("a/bert_config.json").read_text())
    assert (config["num_attention_heads"], config["intermediate_size"]) == (4, 64)


def test_missing_variable_and_other_shape_are_named(folder):
    bert = tiny(num_hidden_layers=3)
    before = bert.model.get_weights()
    with pytest.raises(InputError, match=r"bert/encoder/layer_2/attention/self/query/kernel is "
                                         r"missing, model/bert_model.ckpt"):
        load_checked(bert, folder / "bert_model.ckpt")
    assert all((a == b).all() for a, b in zip(before, bert.model.get_weights())), "half loaded"
    with pytest.raises(InputError, match=WORDS + r" has another shape: the model expects \[20, 8\],"
                                                 r" the checkpoint holds \[12, 8\], model/bert"):
        load_checked(tiny(vocab_size=20), folder / "bert_model.ckpt")
    with pytest.raises(InputError, match="keep_tokens"):
        load_bert(folder, keep_tokens=[0, 1, 50])


def test_the_right_model_is_hinted_at(folder):
    save_bert(tiny("roformer"), "roformer", TOKENS)
    save_bert(tiny("electra"), "electra", TOKENS)
    save_bert(tiny("albert"), "albert", TOKENS)
    for name in ("roformer", "electra", "albert"):
        with pytest.raises(InputError, match=f"model='{name}'"):
            load_bert(name)
    tiny().model.save_weights("model/bert_model.ckpt")
    with pytest.raises(InputError, match="model.load_weights"):
        load_bert(folder)


def test_what_is_left_unused_is_returned_and_logged(folder, caplog):
    bert = tiny(with_pool="linear")
    loaded = load_checked(bert, folder / "bert_model.ckpt")
    assert loaded.unfilled == () and len(loaded.unused) == 7
    assert all(name.startswith("cls/") for name in loaded.unused)
    with caplog.at_level(logging.INFO):
        load_bert(folder)
    assert "9 variables left unused: bert/pooler/dense/bias" in caplog.text
    full = load_checked(tiny(with_mlm=True, with_nsp=True), folder / "bert_model.ckpt")
    assert full == Loaded((), ())


def test_optimizer_states_are_not_counted_as_unused(folder):
    state = {WORDS + "/adam_m": 1.0, "global_step": 3.0, "more": 1.0}
    values = {**dict.fromkeys(state, 0.), **state}
    path = str(folder / "bert_model.ckpt")
    stored = {n: tf.train.load_variable(path, n) for n, _ in tf.train.list_variables(path)}
    stored.update({name: np.float32(value) for name, value in values.items()})
    tf.raw_ops.SaveV2(prefix=path, tensor_names=list(stored), shape_and_slices=[""] * len(stored),
                      tensors=list(stored.values()))
    assert load_checked(tiny(with_mlm=True, with_nsp=True), path).unused == ("more",)


def test_keep_tokens_and_resizing_follow_bert4keras(folder):
    kept = load_bert(folder, keep_tokens=[0, 5, 2]).model.get_layer("Embedding-Token")
    words = tf.train.load_variable(str(folder / "bert_model.ckpt"), WORDS)
    np.testing.assert_array_equal(kept.get_weights()[0], words[[0, 5, 2]])
    assert load_bert(folder, hidden_size=4, intermediate_size=6,
                     autoresize_weights=True).model.output_shape[-1] == 4
    deeper = load_bert(folder, num_hidden_layers=3, ignore_invalid_weights=True)
    np.testing.assert_array_equal(deeper.model.get_layer("Embedding-Token").get_weights()[0], words)


def test_frozen_layers_are_saved_and_loaded(folder):
    bert = load_bert(folder)
    bert.model.trainable = False
    save_bert(bert, "frozen", TOKENS)
    other = tiny()
    other.model.trainable = False
    load_checked(other, "frozen/bert_model.ckpt")
    np.testing.assert_array_equal(other.model(BATCH), bert.model(BATCH))
    assert other.model.trainable_weights == []


def test_other_names_and_steps_are_found(folder):
    os.rename("model/bert_config.json", "model/bert_config_tiny.json")
    for step in (9, 100000):
        for path in sorted(folder.glob("bert_model.ckpt.*")):
            shutil.copy(path, path.with_name(path.name.replace("bert_model.ckpt",
                                                               f"model.ckpt-{step}")))
    assert bert_folder(folder).checkpoint_path == "model/bert_model.ckpt"
    for path in folder.glob("bert_model.ckpt.*"):
        path.unlink()
    paths = bert_folder(folder)
    assert paths.checkpoint_path == "model/model.ckpt-100000"
    assert paths.config_path == "model/bert_config_tiny.json"
    assert load_bert(folder).num_hidden_layers == 2


@pytest.mark.parametrize("harm, message", [
    (lambda f: shutil.rmtree(f), "no such folder, model, it should hold bert_config.json"),
    (lambda f: (f / "bert_config.json").unlink(), "bert_config.json is missing, model"),
    (lambda f: (f / "bert_config.json").write_text("{\n,"), r"broken JSON, .*config.json:2"),
    (lambda f: (f / "bert_config.json").write_text('{"hidden_size": 8}'), "vocab_size, num_hidden"),
    (lambda f: (f / "bert_model.ckpt.index").unlink(), r"no \*.index, model"),
    (lambda f: (f / "bert_model.ckpt.data-00000-of-00001").unlink(), "data-00000-of-00001 is miss"),
    (lambda f: (f / "bert_model.ckpt.index").write_bytes(b"x"), "cannot read the checkpoint"),
    (lambda f: os.truncate(f / "bert_model.ckpt.data-00000-of-00001", 99), "cannot read variable"),
    (lambda f: (f / "vocab.txt").write_text("a\n" * 13), "has 13 tokens, the model 12"),
    (lambda f: (f / "vocab.txt").write_bytes(b"a\n\xff\n"), "not UTF-8, model/vocab.txt:2"),
])
def test_a_broken_folder_is_one_line(folder, harm, message):
    harm(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_bert(folder)
    assert "\n" not in str(caught.value)


def test_vocabulary_in_every_form(folder):
    bert = load_bert(folder)
    token_dict = {token: i for i, token in enumerate(TOKENS)}
    for vocab in (TOKENS, token_dict, "model/vocab.txt", Tokenizer(token_dict)):
        save_bert(bert, "other", vocab)
        assert Path("other/vocab.txt").read_text(encoding="utf-8").split("\n")[:-1] == TOKENS
    for bad, message in [({"a": 0, "b": 2}, "without a gap"), (TOKENS * 2, "24 tokens"),
                         ([], "empty"), ("nowhere.txt", "No such file")]:
        with pytest.raises(InputError, match=message):
            save_bert(bert, "other", bad)
    assert load_bert("other").model is not None, "a refused vocabulary harmed the folder"


def test_weights_without_a_published_name_are_refused():
    condition = keras.Input([4])
    bert = tiny(layer_norm_cond=condition, additional_input_layers=condition)
    with pytest.raises(InputError, match="no name for .*Norm"):
        save_bert(bert, "saved", TOKENS)
    t5 = build_transformer_model(
        model="t5", return_keras_model=False, vocab_size=12, hidden_size=8, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=12, hidden_act="relu")
    with pytest.raises(InputError, match="not of the BERT family"):
        published_config(t5)
    assert not Path("saved").exists()


def test_a_folder_is_replaced_whole_or_not_at_all(folder, monkeypatch):
    bert = tiny()
    Path("model/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other files .notes.txt."):
        save_bert(bert, folder, TOKENS)
    Path("model/notes.txt").unlink()
    old = tf.train.load_variable("model/bert_model.ckpt", WORDS)
    with monkeypatch.context() as patch:
        patch.setattr(type(bert), "save_weights_as_checkpoint", None)
        with pytest.raises(TypeError):
            save_bert(bert, folder, TOKENS)
    assert (tf.train.load_variable("model/bert_model.ckpt", WORDS) == old).all()
    save_bert(bert, folder, TOKENS)
    new = tf.train.load_variable("model/bert_model.ckpt", WORDS)
    np.testing.assert_array_equal(new, bert.model.get_layer("Embedding-Token").get_weights()[0])
    assert os.listdir() == ["model"]


@pytest.mark.parametrize("sizes, message", [
    (dict(layers=0), "layers is 0"), (dict(hidden=10, heads=4), "10 hidden units do not divide")])
def test_sizes_that_make_no_model_are_refused(sizes, message):
    with pytest.raises(InputError, match=message):
        random_bert("x", TOKENS, **sizes)


def test_config_carries_more_keys_but_describes_the_weights():
    set_seed(1)
    save_bert(tiny(), "saved", TOKENS, config={"directionality": "bidi", "vocab_size": 999})
    config = json.loads(Path("saved/bert_config.json").read_text())
    assert (config["directionality"], config["vocab_size"]) == ("bidi", 12)

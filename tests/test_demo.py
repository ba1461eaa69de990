"""The demo's data: right by rule, reproducible, split without overlap, learnt by its model."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bert4keras.models import build_transformer_model
from bert4keras.optimizers import Adam
from bert4keras.tokenizers import Tokenizer
from sklearn.linear_model import LogisticRegression

from bert_theseus import demo
from bert_theseus.backend import keras, set_seed
from bert_theseus.checkpoint import load_bert
from bert_theseus.clue import Batches, evaluate, get_task
from bert_theseus.errors import InputError
from bert_theseus.training import fit


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (Path(folder) / demo.TASK).iterdir()}


def test_every_answer_follows_from_its_story_and_splits_are_apart():
    task = get_task(demo.TASK, folder := demo.demo_task("demo", 3, 600, 100, 100))
    splits = {split: task.load(folder, split) for split in ("train", "dev", "test")}
    for examples in splits.values():
        assert all(demo.follow(e.text) == e.label for e in examples)
    texts = {split: {e.text for e in examples} for split, examples in splits.items()}
    assert not texts["train"] & (texts["dev"] | texts["test"]) and not texts["dev"] & texts["test"]
    counts = Counter(e.label for e in splits["train"])
    assert set(counts) == set(demo.PEOPLE) == set(task.labels)
    assert max(counts.values()) < 1.5 * min(counts.values())
    known = set(demo.demo_vocab())
    assert set("".join(texts["train"])) <= known and len(known) < 100


def test_the_same_seed_gives_the_same_files():
    sizes = dict(train=50, dev=20, test=20)
    a, b, c = (demo.demo_task(name, seed, **sizes) for name, seed in zip("abc", (1, 1, 2)))
    assert digest(a) == digest(b) and not set(digest(a).values()) - {
        digest(a)["labels.json"]} & set(digest(c).values())


def test_the_model_is_a_published_folder_of_the_asked_depth():
    folder = demo.demo_bert("bert", num_layers=2)
    bert = load_bert(folder)
    assert bert.num_hidden_layers == 2
    vocab = Tokenizer(str(Path(folder) / "vocab.txt"))._token_dict
    assert tuple(vocab) == demo.demo_vocab()
    again = load_bert(demo.demo_bert("again", num_layers=2))
    for a, b in zip(bert.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_small_model_learns_more_than_the_commonest_answer():
    folder = demo.demo_task("demo", 0, 2000, 200, 1)
    task, tokenizer = get_task(demo.TASK, folder), Tokenizer(
        {token: i for i, token in enumerate(demo.demo_vocab())})
    train, dev = (Batches(task, task.load(folder, split), tokenizer, 32, 64)
                  for split in ("train", "dev"))
    set_seed(1)
    bert = load_bert(demo.demo_bert("bert", num_layers=2))
    first = keras.layers.Lambda(lambda x: x[:, 0])(bert.output)
    model = keras.Model(bert.model.inputs, keras.layers.Dense(4, "softmax")(first))
    model.compile(Adam(2e-3), "sparse_categorical_crossentropy")
    best = fit(model, train, 6, evaluate=lambda m: evaluate(task, m, dev), progress=False).best
    commonest = max(Counter(e.label for e in dev.examples).values()) / len(dev.examples)
    assert best > commonest + 0.05


def test_no_word_of_dev_or_test_is_in_train():
    task, folder = get_task(demo.KINDS, demo.kinds_task("kinds")), "kinds"
    words = {split: {word for e in task.load(folder, split) for word in demo.WORDS[e.label]
                     if word in e.text} for split in ("train", "dev", "test")}
    assert [len(found) for found in words.values()] == [144, 72, 72]
    assert not words["train"] & (words["dev"] | words["test"]) and not words["dev"] & words["test"]
    demo.kinds_task("again")
    assert (Path("kinds/kinds/dev.json").read_bytes() == Path("again/kinds/dev.json").read_bytes())


def test_the_shipped_model_knows_kinds_of_words_it_was_not_shown():
    """A regression on its frozen hidden states, beside one on those of random weights."""
    task, folder = get_task(demo.KINDS, demo.kinds_task("kinds")), "kinds"
    trained = load_bert(demo.shipped_model("tiny_zh"))
    blank = build_transformer_model(demo.shipped_model("tiny_zh") / "bert_config.json",
                                    return_keras_model=False)
    tokenizer = Tokenizer(str(demo.shipped_model("tiny_zh") / "vocab.txt"), do_lower_case=True)
    scores = []
    for bert in (trained, blank):
        features = {}
        for split in ("train", "dev"):
            batches = Batches(task, task.load(folder, split), tokenizer, 32, 720, shuffle=False)
            states = [bert.model.predict_on_batch(x).mean(1) for x, _ in batches.epoch(0)]
            features[split] = np.concatenate(states), batches.labels
        regression = LogisticRegression(C=0.1, max_iter=1000).fit(*features["train"])
        scores.append(regression.score(*features["dev"]))
    assert scores[0] > 0.6 and scores[0] > scores[1] + 0.2


def test_an_absent_shipped_model_is_named():
    with pytest.raises(InputError, match="no shipped model 'tiny_xx'"):
        demo.shipped_model("tiny_xx")

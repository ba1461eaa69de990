"""Labels, masks, weights, priors and configuration of the imbalance losses."""

import gzip
import json
import logging

import numpy as np
import pytest
import tensorflow as tf

from bert_theseus import imbalance as im
from bert_theseus.backend import keras
from bert_theseus.clue import TASKS, find_file
from bert_theseus.errors import InputError

Z = np.random.default_rng(0).normal(0, 2, [2, 3, 4]).astype("float32")       # [batch, length, 4]
Y = np.array([[0, 1, 2], [3, 0, 1]])
PRIOR = [0.4, 0.3, 0.2, 0.1]
LOSSES = [im.WeightedCrossentropy(), im.FocalCrossentropy(), im.LogitAdjustedCrossentropy(PRIOR),
          im.F1WeightedCrossentropy("full"), im.DiceLoss(), im.SmoothF1Loss(),
          im.DiceLoss(over="batch"), im.F1WeightedCrossentropy()]


def again(loss, **changed):
    return type(loss).from_config({**loss.get_config(), **changed})


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_what_is_ignored_or_masked_counts_nowhere(loss):
    """Ignore label, Keras mask and weight 0 on two tokens: as if they had been cut out."""
    keep = np.array([[True, False, True], [True, True, False]])
    expected = float(loss(Y[keep][:, None], Z[keep][:, None]))
    ignoring = again(loss, ignore_label=-1)
    assert float(ignoring(np.where(keep, Y, -1), Z)) == pytest.approx(expected, rel=1e-5)
    masked = tf.constant(Z)
    masked._keras_mask = tf.constant(keep)
    assert float(loss(Y, masked)) == pytest.approx(expected, rel=1e-5)
    if not isinstance(loss, im.SmoothF1Loss) and getattr(loss, "over", "") != "batch":
        assert float(again(loss, reduction="sum")(Y, Z, keep * 1.0)) == pytest.approx(
            4 * expected, rel=1e-5)             # weight 0 leaves the sum, not the count
        each = again(ignoring, reduction="none")(np.where(keep, Y, -1), Z)
        assert each.shape == (2, 3) and np.all(each.numpy()[~keep] == 0)
        assert float(ignoring(np.full_like(Y, -1), Z)) == 0


def test_weights_of_a_set_loss_are_repetitions():
    for loss in (im.SmoothF1Loss(), im.DiceLoss(over="batch")):
        weighted = loss(Y[0], Z[0], np.array([1.0, 2.0, 1.0]))
        repeated = loss(Y[0][[0, 1, 1, 2]], Z[0][[0, 1, 1, 2]])
        assert float(weighted) == pytest.approx(float(repeated), rel=1e-5)


def test_sample_weights_of_every_shape():
    loss = im.FocalCrossentropy(reduction="none")
    plain = loss(Y, Z).numpy()
    for weight in (2.0, np.array([1.0, 3.0]), np.array([[1.0], [3.0]]),
                   np.arange(6.0).reshape(2, 3)):
        broadcast = np.reshape(weight, [2, 1]) if np.size(weight) == 2 else weight
        np.testing.assert_allclose(loss(Y, Z, weight), plain * broadcast, rtol=1e-6)
    mean = im.FocalCrossentropy()(Y, Z, np.array([1.0, 3.0]))
    assert float(mean) == pytest.approx(np.mean(plain * [[1.0], [3.0]]), rel=1e-6)


def test_binary_tasks_side_by_side_and_their_ignored_cells():
    z, y = Z[0], np.array([[1, 0, -1, 0], [0, -1, -1, 1], [1, 1, 0, 0]])
    loss = im.WeightedCrossentropy([1.0, 2.0], labels="binary", ignore_label=-1)
    each = np.where(y == 1, 2 * np.log1p(np.exp(-z)), np.log1p(np.exp(z)))
    rows = [row[keep].mean() for row, keep in zip(each, y != -1)]
    assert float(loss(y, z)) == pytest.approx(np.mean(rows), rel=1e-5)
    several = im.MultilabelCrossentropy(ignore_label=-1)
    expected = [np.log1p(np.exp(r[t == 0]).sum()) + np.log1p(np.exp(-r[t == 1]).sum())
                for r, t in zip(z, y)]
    assert float(several(y, z)) == pytest.approx(np.mean(expected), rel=1e-5)


ERRORS = [
    (lambda: im.FocalCrossentropy()([1, 4], Z[0, :2]), ["label 4", "[1]", "subtract 1"]),
    (lambda: im.FocalCrossentropy()([0.5, 1], Z[0, :2]), ["label 0.5", "[0]"]),
    (lambda: im.FocalCrossentropy()([-1, 1], Z[0, :2]), ["label -1", "[0]", "0 … 3"]),
    (lambda: im.WeightedCrossentropy(labels="integer")(np.eye(4)[:2], Z[0, :2]),
     ["as integer labels", "labels='one_hot'"]),
    (lambda: im.WeightedCrossentropy(labels="one_hot")([1, 2], Z[0, :2]),
     ["as one_hot labels", "labels='integer'"]),
    (lambda: im.WeightedCrossentropy()(np.array([[1, 1, 0, 0], [1, 0, 0, 0]]), Z[0, :2]),
     ["[0]", "labels='binary'"]),
    (lambda: im.FocalCrossentropy()(np.full([2, 4], 0.25), Z[0, :2]), ["[0]", "single 1"]),
    (lambda: im.WeightedCrossentropy()([[2], [0]], Z[0, :2, :1]), ["label 2", "[0, 0]", "0 and 1"]),
    (lambda: im.WeightedCrossentropy()([[1, 0, 1]], Z[0, :1]), ["shape (1, 3)", "(1, 4)"]),
    (lambda: im.WeightedCrossentropy()([1], tf.nn.softmax(Z[0, :1])),
     ["probabilities", "sums to 1"]),
    (lambda: im.WeightedCrossentropy()([[1]], keras.activations.sigmoid(tf.constant([[2.0]]))),
     ["probabilities", "activation"]),
    (lambda: im.WeightedCrossentropy()([1, 2], np.zeros(4, "float32")), ["shape (4,)"]),
    (lambda: im.WeightedCrossentropy([1, 2])([1], Z[0, :1]), ["2 class_weights for 4 classes"]),
    (lambda: im.LogitAdjustedCrossentropy([0.5, 0.5])([1], Z[0, :1]), ["2 prior for 4 classes"]),
    (lambda: im.LogitAdjustedCrossentropy([0.5, 0.4]), ["sums to 0.9", "divide"]),
    (lambda: im.LogitAdjustedCrossentropy([0.5, 0.0, 0.5]), ["prior[1]", "smooth"]),
    (lambda: im.adjust_logits(Z[0], [0.5, 0.5]), ["2 prior for 4 classes"]),
    (lambda: im.adjust_logits(Z[0], PRIOR, new_prior=[0.5, 0.5]), ["2 new_prior"]),
    (lambda: im.prediction_scores(Z[0], PRIOR, "best", "plain"), ["'best'", "balanced"]),
    (lambda: im.estimate_prior([[0.5, 0.6]], [0.5, 0.5]), ["sum to 1"]),
    (lambda: im.FocalCrossentropy(gamma=-1), ["gamma"]),
    (lambda: im.FocalCrossentropy(alpha=0.25)([1], Z[0, :1]), ["one weight a class"]),
    (lambda: im.ClassBalancedCrossentropy([3, 0]), ["counts[1]"]),
    (lambda: im.ClassBalancedCrossentropy([3, 1], beta=1.0), ["beta"]),
    (lambda: im.DiceLoss(smooth=0.0), ["smooth"]),
    (lambda: im.SmoothF1Loss("sliding"), ["'sliding'", "running"]),
    (lambda: im.SmoothF1Loss(reduction="none"), ["reduction"]),
    (lambda: im.MarginCrossentropy(scale=0.0), ["scale"]),
    (lambda: im.WeightedCrossentropy(labels="sparse"), ["'sparse'", "integer"]),
    (lambda: im.MultilabelCrossentropy()([[1, 2, 0, 0]], Z[0, :1]), ["label 2", "[0, 1]"]),
    (lambda: im.SparseMultilabelCrossentropy()([[1, 4]], Z[0, :1]),
     ["label 4", "[0, 1]", "padding"]),
    (lambda: im.SubsetCrossentropy(2)([[1, 0, 0, 0]], Z[0, :1]), ["1 labels", "[0]", "2 ones"]),
    (lambda: im.SubsetCrossentropy(5)([[1, 0, 0, 0]], Z[0, :1]), ["5 among 4"]),
    (lambda: im.FullDataF1(im.SmoothF1Loss(), Z, Y), ["estimate='full'"]),
]


@pytest.mark.parametrize("call, parts", ERRORS, ids=range(len(ERRORS)))
def test_what_does_not_fit_is_named_with_its_place_and_a_fix(call, parts):
    with pytest.raises(InputError) as caught:
        call()
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_inside_a_graph_bad_labels_stop_training_and_xla_gives_nan():
    bad = np.array([1, 2, 3, 4])
    losses = {"focal": im.FocalCrossentropy(), "F1": im.F1WeightedCrossentropy(),
              "set": im.SmoothF1Loss(), "dice": im.DiceLoss()}
    z = np.zeros([4, 4], "float32")
    with pytest.raises(tf.errors.InvalidArgumentError, match="(?s)label.*4.*position.*3.*subtr"):
        tf.function(losses["focal"])(bad, z)
    compiled = tf.function(lambda y, z: [loss(y, z) for loss in losses.values()], jit_compile=True)
    assert np.isnan([float(v) for v in compiled(bad, z)]).all()
    assert np.isfinite([float(v) for v in compiled(bad - 1, z)]).all()
    sparse = tf.function(im.SparseMultilabelCrossentropy(), jit_compile=True)
    assert np.isnan(float(sparse([[9, 0]], z[:1])))
    subsets = tf.function(im.SubsetCrossentropy(2))
    assert np.isnan(float(subsets([[1, 1, 1, 0]], z[:1])))


def test_a_model_that_ends_in_softmax_is_refused_when_it_is_trained():
    model = keras.Sequential([keras.layers.Dense(4, "softmax", input_shape=(2,))])
    model.compile("sgd", im.FocalCrossentropy())
    with pytest.raises(Exception, match="probabilities where logits are due"):
        model.fit(np.zeros([2, 2]), np.zeros(2), verbose=0)


def test_every_loss_is_saved_with_the_model_and_goes_on_as_before():
    losses = {
        "WeightedCrossentropy": im.WeightedCrossentropy([1, 2, 3, 4], label_smoothing=0.1),
        "ClassBalanced": im.ClassBalancedCrossentropy([9, 5, 2, 1], 0.9, ignore_label=7),
        "accuracy": im.SmoothAccuracyLoss(name="acc"),
        "F1": im.SmoothF1Loss("running", 0.5, "micro", ignore_label=3),
        "F1 weighted": im.F1WeightedCrossentropy("running", 0.5, leading_factor=True),
        "hard": im.HardTruncatedCrossentropy(0.4),
        "soft": im.SoftTruncatedCrossentropy(2.0, "odds", reduction="sum"),
        "focal": im.FocalCrossentropy(1.0, alpha=[1, 2, 3, 4]),
        "dice": im.DiceLoss(1.0, 0.5, over="batch", average="micro"),
        "margin": im.MarginCrossentropy([1, 2, 3, 4], True, 2.0),
        "adjusted": im.LogitAdjustedCrossentropy(PRIOR, 0.5, labels="integer"),
        "multilabel": im.MultilabelCrossentropy(ignore_label=-1),
        "sparse": im.SparseMultilabelCrossentropy(padding=-7),
        "subsets": im.SubsetCrossentropy(2, at_most=True),
    }
    for name, loss in losses.items():
        config = loss.get_config()
        twin = type(loss).from_config(json.loads(json.dumps(config)))
        assert twin.get_config() == config and twin.reduction == loss.reduction, name
        if name in ("multilabel", "subsets"):
            y = np.array([[1, 0, 1, 0], [0, 0, 0, 1]])
        else:
            y = np.array([[2], [0]])
        assert float(twin(y, Z[0, :2])) == pytest.approx(float(type(loss).from_config(config)(
            y, Z[0, :2]))), name
    model = keras.Sequential([keras.layers.Dense(4, input_shape=(2,))])
    for i, (name, loss) in enumerate(losses.items()):
        model.compile("sgd", loss)
        model.save(file := ("model.h5", "model.keras", "saved")[0 if i % 2 else 1 if i else 2])
        loaded = keras.models.load_model(file).loss            # no custom_objects
        assert type(loaded) is type(loss) and loaded.get_config() == loss.get_config(), name


def test_adjustment_on_top_of_class_weights_warns_once(caplog):
    x, y = np.zeros([4, 2]), np.array([0, 1, 2, 3])
    model = keras.Sequential([keras.layers.Dense(4, input_shape=(2,))])
    model.compile("sgd", im.LogitAdjustedCrossentropy(PRIOR))
    with caplog.at_level(logging.WARNING):
        model.fit(x, y, verbose=0)
        im.LogitAdjustedCrossentropy(PRIOR)(y, Z[0, :1].repeat(4, 0), [0.0, 1.0, 1.0, 0.0])
        assert not caplog.records                          # no weights, or a mask
        model.fit(x, y, class_weight={0: 1, 1: 2, 2: 3, 3: 4}, epochs=2, verbose=0)
    assert len(caplog.records) == 1 and "drop one of the two" in caplog.text


def test_mixed_precision_model_trains_on_float16_logits():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.layers.Dense(4, input_shape=(2,))])
        model.compile("sgd", im.LogitAdjustedCrossentropy(PRIOR))
        history = model.fit(np.full([8, 2], 100.0), np.arange(8) % 4, epochs=2, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_counts_and_priors_from_lists_files_and_generators():
    rows = [{"label": "101", "sentence": "a\u2028b"}, {"label": "100", "sentence": "c"},
            {"label": "101", "sentence": "d"}, {"label": "101", "sentence": "e"}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    with open("train.json", "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
    with gzip.open("train.json.gz", "wt", encoding="utf-8", newline="\n") as file:
        file.write(text)
    for source in ("train.json", "train.json.gz", (row["label"] for row in rows)):
        assert im.class_counts(source, names=["100", "101"]).tolist() == [1, 3]
    assert im.class_prior("train.json", names=["100", "101"]).tolist() == [0.25, 0.75]
    assert im.class_prior([0, 0], 2, smoothing=1).tolist() == [0.75, 0.25]
    assert im.class_counts(np.array([[0, 1], [1, 1]]), 2).tolist() == [1, 3]
    assert im.class_counts([[0, 2], [2, 2], []], 3).tolist() == [1, 0, 2]       # several labels
    with open("entities.json", "w", encoding="utf-8") as file:
        file.write('{"label": {"name": {"a": [[0, 0]]}, "game": {}}}\n{"label": {"game": {}}}\n')
    assert im.class_counts("entities.json", names=["name", "game"]).tolist() == [1, 2]


def test_a_label_that_cannot_be_counted_is_named():
    with open("bad.json", "w") as file:
        file.write('{"label": "1"}\n{"label": "7"}\n{"lable": "0"}\nnot json\n')
    for call, parts in [
            (lambda: im.class_counts("bad.json", 3), ["label 7", "bad.json:2", "0 … 2"]),
            (lambda: im.class_counts("bad.json", names=["0", "1"]), ["'7'", "bad.json:2", "0, 1"]),
            (lambda: im.class_counts("bad.json", 8), ["no field 'label'", "bad.json:3"]),
            (lambda: im.class_counts("none.json", 8), ["cannot read it", "none.json"]),
            (lambda: im.class_counts(["a"], 2), ["'a' is no integer", "labels[0]", "names="]),
            (lambda: im.class_counts([0, 1]), ["num_classes"]),
            (lambda: im.class_prior([0, 0], 2), ["class 1 never occurs", "smoothing"]),
            (lambda: im.class_prior(["a"], names=["a", "b"]), ["class b never occurs"])]:
        with pytest.raises(InputError) as caught:
            call()
        assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_priors_of_the_real_files_of_clue(real_data):
    names = [json.loads(line)["label"] for line in open(real_data / "tnews" / "labels.json")]
    prior = im.class_prior(real_data / "tnews" / "train.json.gz", names=names)
    assert prior[names.index("109")] == pytest.approx(5728 / 50580)
    assert prior.sum() == pytest.approx(1)
    for name in ("afqmc", "iflytek", "ocnli", "csl", "cluewsc", "cluener"):
        task = TASKS[name]
        rows = task.load(real_data, "dev")
        counts = im.class_counts(find_file(task.folder(real_data), ("dev",)), names=task.labels,
                                 left_out=task.left_out)
        assert counts.tolist() == [sum(label == e.label or name == "cluener" and label in e.label
                                       for e in rows) for label in task.labels], name

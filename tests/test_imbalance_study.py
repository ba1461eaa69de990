"""The imbalance study: cuts, heads, measures, statements, and the script end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from bert_theseus import imbalance as im
from bert_theseus.backend import keras
from bert_theseus.checkpoint import load_bert, random_bert
from bert_theseus.errors import InputError
from bert_theseus.imbalance import study
from bert_theseus.imbalance.study import (claims, cost, data, features, fine_tuning, kept,
                                          measures, plots, report, runs, several_labels)

from running import refusal, run_script


def test_long_tail_falls_geometrically_from_head_to_head_over_imbalance():
    counts = study.long_tail_counts(5, 16, 1600)
    assert counts.tolist() == [1600, 800, 400, 200, 100]
    assert study.long_tail_counts(3, 1, 7).tolist() == [7, 7, 7]
    with pytest.raises(InputError, match="between 1 and 7"):
        study.long_tail_counts(3, 100, 7)


def test_a_cut_has_these_counts_by_rank_and_balanced_dev_and_test():
    rng = np.random.default_rng(0)
    labels = {s: rng.integers(0, 4, n) for s, n in (("train", 900), ("dev", 90), ("test", 91))}
    counts = study.long_tail_counts(4, 27, 162)
    first, other, same = (study.cut(labels, counts, seed) for seed in (1, 2, 1))
    for task in (first, other):
        assert np.bincount(task.labels["train"]).tolist() == counts.tolist()
        assert len(set(np.bincount(task.labels["test"]))) == 1
        for split, rows in task.rows.items():
            assert len(set(rows)) == len(rows)
            pairs = set(zip(labels[split][rows].tolist(), task.labels[split].tolist()))
            assert len(pairs) == 4                        # ranks are a renaming of the classes
    assert np.array_equal(first.rows["train"], same.rows["train"])
    assert not np.array_equal(first.rows["train"], other.rows["train"])
    np.testing.assert_allclose(first.prior, counts / counts.sum())
    fixed = study.cut({s: y % 2 for s, y in labels.items()}, np.array([90, 3]), 1, fixed_order=True)
    assert np.array_equal(fixed.labels["train"], labels["train"][fixed.rows["train"]] % 2)


def test_a_text_is_in_one_split_only():
    rows = {"train": [("a", "0"), ("b", "1"), ("b", "1"), ("c", "0")], "dev": [("b", "1")],
            "test": [("c", "0"), ("d", "1")]}
    assert data._disjoint(rows, None)["train"] == [("a", "0")]
    pool = [(str(i), "0") for i in range(100)]
    dealt = data._disjoint({"train": pool, "dev": pool, "test": pool}, (0.5, 0.2, 0.3))
    texts = [{t for t, _ in dealt[s]} for s in ("train", "dev", "test")]
    assert [len(t) for t in texts] == [50, 20, 30] and len(set.union(*texts)) == 100


def test_own_data_fills_every_place_it_is_given():
    """A class too small for the head's place is left out, so that the counts are those named."""
    assert data._head_that_keeps_most([100, 90, 5]) == 90
    for split, rows in (("train", {"a": 30, "b": 20, "c": 3}), ("dev", dict.fromkeys("abc", 4)),
                        ("test", dict.fromkeys("abc", 4))):
        Path("own").mkdir(exist_ok=True)
        with open(f"own/{split}.json", "w") as file:
            for name, count in rows.items():
                for i in range(count):
                    file.write(json.dumps({"label": name, "sentence": f"{split}{name}{i}"}) + "\n")
    corpus = study.load_corpus(".", "own")
    assert (corpus.classes, corpus.head) == (["a", "b"], 20)
    for seed in range(4):
        task = study.cut(corpus.labels, study.long_tail_counts(2, 10, corpus.head), seed)
        assert np.bincount(task.labels["train"]).tolist() == [20, 2]


def test_heads_trained_together_are_those_trained_alone():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 5)).astype("float32"), rng.integers(0, 3, 64)
    losses = {"a": im.WeightedCrossentropy(), "b": im.FocalCrossentropy(),
              "c": im.F1WeightedCrossentropy("running")}
    together = study.Heads(losses, 5, 3).train(x, y, 20, 16, 7, [10, 20])
    assert sorted(together) == [10, 20]
    for i, (name, loss) in enumerate(losses.items()):
        loss = type(loss).from_config(loss.get_config())
        kernel, bias = study.Heads({name: loss}, 5, 3).train(x, y, 20, 16, 7, [20])[20]
        np.testing.assert_allclose(kernel[:, 0], together[20][0][:, i], atol=1e-5)
        np.testing.assert_allclose(bias[0], together[20][1][i], atol=1e-5)
    logits = study.logits_of(together[20], x)
    np.testing.assert_allclose(
        logits[1], x @ together[20][0][:, 1] + together[20][1][1], rtol=1e-4, atol=1e-5)


def test_a_head_is_what_keras_fit_trains():
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    y = (x[:, 0] > 0).astype("int32")
    kernel, bias = study.Heads({"ce": im.WeightedCrossentropy()}, 4, 2, 0.01, bias_speed=1).train(
        x, y, 5, 32, 0, [5])[5]
    model = keras.Sequential([keras.layers.Dense(2, kernel_initializer="zeros", input_shape=(4,))])
    model.compile(keras.optimizers.legacy.Adam(0.01), im.WeightedCrossentropy())
    model.fit(x, y, batch_size=32, epochs=5, verbose=0)
    np.testing.assert_allclose(kernel[:, 0], model.get_weights()[0], atol=1e-5)
    np.testing.assert_allclose(bias[0], model.get_weights()[1], atol=1e-5)


def test_a_head_learns_a_prior_of_1000_within_the_steps_of_the_study():
    x, y = np.zeros((2002, 3), "float32"), np.array([0] * 2000 + [1] * 2)
    head = study.Heads({"ce": im.WeightedCrossentropy()}, 3, 2)
    bias = head.train(x, y, 400, 128, 0, [400])[400][1]
    assert 4.5 < bias[0, 0] - bias[0, 1] < 7.5            # log 1000 is 6.9


def test_features_are_centred_on_the_cut_training_rows():
    rng = np.random.default_rng(0)
    x = runs.standardised({"train": rng.normal(3, 2, (50, 4)), "test": np.full((1, 4), 3.0)})
    np.testing.assert_allclose(x["train"].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(x["train"].std(0), 1, rtol=1e-5)
    assert np.abs(x["test"]).max() < 0.6


def test_measures_by_hand():
    y = np.array([0, 0, 0, 0, 1, 1])
    logits = np.array([[2, 0], [2, 0], [2, 0], [0, 2], [0, 2], [2, 0]], float)
    prior = np.array([0.9, 0.1])
    values = dict(zip(study.MEASURES, study.measure(logits, y, prior)))
    assert values["accuracy"] == pytest.approx(0.9 * 0.75 + 0.1 * 0.5)
    assert values["balanced accuracy"] == pytest.approx(0.625)
    assert values["worst recall"] == 0.5
    right, predicted = 0.05, 0.9 * 0.25 + 0.05
    assert values["macro F1"] == pytest.approx(2 * right / (predicted + 0.1))
    p = 1 / (1 + np.exp(-2))                             # one bin; classes weigh the same
    assert values["calibration error"] == pytest.approx(abs(p - 0.625))
    assert measures.calibration_error(np.zeros((4, 2)), np.array([0, 0, 1, 1])) == pytest.approx(0)


def test_f1_and_accuracy_under_a_prior_are_those_of_a_sample_with_that_prior():
    """Importance weights against plain counts, with a reference implementation."""
    from sklearn.metrics import f1_score
    rng = np.random.default_rng(0)
    prior = np.array([0.6, 0.3, 0.1])
    balanced = np.repeat([0, 1, 2], 20000)
    sampled = rng.choice(3, 60000, p=prior)
    noise = rng.normal(size=(60000, 3))
    values = study.measure(np.eye(3)[balanced] + noise, balanced, prior)
    predicted = (np.eye(3)[sampled] + noise).argmax(-1)
    assert values[0] == pytest.approx((predicted == sampled).mean(), abs=0.01)
    assert values[2] == pytest.approx(f1_score(sampled, predicted, average="macro"), abs=0.01)


def test_paired_test_is_scipy_s_and_the_verdict_can_go_each_way():
    from scipy.stats import ttest_rel
    a, b = np.array([0.5, 0.6, 0.7, 0.65]), np.array([0.4, 0.52, 0.66, 0.6])
    found = study.paired_test(a, b)
    assert found["p"] == pytest.approx(ttest_rel(a, b).pvalue)
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert study.verdict(found) == "better"
    assert study.verdict(study.paired_test(b, a)) == "worse"
    assert study.verdict(study.paired_test(a, a[::-1])) == "within noise"
    assert study.verdict(study.paired_test([0.5], [0.4])) == "no test"


def group(dev, test=None, names=("cross-entropy | ", "focal | 1", "focal | 2")):
    """A group with "balanced accuracy" [seeds, settings, snapshots] and nothing else."""
    full = {}
    for split, values in (("dev", dev), ("test", dev if test is None else test)):
        values = np.asarray(values, float)
        full[split] = np.zeros((*values.shape, len(study.MEASURES)))
        full[split][..., 1] = values
    return {"names": list(names), "measures": list(study.MEASURES), "snapshots": [10, 20],
            "counts": [9, 1], **full}


def test_holm_s_correction_by_hand():
    assert measures.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert measures.holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])


def test_tables_mark_what_is_more_than_noise():
    noise = np.array([0, .01, -.01, .02, 0])[:, None]
    gains = np.array([0, .2, .002, -.1]) + np.hstack([noise, noise * .9, noise[::-1], noise * .5])
    names = ["cross-entropy | ", "a | ", "b | ", "c | "]
    many = group(np.repeat(.5 + gains[..., None], 2, -1), names=names)
    lines = {line.split("  ")[0]: line for line in report.summary_table(
        {"x": many}, "balanced accuracy").splitlines()}
    assert lines["a"].endswith("⇑") and lines["c"].endswith("⇓") and lines["b"][-1].isdigit()
    assert "70.4" in lines["a"] and lines["cross-entropy"][-1].isdigit()
    few = {f: t["p_holm"] for f, t in report.against_plain(
        report.best_settings(many, "balanced accuracy"), "balanced accuracy").items()}
    assert few["b"] == max(few.values()) and few["a"] < 0.05


def test_a_loss_that_computes_more_costs_more():
    def heavy(y, z):
        return tf.reduce_sum(tf.linalg.matmul(z[0, 0] * big, big)) + im.WeightedCrossentropy()(y, z)
    big = tf.random.stateless_normal([300, 300], [1, 2])
    costs = cost.cost_per_step({"plain | ": im.WeightedCrossentropy(), "heavy | ": heavy}, 4, 8,
                               rounds=15)
    assert costs["heavy"] > costs["plain"]


def test_several_labels_are_learnt_and_measured():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6)).astype("float32")
    labels = {s: (x[:, :3] > 0.8).astype("int32") for s in ("train", "dev", "test")}
    found = study.run_several_labels({s: x for s in labels}, labels, [1, 2], 100, 32, 0.05,
                                     ["focal"])
    assert {n.split(" | ")[0] for n in found["names"]} == {
        "multi-label softmax", "binary cross-entropy", "focal"}
    best = study.chosen(found, "macro F1")["multi-label softmax"]["test"]
    assert min(best["macro F1"]) > 0.85 and min(best["micro F1"]) > 0.85
    with pytest.raises(InputError, match="no loss 'dice' here"):
        several_labels.set_losses(0.2, ["dice"])


def test_settings_are_chosen_on_dev_and_never_on_test():
    dev = [[[.1, .2], [.5, .3], [.4, .4]], [[.1, .2], [.5, .3], [.4, .4]]]
    test = [[[.1, .2], [.0, .9], [.9, .9]], [[.1, .2], [.1, .9], [.9, .9]]]
    found = study.chosen(group(dev, test), "balanced accuracy")["focal"]
    assert (found["setting"], found["steps"]) == ("1", 10)
    assert found["test"]["balanced accuracy"] == [0.0, 0.1]
    assert study.chosen(group(dev, test), "balanced accuracy",
                        {"focal": ("2",)})["focal"]["setting"] == "2"


def test_statements_are_judged_by_the_rule():
    claim = next(c for c in study.CLAIMS if (c.a, c.b) == ("focal", "cross-entropy"))
    noise = np.array([0, .01, .02])
    for gain, word in ((0.1, "holds"), (-0.1, "does not")):
        dev = np.stack([.5 + noise, .5 + gain + noise[::-1] / 9 + noise, .0 * noise], 1)
        judged = study.judge(claim, {"x": group(np.repeat(dev[..., None], 2, -1))})
        assert judged["verdict"] == word
    level = group(np.full((3, 3, 2), .5))
    assert study.judge(claim, {"x": {**level, "counts": [5, 5]}}) is None      # no imbalance
    up = {"difference": .1, "p": .01}
    noisy, down = {"difference": .01, "p": .4}, {"difference": -.1, "p": .01}
    rule = lambda c, *votes: claims.verdict_of(c, dict(enumerate(votes)))["verdict"]  # noqa: E731
    assert rule(claim, up, up, noisy) == "holds" and rule(claim, up, noisy, noisy) == "unclear"
    assert rule(claim, up, up, down) == "unclear" and rule(claim, up, down, down) == "does not"
    equal = next(c for c in study.CLAIMS if c.expected == "equal")
    near = {"difference": equal.margin / 2, "p": .01}
    assert rule(equal, near, near, near, up) == "holds" and rule(equal, up, up, near) == "does not"
    steps = group([[[.1, .5], [.0, .0], [.0, .0]]] * 2,
                  names=("cross-entropy | ", "hard truncated | ", "focal | 2"))
    assert study.steps_claim({"x": steps})["verdict"] == "holds"
    steps["dev"][:, 1, 0, 1] = .6
    assert study.steps_claim({"x": steps})["verdict"] == "does not"


def test_latent_semantics_are_the_singular_vectors():
    rng = np.random.default_rng(0)
    from scipy import sparse
    matrix = rng.normal(size=(60, 8)) @ np.diag(2.0 ** -np.arange(8)) @ rng.normal(size=(8, 40))
    found = features.leading_directions(sparse.csr_matrix(matrix), 3)
    exact = np.linalg.svd(matrix)[2][:3].T
    np.testing.assert_allclose(np.abs((found * exact).sum(0)), 1, atol=1e-3)
    counts = features.ngram_counts(["天天", "天"]).toarray()
    assert sorted(counts[0][counts[0] > 0]) == [1, 2] and counts[1].sum() == 1


def test_pulls_in_the_picture_are_the_derivatives():
    p = np.linspace(0.002, 0.998, 50)
    curves = plots.gradient_curves(50)
    np.testing.assert_allclose(curves["cross-entropy"], [1 - p, p], rtol=1e-6)
    np.testing.assert_allclose(curves["smooth accuracy"], [p * (1 - p)] * 2, rtol=1e-6)
    np.testing.assert_allclose(curves["F1-weighted, F=0.3"], [0.85 * (1 - p), 0.15 * p], rtol=1e-5)
    np.testing.assert_allclose(curves["smooth F1, F=0.3"],
                               2 * p * (1 - p) * np.array([[0.85], [0.15]]), rtol=1e-5)
    assert (curves["dice, self-adjusting"][0][p > 0.52] < 0).all()


def test_the_gaussian_task_knows_its_best_and_the_study_comes_close(tmp_path):
    """A group end to end, and back from its file."""
    corpus = study.gaussian_corpus(classes=3, dimensions=4, head=200, rows=200)
    calls = []

    def make():
        calls.append(1)
        return study.run_group(corpus, 20, [1, 2], 60, 64, 0.02, ["focal", "smooth F1"])

    group = kept.kept_group(tmp_path / "g.npz", {"steps": 60}, True, make)
    again = kept.kept_group(tmp_path / "g.npz", {"steps": 60}, True, make)
    assert len(calls) == 1 and again["names"] == group["names"]
    assert np.array_equal(again["test"], group["test"]) and again["counts"] == group["counts"]
    with pytest.raises(InputError, match="other settings"):
        kept.kept_group(tmp_path / "g.npz", {"steps": 61}, True, make)
    found = study.chosen(group, "balanced accuracy")
    bound = study.bayes_measures(corpus, 20, [1, 2], "balanced")["balanced accuracy"]
    adjusted = found["logit adjusted"]["test"]["balanced accuracy"]
    assert np.mean(bound) - 0.05 < np.mean(adjusted) < np.mean(bound) + 0.02
    overall = study.bayes_measures(corpus, 20, [1, 2], "overall")
    assert np.mean(overall["accuracy"]) > np.mean(
        study.bayes_measures(corpus, 20, [1, 2], "balanced")["accuracy"])
    assert runs.AFTERWARDS[0] in group["names"]


def tiny_bert():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"天地人山水火"]
    return random_bert("bert", tokens, layers=1, hidden=8, heads=2, intermediate=8)


def test_hidden_states_are_averaged_over_the_tokens_and_come_back_in_order():
    folder, texts = tiny_bert(), ["天地人山", "水", "火山"]
    found = features.bert_features(texts, folder, maxlen=16, batch_size=2)
    model = load_bert(folder).model
    for row, text in zip(found, texts):                 # one at a time: no padding at all
        ids = [[2, *("天地人山水火".index(c) + 5 for c in text), 3]]
        hidden = model.predict_on_batch([np.array(ids), np.zeros_like(ids)])[0]
        np.testing.assert_allclose(row, hidden.mean(0), rtol=1e-4, atol=1e-5)


def test_fine_tuning_learns_and_resumes(tmp_path):
    rng = np.random.default_rng(0)
    words = np.array([list("天地"), list("人山"), list("水火")])
    labels = {s: np.repeat([0, 1, 2], n) for s, n in (("train", 24), ("dev", 6), ("test", 6))}
    texts = {s: ["".join(rng.choice(words[c], 4)) for c in y] for s, y in labels.items()}
    corpus = study.Corpus("toy", 24, [0, 1, 2], texts, labels, {})
    bert = tiny_bert()

    def run(resume, epochs=8):
        training = fine_tuning.Training(bert, epochs, 0.02, 8)
        return fine_tuning.run_fine_tuned(corpus, 4, [1], training, ["cross-entropy"], tmp_path,
                                          resume)
    group = run(False)
    assert group["names"] == ["cross-entropy | ", "logit adjusted | tau=1",
                              "cross-entropy, adjusted post hoc | tau=1",
                              "logit adjusted, rule overall | tau=1"]
    assert group["test"].shape == (1, 4, 8, len(study.MEASURES))
    assert study.chosen(group, "balanced accuracy")["logit adjusted"]["test"][
        "balanced accuracy"][0] > 0.6          # chance is a third
    np.testing.assert_array_equal(run(True)["test"], group["test"])
    assert run(True, epochs=1)["test"].shape[2] == 1          # other settings: trained anew
    with pytest.raises(InputError, match="no loss 'dice' here"):
        fine_tuning.run_fine_tuned(corpus, 4, [1], fine_tuning.Training(bert, 1, .1), ["dice"])
    with pytest.raises(InputError, match="no classes to fine-tune on"):
        fine_tuning.run_fine_tuned(None, 4, [1], fine_tuning.Training(bert, 1, .1))


def test_script_says_what_is_missing_in_one_line(monkeypatch, capsys):
    line = refusal(monkeypatch, capsys, "imbalance", "--fine_tune")
    assert line.startswith("error: no texts")
    line = refusal(monkeypatch, capsys, "imbalance", "--bert_dir", "nowhere")
    assert line.startswith("error: n-grams need no model")


def test_script_runs_on_own_data(tmp_path, monkeypatch, capsys):
    """Several classes from a folder in CLUE's layout; everything that is promised is written."""
    words = ["红橙黄绿", "鱼鸟虫兽", "山水风云"]
    for split, rows in (("train", 40), ("dev", 12), ("test", 12)):
        (tmp_path / "own").mkdir(exist_ok=True)
        with open(tmp_path / "own" / f"{split}.json", "w", encoding="utf-8") as file:
            for i in range(rows * 3):
                w = words[i % 3]
                text = w[i % 4] + w[i // 4 % 4] + split + str(i)
                file.write(json.dumps({"label": f"c{i % 3}", "sentence": text}) + "\n")
    run_script(monkeypatch, "imbalance", "--data_dir", tmp_path, "--task", "own", "--imbalance",
               100, "--steps", 25, "--seed", 1, "--seed", 2, "--loss", "focal", "--output_dir",
               tmp_path / "out")
    printed = capsys.readouterr().out
    assert "own 1:40:" in printed                          # no more than 40 rows a class
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    values = {(r["name"], r["metric"]): r for r in record["rows"]}
    row = values["own 1:40, logit adjusted", "balanced accuracy"]
    assert 0 < row["value"] <= 1 and row["seeds"] == [1, 2] and row["published"] is None
    assert {"tests", "settings_chosen", "statements", "microseconds_a_step"} <= set(record)
    shown = f"{100 * row['value']:.1f} ± {100 * row['std']:.1f}"
    assert shown in (tmp_path / "out" / "tables.md").read_text() and shown in printed
    for name in ("gradients", "balanced_accuracy", "thirds_own"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_real_tasks_are_as_long_tailed_as_they_say(real_data):
    corpus = study.load_corpus(real_data, "tnews")
    assert len(corpus.classes) == 14 and "114" not in corpus.classes
    assert set(corpus.texts["train"]).isdisjoint(corpus.texts["test"])
    task = study.cut(corpus.labels, study.long_tail_counts(14, 100, corpus.head), 1)
    assert np.bincount(task.labels["train"])[[0, -1]].tolist() == [900, 9]
    assert tf.executing_eagerly()

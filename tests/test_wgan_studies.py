"""What the studies measure with: quality, centres, verdicts, records, and the script."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from bert_theseus import wgan
from bert_theseus.errors import InputError
from bert_theseus.wgan import centers, statements, static, studies, training

from running import refusal, run_script


def test_nearest_neighbour_accuracy_by_brute_force_and_at_its_ends():
    random = np.random.RandomState(0)
    x, y = random.randn(20, 2), random.randn(20, 2) + 1
    both, told = np.concatenate([x, y]), 0
    for i in range(40):
        others = [j for j in range(40) if j != i]
        nearest = min(others, key=lambda j: np.sum((both[i] - both[j]) ** 2))
        told += (i < 20) == (nearest < 20)
    assert wgan.nearest_neighbour_accuracy(x, y) == told / 40
    same = [wgan.nearest_neighbour_accuracy(*random.randn(2, 100, 2)) for _ in range(10)]
    assert abs(np.mean(same) - 0.5) < 0.05
    assert wgan.nearest_neighbour_accuracy(x, x + 1e-6) == 0.     # copies: each finds its twin


def test_mode_coverage_counts_modes_and_samples():
    world = wgan.ring_world(500, 100)
    full = world.measures(wgan.ring(2000))
    assert full["mode coverage"] == 1 and full["on a mode"] > 0.97
    one = world.measures(np.tile(wgan.ring_centers()[:1], (50, 1)))
    assert one == {"mode coverage": 1 / 8, "on a mode": 1.}


def test_classifier_knows_the_digits_and_sees_a_collapse():
    images, labels = wgan.digits()
    opinion = wgan.classifier_opinion(images[:600], labels[:600])
    real, zeros = opinion(images[600:900]), opinion(images[labels == 0][:100])
    assert real["confidence"] > 0.85 and real["diversity"] > 0.95 and zeros["diversity"] < 0.2


def test_geometric_median_and_k_medians_are_stationary():
    x = np.random.RandomState(0).randn(300, 3) ** 3
    median = wgan.geometric_median(x, 500)
    pull = np.sum((x - median) / np.linalg.norm(x - median, axis=1, keepdims=True), 0)
    assert np.linalg.norm(pull) < 1e-3 * len(x)
    distance = lambda c: cdist(x, c).min(1).mean()  # noqa: E731
    assert distance(wgan.k_medians(x, 6)) < distance(wgan.k_means(x, 6))
    np.testing.assert_allclose(wgan.k_means(x, 1)[0], x.mean(0), atol=1e-9)


def test_batch_effect_against_its_definition():
    data = np.random.RandomState(0).randn(60, 5)
    (record,) = wgan.batch_effect(data, [20], seeds=[3], k=4)
    order = np.random.RandomState(3).permutation(60)
    batch, other = data[order[:20]], data[order[20:40]]
    assert record["batch"] == [wgan.exact_wasserstein(batch, other)]
    to_mean = np.linalg.norm(batch - data.mean(0), axis=1).mean()
    assert abs(record["mean"][0] - to_mean) < 1e-9
    middle = wgan.k_means(data, 4)
    served = np.bincount(cdist(data, middle).argmin(1), minlength=4)
    copies = np.repeat(middle, served, 0)
    assert abs(record["k-means"][0] - wgan.exact_wasserstein(batch, copies)) < 1e-9


def test_high_dimension_puts_batches_farther_apart_than_batch_and_mean():
    ratio = {}
    for d in (1, 128):
        (effect,) = wgan.batch_effect(wgan.shifted_gaussians(d, 200)[0], [32], range(3), 4)
        ratio[d] = np.mean(np.divide(effect["batch"], effect["mean"]))
    assert ratio[1] < 1 < ratio[128] < 2 ** 0.5 + 0.05     # |x − y| = √2 |x − mean| at most


def test_shift_is_farther_than_the_twin_of_another_class():
    images = np.zeros([2, 4, 4])
    images[:, :, 1] = 1.
    assert wgan.shift_beats_class(images, np.array([0, 1])) == 1.
    images[1, :, 1], images[1, :, 2] = 0., 5.
    assert wgan.shift_beats_class(images, np.array([0, 1])) == 0.5


def test_shifted_gaussians_have_the_distance_they_claim():
    x, y = wgan.shifted_gaussians(4, 3000, shift=2.)
    assert abs(np.linalg.norm(y.mean(0) - x.mean(0)) - 2) < 0.1
    record = {"d": wgan.gaussian_wasserstein(np.zeros(4), np.eye(4), np.ones(4), np.eye(4))}
    assert abs(record["d"] - 2) < 1e-12


def test_static_estimates_know_their_truth():
    record = wgan.static_estimates(2, 60, [0, 1], ["c_transform", "c_epsilon_transform",
                                                   "gradient_penalty"], steps=150)
    x, y = wgan.shifted_gaussians(2, 60, seed=1)
    assert record["exact"][1] == wgan.exact_wasserstein(x, y)
    assert abs(record["population"] - 3) < 1e-12
    for values in record["certified"].values():
        assert (np.asarray(values) <= np.asarray(record["exact"]) + 1e-4).all()
    assert statements.estimation_error(record["estimates"]["c_transform"],
                                       record["exact"]).max() < 0.05


def test_certified_bounds_by_hand():
    look = {"estimate": np.array([2.]), "slope": np.array([4.])}
    assert static.certified("clipping", look, 10) == [0.5]
    assert static.certified("c_transform", look, 10) == [2.]
    assert static.certified("c_epsilon_transform", look, 10) == [2 - 0.1 * np.log(10)]


def tiny_world(name="tiny"):
    return wgan.World(name, wgan.ring(80, 1), wgan.ring(30, 2), lambda samples: {"mean": 1.})


@pytest.fixture(scope="module")
def tiny_result():
    return wgan.train(tiny_world(), "gradient_penalty", [0, 1], steps=4, records=2, batch_size=8)


def test_records_hold_estimates_beside_the_truth_of_the_same_sets(tiny_result):
    world = tiny_world()
    trainer = wgan.make_trainer(world, "gradient_penalty", [0, 1], learning_rate=None)
    trainer.run(world.train, 4, 8)
    last, fake = tiny_result["records"][-1], trainer.generate(30, stream=2)
    assert [record["step"] for record in tiny_result["records"]] == [2, 4]
    assert abs(last["large exact"][1] - wgan.exact_wasserstein(world.held_out, fake[1])) < 1e-6
    assert abs(last["large estimate"][1] - trainer.look(world.held_out, fake)["estimate"][1]) < 1e-5
    assert last["1-NN accuracy"][0] == wgan.nearest_neighbour_accuracy(world.held_out, fake[0])
    assert tiny_result["samples"].shape == (2, 64, 2)


def test_a_part_is_read_only_with_resume_and_the_same_settings(tiny_result):
    calls = []
    compute = lambda: calls.append(1) or dict(tiny_result)  # noqa: E731
    cases = ((True, {"a": 1}, 1), (True, {"a": 1}, 1), (True, {"a": 2}, 2), (False, {"a": 2}, 3))
    for resume, settings, expected in cases:
        part = studies.Parts(Path("."), resume).get("x", settings, compute)
        assert len(calls) == expected and part["records"] == tiny_result["records"]
        np.testing.assert_allclose(part["samples"], tiny_result["samples"], rtol=1e-6)


def test_divergence_stops_with_the_reason_and_the_records():
    with pytest.raises(wgan.Diverged, match="gan: .* no longer finite by step .*seeds 0") as caught:
        wgan.train(tiny_world(), "gan", [0], 40, records=8, batch_size=8, learning_rate=1e30)
    assert caught.value.step in range(5, 41, 5) and isinstance(caught.value.records, list)


def fake_result(error, told_apart, seeds=4):
    noise = 0.01 * np.arange(seeds)
    record = {"step": 1, "exact": [2.] * seeds, "estimate": (2 * (1 + error + noise)).tolist(),
              "large exact": [1.] * seeds, "1-NN accuracy": (told_apart + noise).tolist()}
    return {"records": [record], "end": {}}


def test_verdicts_follow_the_numbers():
    results = {"gradient_penalty": fake_result(1., 0.6), "c_transform": fake_result(0., 0.9),
               "gan": fake_result(0., 0.9), "gan_spectral_norm": fake_result(0., 0.7)}
    held = {v.claim: v.verdict for v in statements.training_verdicts(results)}
    assert held["in training: the c-transform follows W, WGAN-GP does not"] == "holds"
    assert held["WGAN-GP's samples are better than the c-transform's"] == "holds"
    assert held["a better estimate does not go with better samples"] == "holds"
    assert held["the Lipschitz constraint helps the plain GAN"] == "holds"
    results["gradient_penalty"], results["c_transform"] = (results["c_transform"],
                                                           results["gradient_penalty"])
    results["gan_spectral_norm"] = fake_result(0., 0.95)
    turned = {v.claim: v.verdict for v in statements.training_verdicts(results)}
    assert turned["in training: the c-transform follows W, WGAN-GP does not"] == "does not hold"
    assert turned["WGAN-GP's samples are better than the c-transform's"] == "does not hold"
    assert turned["the Lipschitz constraint helps the plain GAN"] == "does not hold"


def test_interval_covers_as_often_as_it_says():
    random = np.random.RandomState(0)
    covered = [low < 0 < high for _, low, high in
               (statements.interval(random.randn(10)) for _ in range(1000))]
    assert 0.92 < np.mean(covered) < 0.98


def test_images_from_folder_and_npz():
    from PIL import Image
    Path("images/a").mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (20, 12), (255, 0, 51 * i)).save(f"images/a/{i}.png")
    images = wgan.load_images("images", size=8)
    assert images.shape == (3, 8, 8, 3) and abs(images[2, 4, 4] - [1, 0, 0.4]).max() < 1e-6
    np.savez("x.npz", images=np.full([4, 8, 8], 255, "uint8"))
    assert wgan.load_images("x.npz").shape == (4, 8, 8, 1) and wgan.load_images("x.npz").max() == 1.


def test_script_leaves_tables_figures_and_a_record(monkeypatch, capsys):
    run_script(monkeypatch, "wgan", "--output_dir", "out", "--steps", 2, "--critic_training", 2,
               "--seed", 0, "--seed", 1, "--method", "c_transform", "--study", "digits")
    record = json.loads(Path("out/results.json").read_text(encoding="utf-8"))
    assert record["article"] == 8244 and len(record["statements"]) == 6
    assert {row["metric"] for row in record["rows"]} >= {"large exact", "confidence", "share"}
    assert {p.name for p in Path("out").glob("*.*")} >= {"samples.png", "training.png", "steps.csv"}
    assert "not testable here" in capsys.readouterr().out


def bad_npz():
    np.savez("bad.npz", images=np.full([4, 8, 8], np.nan))
    return "bad.npz"


@pytest.mark.parametrize("arguments, words", [
    (lambda: ["--method", "hinge"], "unknown method 'hinge', method, use one of clipping"),
    (lambda: ["--study", "images"], "without data"),
    (lambda: ["--study", "images", "--data_dir", "nowhere"], "no such folder or file, nowhere"),
    (lambda: ["--study", "images", "--data_dir", bad_npz()], "NaN or infinity in the data"),
    (lambda: ["--batch_size", "1", "--method", "gan"], "a batch of 1"),
    (lambda: ["--learning_rate", "-1"], "--learning_rate"),
    (lambda: ["--bert_dir", "x"], "no BERT"),
    (lambda: ["--learning_rate", "1e30", "--method", "gan", "--seed", "0"], "no longer finite"),
])
def test_bad_input_ends_with_one_line_and_status_2(arguments, words, monkeypatch, capsys):
    assert words in refusal(monkeypatch, capsys, "wgan", "--output_dir", "out", *arguments())


def test_centers_of_too_few_points_are_refused():
    with pytest.raises(InputError, match="5 centres for 3 points"):
        centers.k_means(np.zeros([3, 2]), 5)
    with pytest.raises(InputError, match="two batches of 2 from 3 samples"):
        wgan.batch_effect(np.zeros([3, 2]), [2], [0], 1)


def test_images_train_one_seed_after_the_other():
    world = wgan.images_world(np.random.RandomState(0).rand(40, 4, 4, 1).astype("float32"))
    result = training.train(world, "c_transform", [0, 1], steps=1, records=1, batch_size=4)
    assert len(result["records"][0]["exact"]) == 2 and result["end"] == {}
    assert result["samples"].shape == (2, 64, 4, 4, 1)

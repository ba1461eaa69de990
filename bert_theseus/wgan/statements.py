"""The six statements of kexue.fm/archives/8244, each against measured numbers.

1. The c-transform follows the Wasserstein distance, WGAN-GP does not.
2. The better estimator does not give the better samples.
3. Practice is not theory: the critic is not trained to the end, and batches are not the set.
4. Two real batches are farther apart than a batch and the mean (or cluster centres).
5. Distance on pixels is not likeness; c-transform samples resemble k-means centres.
6. The Lipschitz constraint is what helps; it helps the plain GAN too.

A statement holds when the 95 % interval (Student's t over the seeds, paired where both sides have
the same seeds) lies on its side; a part that is asked of several quantities must hold in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

HOLDS, FAILS, UNTESTABLE = "holds", "does not hold", "not testable here"


@dataclass(frozen=True)
class Verdict:
    """A statement's number, its part, the verdict and the numbers it stands on."""

    statement: int
    claim: str
    verdict: str
    numbers: str


STATEMENTS = {
    1: "the c-transform follows W, WGAN-GP does not",
    2: "the better estimator does not give the better samples",
    3: "practice is not theory: no best critic, batches instead of the set",
    4: "two real batches are farther apart than a batch and the mean or centres",
    5: "pixel distance is not likeness; c-transform samples resemble k-means centres",
    6: "the Lipschitz constraint is what helps, in the plain GAN too",
}


def summary(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """One verdict for each of the six: it holds when all its parts here hold.

    A statement without a part in this study is not testable here.

    >>> [v.verdict for v in summary([judge(4, "part", {"ratio − 1": [0.2, 0.21]})])][2:5]
    ['not testable here', 'holds', 'not testable here']
    """
    lines = []
    for number, claim in STATEMENTS.items():
        parts = [v for v in verdicts if v.statement == number and v.verdict != UNTESTABLE]
        held = sum(v.verdict == HOLDS for v in parts)
        verdict = UNTESTABLE if not parts else HOLDS if held == len(parts) else FAILS
        lines.append(Verdict(number, claim, verdict, f"{held} of {len(parts)} parts hold"
                             if parts else "no part of it in this study"))
    return lines


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean and its Student-t interval: (mean, low, high); needs two finite values at least.

    >>> [round(x, 2) for x in interval([1., 2., 3.])]
    [2.0, -0.48, 4.48]
    """
    values = np.asarray(values, "float64")
    half = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) \
        * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def judge(statement: int, claim: str, differences: dict[str, Sequence[float]]) -> Verdict:
    """Holds when every difference is positive beyond its interval; one value a seed each.

    >>> judge(4, "ratio above 1", {"ratio − 1": [0.2, 0.3, 0.25]}).verdict
    'holds'
    >>> judge(4, "ratio above 1", {"ratio − 1": [0.2, -0.3, 0.25]}).verdict
    'does not hold'
    """
    usable = {name: np.asarray(v, "float64") for name, v in differences.items() if len(v) > 1}
    if not usable:
        return Verdict(statement, claim, UNTESTABLE, "fewer than two seeds")
    results = {name: interval(values) for name, values in usable.items()}
    verdict = HOLDS if all(low > 0 for _, low, _ in results.values()) else FAILS
    numbers = "; ".join(f"{name} {mean:.3g} [{low:.3g}, {high:.3g}]"
                        for name, (mean, low, high) in results.items())
    return Verdict(statement, claim, verdict, numbers)


def estimation_error(estimates, exact) -> np.ndarray:
    """|estimate / exact − 1|, elementwise: 0 is perfect, 1 as bad as saying 0."""
    return np.abs(np.asarray(estimates, "float64") / np.asarray(exact, "float64") - 1)


def mean_error(result: dict, last: float = 0.5) -> np.ndarray:
    """Estimation error on batches, averaged over the last part of a run: one number a seed."""
    records = result["records"][int(len(result["records"]) * (1 - last)):]
    return np.mean([estimation_error(r["estimate"], r["exact"]) for r in records], axis=0)


def final(result: dict, name: str) -> np.ndarray:
    """A measure at the end of a run: one number a seed."""
    return np.asarray(result["records"][-1][name], "float64")


def static_verdict(static: Sequence[dict]) -> Verdict:
    """Statement 1 between fixed sets: the gradient penalty's error minus the c-transform's."""
    differences = {}
    for record in static:
        errors = {name: estimation_error(record["estimates"][name], record["exact"])
                  for name in ("gradient_penalty", "c_transform")}
        differences[f"error GP − error c, d={record['dimension']} n={record['count']}:"] = \
            errors["gradient_penalty"] - errors["c_transform"]
    return judge(1, "fixed sets: the c-transform follows W, WGAN-GP does not", differences)


def training_verdicts(results: dict[str, dict]) -> list[Verdict]:
    """Statements 1, 2, 3 and 6 from training runs: {method: result of ``training.train``}."""
    gp, c = results["gradient_penalty"], results["c_transform"]
    verdicts = [
        judge(1, "in training: the c-transform follows W, WGAN-GP does not",
              {"error GP − error c:": mean_error(gp) - mean_error(c)}),
        judge(2, "WGAN-GP's samples are better than the c-transform's",
              {"1-NN c − 1-NN GP:": final(c, "1-NN accuracy") - final(gp, "1-NN accuracy")}),
        judge(2, "WGAN-GP ends nearer in exact W than the c-transform",
              {"W c − W GP:": final(c, "large exact") - final(gp, "large exact")}),
        correlation_verdict(results)]
    if gp["end"]:
        verdicts += practice_verdicts(gp)
    return verdicts + [
        lipschitz_verdict(results, "1-NN accuracy", "the Lipschitz constraint helps the plain GAN"),
        lipschitz_verdict(results, "large exact", "the Lipschitz constraint brings the plain GAN "
                          "nearer in exact W")]


def correlation_verdict(results: dict[str, dict]) -> Verdict:
    """Statement 2: rank correlation of estimation error and 1-NN accuracy, methods × seeds.

    Only methods that claim to estimate a distance or a multiple of it take part. If a better
    estimate gave better samples both would fall together: correlation clearly above 0.
    """
    names = [name for name in results if not name.startswith("gan")]
    errors = np.concatenate([mean_error(results[name]) for name in names])
    told_apart = np.concatenate([final(results[name], "1-NN accuracy") for name in names])
    per_method = [[f(results[name]).mean() for name in names] for f in
                  (mean_error, lambda result: final(result, "1-NN accuracy"))]
    rank, chance = scipy.stats.spearmanr(errors, told_apart)
    over_methods = scipy.stats.spearmanr(*per_method)[0]
    verdict = FAILS if rank > 0 and chance < 0.05 else HOLDS
    return Verdict(2, "a better estimate does not go with better samples", verdict,
                   f"Spearman ρ(error, 1-NN accuracy) = {rank:.2f} (p = {chance:.2g}) over "
                   f"{len(errors)} runs, {over_methods:.2f} over {len(names)} method means")


def practice_verdicts(result: dict) -> list[Verdict]:
    """Statement 3 for one method: critic to the end against the training one; batch against set."""
    end = {name: np.asarray(values) for name, values in result["end"].items()}
    gap = np.abs(end["before"] - end["after"]) / end["exact"]
    return [judge(3, "the training critic is not the best critic (WGAN-GP)",
                  {"|before − after| / exact − 0.05:": gap - 0.05}),
            judge(3, "batches are not the set (WGAN-GP)",
                  {"exact batch / exact large − 1:":
                   final(result, "exact") / final(result, "large exact") - 1})]


def lipschitz_verdict(results: dict[str, dict], measure: str, claim: str) -> Verdict:
    """Statement 6: a measure (less is better) of the plain GAN minus that with a constraint."""
    plain = final(results["gan"], measure)
    return judge(6, claim, {
        f"{measure}, plain − with {name.removeprefix('gan_')}:": plain - final(result, measure)
        for name, result in results.items() if name.startswith("gan_")})


def batch_verdicts(effects: Sequence[dict], label: str) -> list[Verdict]:
    """Statement 4, for one data set: W(batch, batch) / W(batch, target) − 1 at every batch size."""
    return [judge(4, f"{label}: two batches are farther apart than a batch and the {target}",
                  {f"ratio − 1 at {e['batch_size']}:": np.divide(e["batch"], e[target]) - 1
                   for e in effects}) for target in ("mean", "k-means", "k-median")]


def center_verdict(distances: dict[str, Sequence[float]], held_out: float) -> Verdict:
    """Statement 5: samples' mean distance to the nearest k-means centre, against real data's.

    distances: {"c_transform": [a value a seed], "gradient_penalty": […]}; held_out: of real data.
    """
    c, gp = (np.asarray(distances[name]) for name in ("c_transform", "gradient_penalty"))
    claim = "c-transform samples are nearer to k-means centres than WGAN-GP's and real data"
    return judge(5, claim, {"(GP − c) / real:": (gp - c) / held_out,
                            "1 − c / real:": 1 - c / held_out})


def pixel_verdict(share: float, count: int) -> Verdict:
    """Statement 5: share of images for which a one-pixel shift is farther than another class."""
    half = 1.96 * np.sqrt(share * (1 - share) / count)
    return Verdict(5, "pixel distance is not likeness: a one-pixel shift is farther than the "
                   "nearest other digit, for most images", HOLDS if share - half > 0.5 else FAILS,
                   f"share {share:.3f} ± {half:.3f} of {count} images")

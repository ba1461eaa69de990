"""Statements of the four articles that measurements can test, and what the runs say of them.

Each is a comparison of two losses (each at the setting that dev chose for the measure, or at a
setting named here) by a measure. A group — a task at one imbalance — votes with a paired test
over seeds; the verdict follows from the votes by a fixed rule, :func:`verdict_of`.
"""

from dataclasses import dataclass

import numpy as np

from bert_theseus.imbalance.study.measures import LOWER_IS_BETTER, paired_test
from bert_theseus.imbalance.study.runs import chosen, steps_to_reach
from bert_theseus.imbalance.study.settings import OVERALL, POST_HOC

CE, LA = "cross-entropy", "logit adjusted"


@dataclass(frozen=True)
class Claim:
    """Article, statement, and the comparison: ``a`` against ``b`` by ``measure``.

    expected:   "better" (a above b) or "equal" (no difference beyond ``margin`` either way).
    a_settings: settings of ``a`` that dev may choose from, all if empty; b_settings: those of b.
    """

    article: int
    text: str
    a: str
    b: str
    measure: str
    expected: str = "better"
    margin: float = 0.01
    a_settings: tuple = ()
    b_settings: tuple = ()


CLAIMS = (
    Claim(7708, "cross-entropy (log p) learns where smooth accuracy (p) has no gradient",
          CE, "smooth accuracy", "balanced accuracy"),
    Claim(7708, "F1-weighted cross-entropy helps F1 at the training set's frequencies",
          "F1-weighted", CE, "macro F1"),
    Claim(7708, "F1-weighted cross-entropy helps F1 on a balanced test",
          "F1-weighted", CE, "macro F1, balanced test"),
    Claim(7708, "F1-weighted cross-entropy (log p) is better than smooth F1 itself (p)",
          "F1-weighted", "smooth F1", "macro F1"),
    Claim(7708, "larger margins for rare classes (balls) help balanced accuracy",
          "margin (-log prior)", CE, "balanced accuracy"),
    Claim(7708, "the prior inside the logarithm is better than weights outside it",
          LA, "class weights", "balanced accuracy"),
    Claim(4733, "focal loss helps against cross-entropy", "focal", CE, "balanced accuracy"),
    Claim(4733, "alpha = 0.5 (no weight) is as good for focal loss as a tuned alpha",
          "focal", "focal", "macro F1", "equal", a_settings=tuple(
              f"gamma={gamma:g}, alpha=0.5" for gamma in (0.5, 1, 2))),
    Claim(4733, "soft truncation, in its form for several classes, does what focal loss does",
          "soft truncated", "focal", "balanced accuracy", "equal"),
    Claim(4733, "soft truncation at the log-odds of the target does what focal loss does",
          "soft truncated, odds", "focal", "balanced accuracy", "equal"),
    Claim(4733, "hard truncation reaches what cross-entropy reaches",
          "hard truncated", CE, "balanced accuracy", "equal"),
    Claim(7615, "balanced accuracy: argmax f (adjusted loss) beats plain cross-entropy",
          LA, CE, "balanced accuracy", a_settings=("tau=1",)),
    Claim(7615, "balanced accuracy: argmax f beats argmax f + log p",
          LA, OVERALL, "balanced accuracy", a_settings=("tau=1",)),
    Claim(7615, "overall accuracy: argmax f + log p beats argmax f",
          OVERALL, LA, "accuracy", b_settings=("tau=1",)),
    Claim(7615, "tau = 1 is as good as a tau tuned on dev (post hoc)",
          POST_HOC, POST_HOC, "balanced accuracy", "equal", a_settings=("tau=1",)),
    Claim(7615, "tau = 1 is as good as a tau tuned on dev (in the loss)",
          LA, LA, "balanced accuracy", "equal", a_settings=("tau=1",)),
    Claim(7615, "adjusting the loss and adjusting after training agree",
          LA, POST_HOC, "balanced accuracy", "equal",
          a_settings=("tau=1",), b_settings=("tau=1",)),
    Claim(7359, "the softmax loss for several labels needs no weights: as good as tuned ones",
          "multi-label softmax", "tuned positive weight", "macro F1", "equal"),
    Claim(7359, "and better than binary cross-entropy without weights",
          "multi-label softmax", "binary cross-entropy", "macro F1"),
)


def judge(claim: Claim, groups: dict) -> dict | None:
    """The votes of all groups that have both losses, and the verdict; None where none has.

    groups: name → group of :func:`run_group`. Equal classes (imbalance 1) do not vote, nor do
    groups in which both sides of the claim are one and the same setting.
    """
    votes = {name: vote for name, vote in ((n, _vote(claim, g)) for n, g in groups.items()) if vote}
    if not votes:
        return None
    return {"article": claim.article, "statement": claim.text, "measure": claim.measure,
            "votes": votes, **verdict_of(claim, votes)}


def _vote(claim: Claim, group: dict) -> dict | None:
    """The paired test of a against b in this group, None if it has no say."""
    sides = ((claim.a, claim.a_settings), (claim.b, claim.b_settings))
    offered = [[s for f, s in (n.split(" | ") for n in group["names"]) if f == family
                and (not settings or s in settings)] for family, settings in sides]
    alike = claim.a == claim.b and offered[0] == offered[1]
    if not all(offered) or alike or len(set(group["counts"])) == 1 or (
            claim.measure not in group["measures"]):
        return None
    values = [chosen(group, claim.measure, {family: tuple(names)})[family]["test"][claim.measure]
              for (family, _), names in zip(sides, offered)]
    sign = -1 if claim.measure in LOWER_IS_BETTER else 1
    return {**paired_test(*(sign * np.array(v) for v in values)),
            "a": float(np.mean(values[0])), "b": float(np.mean(values[1]))}


def verdict_of(claim: Claim, votes: dict) -> dict:
    """holds / does not / unclear, and the counts behind it.

    "better" holds if more than half of the groups are significantly better (p < 0.05) and none is
    significantly worse, does not if more than half are not better even in the mean, or more are
    significantly worse than better. "equal" holds if at least three quarters of the mean
    differences lie within the margin, does not if fewer than half do. Else unclear.
    """
    n = len(votes)
    significant = [v for v in votes.values() if v["p"] is not None and v["p"] < 0.05]
    up = sum(v["difference"] > 0 for v in significant)
    down = len(significant) - up
    if claim.expected == "equal":
        near = sum(abs(v["difference"]) <= claim.margin for v in votes.values())
        word = "holds" if near >= 0.75 * n else "does not" if near < n / 2 else "unclear"
        return {"verdict": word, "groups": n, "within margin": near, "margin": claim.margin,
                "significantly above": up, "significantly below": down}
    not_above = sum(v["difference"] <= 0 for v in votes.values())
    if up > n / 2 and not down:
        word = "holds"
    else:
        word = "does not" if not_above > n / 2 or down > up else "unclear"
    return {"verdict": word, "groups": n, "significantly above": up, "significantly below": down}


def steps_claim(groups: dict, share: float = 0.95) -> dict | None:
    """4733: hard truncation works but needs many more iterations.

    For each group: steps until the mean dev balanced accuracy first reaches ``share`` of the best
    that cross-entropy reaches, for both losses. Holds if hard truncation needs more steps (or
    never gets there) in more than half of the groups, does not if in fewer than a quarter.
    """
    votes = {}
    for name, group in groups.items():
        if not {"hard truncated | ", "cross-entropy | "} <= set(group["names"]):
            continue
        row = group["names"].index("cross-entropy | ")
        which = group["measures"].index("balanced accuracy")
        target = share * group["dev"][:, row, :, which].mean(0).max()
        votes[name] = {loss: steps_to_reach(group, loss, "", target)
                       for loss in ("cross-entropy", "hard truncated")}
    if not votes:
        return None
    more = sum(v["hard truncated"] is None or v["hard truncated"] > v["cross-entropy"]
               for v in votes.values())
    share_more = more / len(votes)
    word = "holds" if share_more > 0.5 else "does not" if share_more < 0.25 else "unclear"
    return {"article": 4733, "statement": "hard truncation needs more iterations", "votes": votes,
            "measure": f"steps to {share:.0%} of the best of cross-entropy", "verdict": word,
            "groups": len(votes), "need more steps": more}

"""One group of the study: a task at one imbalance, all seeds, all losses, all settings.

``run_group`` trains the heads and returns every measure of every setting at every snapshot, on
dev and on test; ``chosen`` picks each loss's setting on dev and gives its test values.
"""

import numpy as np

from bert_theseus import imbalance as im
from bert_theseus.imbalance.study.data import Corpus, cut, long_tail_counts
from bert_theseus.imbalance.study.heads import Heads, logits_of
from bert_theseus.imbalance.study.measures import (LOWER_IS_BETTER, MEASURES, best, confusion,
                                                   measure, thirds)
from bert_theseus.imbalance.study.settings import (ONE_HOT, OVERALL, POST_HOC, TAUS,
                                                   loss_settings)

AFTERWARDS = (*(f"{POST_HOC} | tau={tau:g}" for tau in TAUS), f"{OVERALL} | tau=1")
SNAPSHOTS = (25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)


def run_group(corpus: Corpus, imbalance: float, seeds, steps: int = 400, batch_size: int = 128,
              learning_rate: float = 0.003, only=None, progress=iter) -> dict:
    """Trains and measures; arrays [seeds, settings, snapshots, …] by split.

    only: names of losses (see :mod:`.settings`), all if None.

    Returns {"names", "measures", "snapshots", "counts", "dev", "test", "thirds"}; names are
    "family | setting", dev and test [seeds, names, snapshots, measures].
    """
    classes = len(corpus.classes)
    binary = classes == 2
    counts = long_tail_counts(classes, imbalance, corpus.head)
    losses = loss_settings(counts, binary, only)
    one_hot = [name for name in losses if name.split(" | ")[0] in ONE_HOT]
    heads = Heads(losses, corpus.features["train"].shape[-1], 1 if binary else classes,
                  learning_rate, one_hot)
    snapshots = [s for s in SNAPSHOTS if s < steps] + [steps]
    result = {"dev": [], "test": [], "thirds": []}
    for seed in progress(seeds):
        task = cut(corpus.labels, counts, seed, fixed_order=binary)
        x = standardised({split: corpus.features[split][task.rows[split]] for split in task.rows})
        weights = heads.train(x["train"], task.labels["train"], steps, batch_size, seed, snapshots)
        for split in ("dev", "test"):
            measured = [measure_all(logits_of(weights[s], x[split]), list(losses),
                                    task.labels[split], task.prior) for s in snapshots]
            result[split].append(np.stack([m for m, _ in measured], 1))
        result["thirds"].append(np.stack([t for _, t in measured], 1))
    return {"names": [*losses, *AFTERWARDS], "measures": list(MEASURES), "snapshots": snapshots,
            "counts": counts.tolist(), **{key: np.stack(value) for key, value in result.items()}}


def standardised(x: dict) -> dict:
    """Features with the mean and deviation of the *cut* training rows at 0 and 1.

    With those of the balanced rows the origin would lie between the classes, and a head that has
    not learned its bias would already know the threshold it is to find.
    """
    mean, std = x["train"].mean(0), x["train"].std(0) + 1e-6
    return {split: (part - mean) / std for split, part in x.items()}


def measure_all(logits, names, y, prior):
    """Measures [settings, measures] and thirds [settings, 3, 3] of logits [heads, rows, classes].

    After the heads come the predictions made otherwise from the same training, AFTERWARDS.
    """
    plain = logits[names.index("cross-entropy | ")]
    adjusted = logits[names.index("logit adjusted | tau=1")]
    every = [*logits, *(im.adjust_logits(plain, prior, tau) for tau in TAUS),
             im.prediction_scores(adjusted, prior, "overall", "adjusted")]
    return (np.stack([measure(z, y, prior) for z in every]),
            np.stack([thirds(confusion(z, y)) for z in every]))


def chosen(group: dict, criterion: str, allowed: dict | None = None) -> dict[str, dict]:
    """family → its setting and snapshot that are best on dev by ``criterion``, and test values.

    allowed: family → settings to choose from, all where none are named. Values:
    {"setting", "steps", "test": {measure → [seeds]}} and, if the group has it, "thirds" [3, 3].
    """
    measures = group["measures"]
    dev = group["dev"][..., measures.index(criterion)]
    families = {}
    for i, name in enumerate(group["names"]):
        family, setting = name.split(" | ")
        if setting in (allowed or {}).get(family, (setting,)):
            families.setdefault(family, []).append(i)
    result = {}
    for family, rows in families.items():
        which, snapshot = best(dev[:, rows], criterion in LOWER_IS_BETTER)
        row = rows[which]
        result[family] = {
            "setting": group["names"][row].split(" | ")[1],
            "steps": int(group["snapshots"][snapshot]),
            "test": {m: group["test"][:, row, snapshot, j].tolist()
                     for j, m in enumerate(measures)}}
        if "thirds" in group:
            result[family]["thirds"] = group["thirds"][:, row, snapshot].mean(0).tolist()
    return result


def steps_to_reach(group: dict, family: str, setting: str, target: float,
                   measure_name: str = "balanced accuracy") -> int | None:
    """The first snapshot at which the mean dev measure reaches ``target``; None if none does."""
    row = group["names"].index(f"{family} | {setting}")
    curve = group["dev"][:, row, :, group["measures"].index(measure_name)].mean(0)
    reached = np.flatnonzero(curve >= target)
    return int(group["snapshots"][reached[0]]) if reached.size else None

"""Several labels at once on real data: which kinds of entities a sentence of CLUENER names.

7359 says its softmax loss is as good as binary cross-entropy with tuned weights. Ten entity types,
each its own task; the losses share features, batches and seeds. A seed draws the nine tenths of
the training set it trains on and the order of its batches.
"""

import numpy as np

from bert_theseus import imbalance as im
from bert_theseus.clue import get_task
from bert_theseus.imbalance.study.features import text_features
from bert_theseus.imbalance.study.heads import Heads, logits_of
from bert_theseus.imbalance.study.runs import SNAPSHOTS
from bert_theseus.imbalance.study.settings import wanted_losses

MEASURES = ("micro F1", "macro F1")


def set_losses(positive: float, only=None) -> dict:
    """"family | setting" → loss; positive: the share of ones in the labels.

    only: families wanted besides the first two. Raises InputError for one there is not.
    """
    binary = {"labels": "binary"}
    losses = {
        "multi-label softmax | ": im.MultilabelCrossentropy(),
        "binary cross-entropy | ": im.WeightedCrossentropy(**binary),
        **{f"tuned positive weight | {w:g}": im.WeightedCrossentropy([1, w], **binary)
           for w in (1, 2, 3, 5, 8, 12)},
        **{f"focal | gamma={g:g}": im.FocalCrossentropy(g, **binary) for g in (0.5, 1, 2)},
        **{f"logit adjusted | tau={t:g}": im.LogitAdjustedCrossentropy(
            [1 - positive, positive], t, **binary) for t in (0.25, 0.5, 0.75, 1)},
        "smooth F1 | ": im.SmoothF1Loss("running", **binary),
        "F1-weighted | ": im.F1WeightedCrossentropy("running", **binary)}
    return wanted_losses(losses, only, ("multi-label softmax", "binary cross-entropy"))


def load_entity_types(data_dir, features: str = "ngrams", bert_dir=None) -> tuple[dict, dict]:
    """Features [sentences, dimensions] and labels [sentences, types] of CLUENER's splits."""
    task = get_task("cluener", data_dir)
    examples = {split: task.load(data_dir, split) for split in ("train", "dev", "test")}
    labels = {split: np.array([[kind in e.label for kind in task.labels] for e in part], "int32")
              for split, part in examples.items()}
    texts = {split: [e.text for e in part] for split, part in examples.items()}
    return text_features(texts, features, bert_dir=bert_dir), labels


def run_several_labels(features: dict, labels: dict, seeds, steps: int = 400,
                       batch_size: int = 128, learning_rate: float = 0.003, only=None) -> dict:
    """A group as :func:`run_group` gives it, measured by micro and macro F1 of the label sets.

    Predicted is what scores above 0. only: names of losses besides multi-label softmax and
    binary cross-entropy, all if None.
    """
    losses = set_losses(float(labels["train"].mean()), only)
    heads = Heads(losses, features["train"].shape[-1], labels["train"].shape[-1],
                  learning_rate)
    snapshots = [s for s in SNAPSHOTS if s < steps] + [steps]
    result = {"dev": [], "test": []}
    for seed in seeds:
        rows = np.random.default_rng(seed).permutation(len(labels["train"]))
        rows = rows[:len(rows) * 9 // 10]
        weights = heads.train(features["train"][rows], labels["train"][rows], steps, batch_size,
                              seed, snapshots)
        for split in result:
            result[split].append(np.stack([
                [set_measures(z > 0, labels[split]) for z in logits_of(weights[s], features[split])]
                for s in snapshots], 1))
    return {"names": list(losses), "measures": list(MEASURES), "snapshots": snapshots,
            "counts": labels["train"].sum(0).tolist(),
            **{split: np.stack(value) for split, value in result.items()}}


def set_measures(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Micro and macro F1 of predicted and true labels [sentences, types].

    >>> set_measures(np.array([[1, 0], [1, 1]]) > 0, np.array([[1, 0], [0, 1]])).round(3)
    array([0.8  , 0.833])
    """
    right, both = (predicted & (true > 0)).sum(0), predicted.sum(0) + true.sum(0)
    return np.array([2 * right.sum() / max(both.sum(), 1),
                     (2 * right / np.maximum(both, 1)).mean()])

"""A long-tailed task whose best answer is known: unit Gaussians around drawn centres.

x = μ_y + ε, ε ~ N(0, I). Bayes' rule under any prior is argmax_y log p(y) − ‖x − μ_y‖² / 2, linear
in x, so that the best a linear head can do is known: argmax without the prior for balanced
accuracy, with it for overall accuracy. It needs no download and is what the demo runs on.
"""

import numpy as np

from bert_theseus.imbalance.study.data import Corpus, cut, long_tail_counts
from bert_theseus.imbalance.study.measures import MEASURES, measure


def gaussian_corpus(classes: int = 8, dimensions: int = 16, head: int = 1000, spread: float = 0.9,
                    rows: int = 300, seed: int = 0) -> Corpus:
    """Features alone, no texts: ``head`` rows a class to train on, ``rows`` in dev and in test.

    spread: standard deviation of the centres' coordinates; more is easier.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, spread, (classes, dimensions))
    sizes = {"train": head, "dev": rows, "test": rows}
    labels = {split: np.repeat(np.arange(classes), n) for split, n in sizes.items()}
    features = {split: (centres[y] + rng.normal(size=(len(y), dimensions))).astype("float32")
                for split, y in labels.items()}
    corpus = Corpus("gaussians", head, list(range(classes)), {}, labels, features)
    corpus.centres = centres
    return corpus


def bayes_measures(corpus: Corpus, imbalance: float, seeds, rule: str) -> dict[str, list]:
    """measure → its value for each seed, for Bayes' rule with known centres on the test sets.

    rule: "balanced" leaves the prior out, "overall" puts it in.
    """
    values = []
    for seed in seeds:
        counts = long_tail_counts(len(corpus.classes), imbalance, corpus.head)
        task = cut(corpus.labels, counts, seed)
        rank_of = np.argsort(np.random.default_rng(seed).permutation(len(counts)))
        x = corpus.features["test"][task.rows["test"]]
        scores = np.empty((len(x), len(counts)))
        scores[:, rank_of] = -((x[:, None] - corpus.centres) ** 2).sum(-1) / 2
        if rule == "overall":
            scores += np.log(task.prior)
        values.append(measure(scores, task.labels["test"], task.prior))
    return {name: [float(v[i]) for v in values] for i, name in enumerate(MEASURES)}

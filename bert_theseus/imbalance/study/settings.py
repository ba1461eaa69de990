"""The losses of the study and the settings each is tried with; the best is chosen on dev."""

import numpy as np

from bert_theseus import imbalance as im
from bert_theseus.errors import InputError

POST_HOC = "cross-entropy, adjusted post hoc"
OVERALL = "logit adjusted, rule overall"
TAUS = (0.5, 1.0, 1.5, 2.0)


def loss_settings(counts: np.ndarray, binary: bool, only=None) -> dict[str, object]:
    """"family | setting" → loss, for a training set with these counts.

    binary: one logit, labels 0 and 1 (class 1 the rare one); else integer labels and one logit a
    class. only: families wanted; cross-entropy and logit adjusted always come along, since others
    are compared with them. Raises InputError for a family there is not.
    """
    prior, several = counts / counts.sum(), not binary
    families = {
        "cross-entropy": {"": im.WeightedCrossentropy()},
        "class weights": {f"n^-{power:g}": im.WeightedCrossentropy(
            im.inverse_frequency_weights(counts, power)) for power in (0.5, 1.0)},
        "class-balanced": {f"beta={beta:g}": im.ClassBalancedCrossentropy(counts, beta)
                           for beta in (0.99, 0.999, 0.9999)},
        "focal": _focal(binary),
        "soft truncated": {f"k={k:g}": im.SoftTruncatedCrossentropy(k) for k in (0.5, 1, 2)},
        "hard truncated": {"": im.HardTruncatedCrossentropy()},
        "smooth accuracy": {"": im.SmoothAccuracyLoss()},
        "smooth F1": {e: im.SmoothF1Loss(e) for e in ("batch", "running")},
        "F1-weighted": {e: im.F1WeightedCrossentropy(e) for e in ("batch", "running")},
        "dice": {"plain": im.DiceLoss(), "self-adjusting": im.DiceLoss(1.0),
                 "batch": im.DiceLoss(over="batch")},
        "margin (LDAM)": {f"largest={m:g}": im.MarginCrossentropy(im.ldam_margins(counts, m))
                          for m in (1, 2, 4)},
        "margin (-log prior)": {
            f"tau={tau:g}{', others' * others}": im.MarginCrossentropy(
                im.prior_margins(prior, tau), others=others)
            for tau, others in ((0.25, False), (0.5, False), (1, False), (0.5, True))},
        "logit adjusted": {f"tau={tau:g}": im.LogitAdjustedCrossentropy(prior, tau)
                           for tau in TAUS},
    }
    if several:
        families["F1-weighted"]["running, factor kept"] = im.F1WeightedCrossentropy(
            "running", leading_factor=True)
        families["soft truncated, odds"] = {
            f"k={k:g}": im.SoftTruncatedCrossentropy(k, multiclass="odds") for k in (0.5, 1, 2)}
        families["multi-label softmax"] = {"": im.MultilabelCrossentropy()}
        families["one binary task a class"] = {"": im.WeightedCrossentropy(labels="binary")}
    flat = {f"{family} | {setting}": loss for family, settings in families.items()
            for setting, loss in settings.items()}
    return wanted_losses(flat, only, ("cross-entropy", "logit adjusted"))


def wanted_losses(losses: dict, only, always) -> dict:
    """Of "family | setting" → loss those whose family is in ``only`` (all if None) or ``always``.

    Raises InputError for a family there is not.
    """
    families = list(dict.fromkeys(name.split(" | ")[0] for name in losses))
    unknown = sorted(set(only or ()) - set(families))
    if unknown:
        raise InputError(f"no loss {unknown[0]!r} here", "--loss",
                         f"there are {', '.join(families)}")
    kept = {*(only or families), *always}
    return {name: loss for name, loss in losses.items() if name.split(" | ")[0] in kept}


ONE_HOT = ("multi-label softmax", "one binary task a class")


def _focal(binary: bool) -> dict:
    alphas = (0.25, 0.5, 0.75) if binary else (None,)
    return {f"gamma={gamma:g}{'' if alpha is None else f', alpha={alpha:g}'}":
            im.FocalCrossentropy(gamma, alpha) for gamma in (0.5, 1, 2) for alpha in alphas}

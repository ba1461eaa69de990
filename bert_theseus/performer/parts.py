"""The four parts of the study of article 7921, each a list of (name, metric, value).

    errors      of the approximation, by number of features
    exchange    of attention in a fine-tuned model, and training on after it
    training    from the same start with each kernel
    length      from which linear attention pays
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bert_theseus.backend import keras
from bert_theseus.clue import Batches, evaluate
from bert_theseus.performer import cost, study
from bert_theseus.training import TrainingStep, fit

Measured = list[tuple[str, str, float]]     # name, metric, value
SHARES = (0, 1, 2, 5, 10)       # training on after an exchange, % of the steps of fine-tuning
FEATURES, HIDDEN = 256, 256     # of the block whose time is taken


def sources(bert, batches: Batches) -> Iterator[tuple]:
    """(name, query, key, value, mask): random ones, and those of the first and the last block."""
    inputs = batches.inputs(np.arange(min(16, batches.size)))
    random = np.random.default_rng(0).normal(size=(3, 4, 64, 2, 64)).astype("float32")
    for scale in (0.25, 0.5, 1):
        yield f"Gaussian × {scale}", scale * random[0], scale * random[1], random[2], None
    for layer in (0, bert.num_hidden_layers - 1):
        yield f"block {layer + 1}", *study.queries_and_keys(bert, inputs, layer)


def errors(name: str, query, key, value, mask, features: Sequence[int], seed: int) -> Measured:
    """Relative error of every kind of ω and number of features; the slope of its logarithm over
    the last four numbers; how peaked exact attention is."""
    measured = [(f"{name}, exact", "largest weight", study.concentration(query, key, mask))]
    for way in study.WAYS:
        found = [study.approximation_error(query, key, value, mask, way, m, seed)
                 for m in features]
        measured += [(f"{name}, {way}", f"error, m = {m}", error)
                     for m, error in zip(features, found)]
        if len(found) > 3:
            measured.append((f"{name}, {way}", "slope", cost.growth(features[-4:], found[-4:])))
    return measured


def exchange(build: Callable, train: Batches, dev: Batches, epochs: int,
             features: Sequence[int], seed: int) -> Measured:
    """Fine-tunes exact attention, exchanges it, trains on; the control trains on without exchange.

    build: (kernel, number of features) → a compiled model on the pre-trained weights. Each model
    that is trained on sees the same batches, and starts its optimizer afresh.
    """
    exact = build("exact", None)
    fit(exact, train, epochs, name=f"seed {seed}, fine-tuning")
    stops = [round(epochs * len(train) * share / 100) for share in SHARES]
    ways = {"not exchanged": ("exact", None)} | {
        f"exchanged, m = {m}": ("favor", m) for m in features}
    measured = []
    for name, way in ways.items():
        model = build(*way)
        study.copy_weights(exact, model)
        step = TrainingStep(model, next(iter(train.epoch(0))), seed)
        values = study.recover(step, train, stops, lambda model=model: _accuracy(model, dev))
        measured += [(f"{name}, after {share} % of the steps", "accuracy", value)
                     for share, value in zip(SHARES, values)]
    keras.backend.clear_session()
    return measured


def training(model, name: str, train: Batches, dev: Batches, epochs: int) -> Measured:
    """Accuracy of a compiled model after training, and the time of a step."""
    history = fit(model, train, epochs, name=name)
    accuracy = _accuracy(model, dev)
    keras.backend.clear_session()
    return [(name, "accuracy", accuracy),
            (name, "ms a step", 1000 * history.step_seconds / (epochs * len(train)))]


def length(lengths: Sequence[int], cell: Callable) -> Measured:
    """Time of a block forward and backward by length, linear and exact in turn.

    cell: (name, compute) → the times, as :meth:`Journal.cell` keeps them.
    """
    steps = [cost.step(cost.encoder_block(HIDDEN, m), HIDDEN) for m in (FEATURES, None)]
    times = [cell(f"length {n}", lambda n=n: cost.seconds([step(n) for step in steps], limit=1.0))
             for n in lengths]
    measured = [(f"{way} block, length {n}", "ms", 1000 * seconds)
                for n, pair in zip(lengths, times)
                for way, seconds in zip(("linear", "exact"), pair)]
    found = cost.crossover(lengths, *zip(*times))
    return measured + ([] if found is None else [
        ("linear attention pays", "from length", found)])


def _accuracy(model, batches: Batches) -> float:
    return evaluate(batches.task, model, batches)["accuracy"]

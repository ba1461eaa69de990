"""The same comparison with the whole model trained: a published BERT, a few losses.

Each loss runs with one setting, the one its article or paper names, since the search over settings
belongs to the fixed features; epochs are chosen on dev.
"""

import gc
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from bert4keras.tokenizers import Tokenizer

from bert_theseus import imbalance as im
from bert_theseus.backend import K, keras, set_seed
from bert_theseus.checkpoint import bert_folder, load_bert
from bert_theseus.clue import NumpyBatches
from bert_theseus.errors import InputError
from bert_theseus.imbalance.study.data import Corpus, cut, long_tail_counts
from bert_theseus.imbalance.study.kept import kept_arrays
from bert_theseus.imbalance.study.measures import MEASURES, confusion, measure, thirds
from bert_theseus.imbalance.study.settings import OVERALL, POST_HOC, wanted_losses
from bert_theseus.training import fit


def fine_tuned_losses(counts: np.ndarray) -> dict:
    """"family | setting" → loss, integer labels."""
    prior = counts / counts.sum()
    return {
        "cross-entropy | ": im.WeightedCrossentropy(),
        "class weights | n^-1": im.WeightedCrossentropy(im.inverse_frequency_weights(counts)),
        "focal | gamma=2": im.FocalCrossentropy(2.0),
        "F1-weighted | running": im.F1WeightedCrossentropy("running"),
        "margin (LDAM) | largest=0.5": im.MarginCrossentropy(im.ldam_margins(counts)),
        "logit adjusted | tau=1": im.LogitAdjustedCrossentropy(prior),
    }


@dataclass(frozen=True)
class Training:
    """How each model is trained: the published BERT's folder, and the usual settings."""

    bert_dir: str
    epochs: int
    learning_rate: float
    batch_size: int = 32
    maxlen: int = 64


def run_fine_tuned(corpus: Corpus, imbalance: float, seeds, training: Training, only=None,
                   folder: Path | None = None, resume: bool = False) -> dict:
    """A group as :func:`run_group` gives it, snapshots being epochs.

    only: families wanted besides cross-entropy and logit adjusted, all if None. folder: where the
    logits of each finished training go, for ``resume``. Raises InputError for a corpus without
    texts or a family there is not.
    """
    if not (corpus and corpus.texts):
        raise InputError("no classes to fine-tune on", "--task",
                         "name a task with one label a text")
    counts = long_tail_counts(len(corpus.classes), imbalance, corpus.head)
    losses = wanted_losses(fine_tuned_losses(counts), only, ("cross-entropy", "logit adjusted"))
    result = {"dev": [], "test": [], "thirds": []}
    for seed in seeds:
        task = cut(corpus.labels, counts, seed, fixed_order=len(counts) == 2)
        tokens = {split: _tokens([corpus.texts[split][i] for i in rows], training)
                  for split, rows in task.rows.items()}
        found = []
        for name, loss in losses.items():
            def train(name=name, loss=loss):
                return _train(name, loss, task, tokens, seed, training)
            path = folder and folder / f"{corpus.name}_{imbalance:g}_{seed}_{_word(name)}.npz"
            settings = {**asdict(training), "loss": name, "counts": counts.tolist()}
            found.append(kept_arrays(path, settings, resume, train) if folder else train())
        rows = _with_predictions_otherwise(found, list(losses), task.prior)
        for split in ("dev", "test"):
            result[split].append([[measure(z, task.labels[split], task.prior) for z in row[split]]
                                  for row in rows])
        result["thirds"].append([[thirds(confusion(z, task.labels["test"])) for z in row["test"]]
                                 for row in rows])
    return {"names": [*losses, f"{POST_HOC} | tau=1", f"{OVERALL} | tau=1"],
            "measures": list(MEASURES), "snapshots": list(range(1, training.epochs + 1)),
            "counts": counts.tolist(), **{key: np.array(value) for key, value in result.items()}}


def _word(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name.split(" | ")[0])


def _with_predictions_otherwise(found, names, prior):
    plain = found[names.index("cross-entropy | ")]
    adjusted = found[names.index("logit adjusted | tau=1")]
    return [*found,
            {s: [im.adjust_logits(z, prior) for z in part] for s, part in plain.items()},
            {s: [im.prediction_scores(z, prior, "overall", "adjusted") for z in part]
             for s, part in adjusted.items()}]


def _train(name, loss, task, tokens, seed, training) -> dict:
    """split → logits [epochs, rows, classes], after each epoch."""
    K.clear_session()
    gc.collect()
    set_seed(seed)
    model = _classifier(training.bert_dir, len(task.prior))
    model.compile(keras.optimizers.legacy.Adam(training.learning_rate), loss)
    y = task.labels["train"].astype("int32")
    batches = NumpyBatches(len(y), min(training.batch_size, len(y)),
                           lambda i: (_trimmed(tokens["train"][i]), y[i]), seed=seed)
    logits = {"dev": [], "test": []}

    def evaluate(model):
        for split in logits:
            logits[split].append(predict(model, tokens[split]))
        return float(measure(logits["dev"][-1], task.labels["dev"], task.prior)[1])

    fit(model, batches, training.epochs, evaluate=evaluate, name=name)
    return {split: np.stack(each) for split, each in logits.items()}


def _classifier(bert_dir: str, classes: int):
    bert = load_bert(bert_dir)
    mean = keras.layers.GlobalAveragePooling1D()(bert.model.output)      # over the real tokens
    logits = keras.layers.Dense(classes, kernel_initializer=bert.initializer)(mean)
    return keras.Model(bert.model.input, logits)


def _tokens(texts, training: Training) -> np.ndarray:
    """Token ids [texts, maxlen], padded with 0."""
    tokenizer = Tokenizer(bert_folder(training.bert_dir).dict_path, do_lower_case=True)
    tokens = np.zeros((len(texts), training.maxlen), "int32")
    for row, text in zip(tokens, texts):
        ids = tokenizer.encode(text, maxlen=training.maxlen)[0]
        row[:len(ids)] = ids
    return tokens


def _trimmed(tokens) -> list[np.ndarray]:
    """[token_ids, segment_ids], cut to the longest row."""
    tokens = tokens[:, :max(int((tokens > 0).sum(-1).max()), 1)]
    return [tokens, np.zeros_like(tokens)]


def predict(model, tokens: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Logits [rows, classes] of token ids [rows, length], rows sorted by length on the way."""
    order = np.argsort((tokens > 0).sum(-1), kind="stable")
    parts = [model.predict_on_batch(_trimmed(tokens[order[i:i + batch_size]]))
             for i in range(0, len(order), batch_size)]
    logits = np.concatenate(parts)
    return logits[np.argsort(order)]

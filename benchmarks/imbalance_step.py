"""Cost of a step: each loss beside plain cross-entropy, and beside the article's own functions.

    python benchmarks/imbalance_step.py

Value and gradient of one batch of logits in a compiled function; the contenders alternate, the
ratio is that of the medians. For 7359 the article's way is bert4keras' dense and sparse function
on the same labels.
"""

import statistics
import time

import numpy as np

from bert_theseus import imbalance as im
from bert_theseus import script
from bert_theseus.backend import keras
from bert_theseus.imbalance.study.cost import alternating, compiled
from bert_theseus.published import format_table
from bert_theseus.results import Row, write_results

import tensorflow as tf  # noqa: E402  (after bert_theseus, which sets the switches)
from bert4keras import backend as article  # noqa: E402

parser = script.argument_parser(__doc__.split("\n")[0], "output/benchmarks/imbalance_step", (0,))
parser.add_argument("--batch", type=int, default=256)
parser.add_argument("--classes", type=int, default=119)
parser.add_argument("--labels", type=int, default=3, help="positives an example, several labels")
parser.add_argument("--rounds", type=int, default=300)
args = parser.parse_args()


def contenders(counts):
    """Name → loss for integer labels; the first is the base."""
    prior = counts / counts.sum()
    return {
        "Keras' cross-entropy": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "cross-entropy": im.WeightedCrossentropy(),
        "class weights": im.WeightedCrossentropy(im.inverse_frequency_weights(counts)),
        "smooth accuracy": im.SmoothAccuracyLoss(),
        "smooth F1, batch": im.SmoothF1Loss(),
        "smooth F1, running": im.SmoothF1Loss("running"),
        "F1-weighted, running": im.F1WeightedCrossentropy("running"),
        "hard truncated": im.HardTruncatedCrossentropy(),
        "soft truncated": im.SoftTruncatedCrossentropy(),
        "focal": im.FocalCrossentropy(),
        "margin (LDAM)": im.MarginCrossentropy(im.ldam_margins(counts)),
        "logit adjusted": im.LogitAdjustedCrossentropy(prior),
        "dice": im.DiceLoss(),
        "dice, self-adjusting": im.DiceLoss(1.0)}


def several(labels, classes):
    """Name → (loss, labels), each article's function in front of ours."""
    dense = np.zeros((len(labels), classes), "float32")
    np.put_along_axis(dense, labels, 1, 1)
    theirs = {"bert4keras' dense": article.multilabel_categorical_crossentropy,
              "bert4keras' sparse": article.sparse_multilabel_categorical_crossentropy}
    mean = {name: lambda y, z, f=f: tf.reduce_mean(f(y, z)) for name, f in theirs.items()}
    return {"bert4keras' dense": (mean["bert4keras' dense"], dense),
            "multi-label, dense": (im.MultilabelCrossentropy(), dense),
            "bert4keras' sparse": (mean["bert4keras' sparse"], labels),
            "multi-label, sparse": (im.SparseMultilabelCrossentropy(), labels),
            f"subsets of {labels.shape[1]}": (im.SubsetCrossentropy(labels.shape[1]), dense)}


def main():
    """Times both families and writes the record."""
    start, rng = time.time(), np.random.default_rng(args.seed[0])
    z = rng.normal(0, 3, (args.batch, args.classes))
    counts = np.maximum(1000 * 100.0 ** -np.linspace(0, 1, args.classes), 1)
    y = rng.integers(0, args.classes, args.batch)
    labels = rng.permuted(np.tile(np.arange(args.classes), (args.batch, 1)), axis=1)
    labels = labels[:, :args.labels]
    single = {n: compiled(f, y, args.classes) for n, f in contenders(counts).items()}
    multi = {n: compiled(f, t, args.classes) for n, (f, t) in several(labels, args.classes).items()}
    single, multi = (alternating(steps, z, args.rounds) for steps in (single, multi))
    rows, cells = [], [("loss", "microseconds a step", "ratio", "to")]
    for seconds, bases in ((single, ["Keras' cross-entropy"]),
                           (multi, ["bert4keras' dense", "bert4keras' sparse"])):
        for name, values in seconds.items():
            median = statistics.median(values)
            base = bases[-1] if "sparse" in name else bases[0]
            ratio = median / statistics.median(seconds[base])
            rows += [Row(name, "microseconds", [1e6 * median]),
                     Row(f"{name} / {base}", "ratio", [ratio])]
            cells.append((name, f"{1e6 * median:.0f}", f"{ratio:.2f}", base))
    print(f"batch {args.batch}, {args.classes} classes, value and gradient\n" + format_table(cells))
    write_results(script.output_folder(args.output_dir), 7708, script.settings(args), rows,
                  time.time() - start)


script.run(main)

"""A training step with each kernel: time by length, all kernels in turn in one process.

    python benchmarks/performer_kernels.py [--lengths 32 1022] [--batch_sizes 32 8]

A whole model as in the study's training from a random start (two layers, hidden size 64, one head
of size 64, a classifier, Adam), on random tokens; ``exact`` is bert4keras' own attention. Times
are medians of runs that alternate, so that what else the machine does meets all of them alike.
"""

import argparse
import tempfile
import time

import numpy as np

from bert_theseus import script     # before TensorFlow: it chooses Keras 2
from bert_theseus.backend import keras
from bert_theseus.checkpoint import bert_folder, load_bert, random_bert
from bert_theseus.performer import build_performer_model, cost
from bert_theseus.published import format_table
from bert_theseus.results import Row, write_results
from bert_theseus.theseus import classification_head
from bert_theseus.training import TrainingStep
from bert4keras.optimizers import Adam

KERNELS = ("exact", "favor", "relu", "elu", "one_plus_cos")
TOKENS = 5000


def training_step(folder: str, kernel: str, features: int):
    """A compiled training step of a classifier: batch → logs."""
    paths = bert_folder(folder)
    bert = load_bert(folder) if kernel == "exact" else build_performer_model(
        paths.config_path, paths.checkpoint_path, num_features=features, kernel=kernel,
        return_keras_model=False)
    model = keras.Model(bert.inputs, classification_head(bert.hidden_size, 10)(bert.output))
    model.compile(Adam(1e-3), "sparse_categorical_crossentropy")
    return TrainingStep(model, batch(2, 8), seed=0)


def batch(size: int, length: int) -> tuple:
    """Random ([token ids, segment ids], labels), the same for the same length."""
    random = np.random.default_rng(length)
    tokens = random.integers(1, TOKENS, (size, length), "int32")
    return [tokens, np.zeros_like(tokens)], random.integers(0, 10, size, "int32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 1022])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[32, 8])
    parser.add_argument("--num_features", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output_dir", default="output/benchmarks/performer_kernels")
    args = parser.parse_args()
    start, rows = time.time(), []
    with tempfile.TemporaryDirectory() as folder:
        path = str(random_bert(f"{folder}/bert", [f"t{i}" for i in range(TOKENS)], 2, 64, heads=1,
                               max_position=max(args.lengths)))
        steps = [training_step(path, kernel, args.num_features) for kernel in KERNELS]
    for length, size in zip(args.lengths, args.batch_sizes):
        data = batch(size, length)
        times = cost.seconds([lambda step=step: float(step(data)["loss"]) for step in steps],
                             args.repeats, limit=60.0)
        rows += [Row(f"{kernel}, length {length}, batch {size}", metric, [value])
                 for kernel, seconds in zip(KERNELS, times)
                 for metric, value in (("ms a step", 1000 * seconds),
                                       ("times faster than exact", times[0] / seconds))]
    print(format_table([("name", "metric", "value")] + [
        (row.name, row.metric, f"{row.value:.3g}") for row in rows]))
    write_results(args.output_dir, 7921, vars(args), rows, time.time() - start)


if __name__ == "__main__":
    script.run(main)

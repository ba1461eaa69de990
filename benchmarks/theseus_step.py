"""A step of the replacing stage: one branch per module (ours) against mixing both (the article's).

    python benchmarks/theseus_step.py [--hidden 256 768] [--steps 40] [--part time memory]

Both train the same kind of model on the same batch, a frozen predecessor of 12 layers and a
successor of 3, replacing rate 0.5, batch 16, length 128, dropout 0.1, Adam. Steps alternate, so
that whatever else the machine does falls on both; what counts is the ratio of the means. Peak
memory is that of a process which does nothing else.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bert_theseus import script
from bert_theseus.backend import K, keras, set_seed
from bert_theseus.published import wide_table
from bert_theseus.results import Row, write_results
from bert_theseus.theseus import bert_of_theseus, classification_head

OURS, ARTICLE = "one branch (ours)", "both branches (article)"
LAYERS, SUCCESSOR_LAYERS, BATCH, LENGTH, LABELS, VOCAB = 12, 3, 16, 128, 119, 21128


class MixBoth(keras.layers.Layer):
    """r · successor + (1 − r) · predecessor with r ~ Bernoulli(0.5), both computed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, training=None):
        """[predecessor's, successor's], each [batch, …] → one; the successor's outside training."""
        predecessor, successor = inputs
        r = K.random_binomial(shape=[1], p=0.5)
        return K.in_train_phase(r * successor + (1 - r) * predecessor, successor, training)

    def compute_mask(self, inputs, mask=None):
        """The successor's mask."""
        return mask[1]


def article_model(predecessor, successor, classifier):
    """Module replacing as the article's function builds it."""
    for layer in (*predecessor.model.layers, classifier):
        layer.trainable = False
    inputs = predecessor.inputs
    outputs = MixBoth()([predecessor.apply_embeddings(inputs), successor.apply_embeddings(inputs)])
    depth = LAYERS // SUCCESSOR_LAYERS
    for module in range(SUCCESSOR_LAYERS):
        old = outputs
        for layer in range(depth * module, depth * (module + 1)):
            old = predecessor.apply_main_layers(old, layer)
        outputs = MixBoth()([old, successor.apply_main_layers(outputs, module)])
    return keras.Model(inputs, classifier(outputs))


def build(name: str, hidden: int):
    """The compiled model of one of the two ways, from the same seed."""
    from bert4keras.models import build_transformer_model
    from bert4keras.optimizers import Adam
    set_seed(0)
    config = {"vocab_size": VOCAB, "hidden_size": hidden, "num_hidden_layers": LAYERS,
              "num_attention_heads": hidden // 64, "intermediate_size": 4 * hidden,
              "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
              "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bert_config.json"
        path.write_text(json.dumps(config))
        predecessor, successor = (
            build_transformer_model(str(path), return_keras_model=False, num_hidden_layers=layers,
                                    prefix=prefix)
            for layers, prefix in ((LAYERS, "Predecessor-"), (SUCCESSOR_LAYERS, "Successor-")))
    make = bert_of_theseus if name == OURS else article_model
    model = make(predecessor, successor, classification_head(hidden, LABELS))
    model.compile(Adam(2e-5), "sparse_categorical_crossentropy")
    return model


def batch():
    """Random ([token ids, segment ids], labels), always the same."""
    random = np.random.RandomState(0)
    ids = random.randint(1, VOCAB, (BATCH, LENGTH))
    return [ids, np.zeros_like(ids)], random.randint(0, LABELS, BATCH)


def step_seconds(models: dict, steps: int) -> dict[str, list[float]]:
    """Seconds of every step, the two models taking turns; the first two steps are not counted."""
    x, y = batch()
    seconds = {name: [] for name in models}
    for step in range(steps + 2):
        for name, model in models.items():
            start = time.perf_counter()
            model.train_on_batch(x, y)
            if step >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(name: str, hidden: int, steps: int = 2) -> float:
    """Peak resident memory in GiB of a process that trains one model only (Linux)."""
    done = subprocess.run([sys.executable, __file__, "--memory_of", name, "--hidden", str(hidden),
                           "--steps", str(steps)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def time_rows(hidden: int, steps: int) -> list[Row]:
    """Both ways in one process, steps alternating."""
    seconds = step_seconds({name: build(name, hidden) for name in (ARTICLE, OURS)}, steps)
    keras.backend.clear_session()
    return [Row(f"{name}, hidden size {hidden}", metric, [value])
            for name, values in seconds.items()
            for metric, value in (("seconds a step", np.mean(values)),
                                  ("median", np.median(values)),
                                  ("ratio of means", np.mean(values) / np.mean(seconds[ARTICLE])))]


def memory_rows(hidden: int, steps: int) -> list[Row]:
    """A process for each way; a few steps are enough for the peak."""
    return [Row(f"{name}, hidden size {hidden}", "peak GiB", [peak_memory(name, hidden)])
            for name in (ARTICLE, OURS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 768])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--part", nargs="+", default=["time", "memory"],
                        choices=["time", "memory"])
    parser.add_argument("--output_dir", default="output/benchmarks/theseus_step")
    parser.add_argument("--memory_of", choices=(OURS, ARTICLE), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        step_seconds({args.memory_of: build(args.memory_of, args.hidden[0])}, args.steps)
        status = Path("/proc/self/status").read_text()      # getrusage would count the parent too
        print(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**20)
        return
    for part in args.part:
        start, measure = time.time(), {"time": time_rows, "memory": memory_rows}[part]
        rows = [row for hidden in args.hidden for row in measure(hidden, args.steps)]
        print(wide_table(rows))
        write_results(f"{args.output_dir}/{part}", 7575, script.settings(args), rows,
                      time.time() - start)


if __name__ == "__main__":
    script.run(main)

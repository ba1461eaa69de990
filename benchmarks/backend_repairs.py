"""What the repaired ``K.where``, ``K.reshape``, ``K.flatten`` and ``align`` save in a BERT.

The same weights twice, once traced with bert4keras' own functions, once with the repaired ones;
forward passes of both in turn. Prints operations in the graph, milliseconds (median over the
rounds) and their ratio; writes output/benchmarks/backend_repairs.json.
"""

import argparse
import contextlib
import importlib.util
import json
import statistics
import time
from pathlib import Path

import bert_theseus.backend  # noqa: F401  (before bert4keras)
import bert4keras.backend
import bert4keras.layers
import numpy as np
import tensorflow as tf
from bert4keras.models import build_transformer_model

from bert_theseus import _environment
from bert_theseus.backend import K, keras, set_seed
from bert_theseus.results import Row, environment, replace_file

OUTPUT = Path("output/benchmarks/backend_repairs.json")
NAMES = ("where", "reshape", "flatten")


@contextlib.contextmanager
def unrepaired():
    """Inside, bert4keras' own tensor functions are back."""
    backend, layers = bert4keras.backend, bert4keras.layers
    repaired = {name: getattr(K, name) for name in (*NAMES, "symbolic", "logsumexp")}
    align, objects = backend.align, dict(keras.utils.get_custom_objects())
    spec = importlib.util.spec_from_file_location("unrepaired", backend.__file__)
    own = importlib.util.module_from_spec(spec)
    with _environment.distutils_stand_in():
        spec.loader.exec_module(own)            # sets K.where, K.reshape, K.flatten as well
    backend.align = layers.align = own.align
    backend.where, backend.reshape, backend.flatten = own.where, own.reshape, own.flatten
    try:
        yield
    finally:
        backend.align = layers.align = align
        for name, function in repaired.items():
            setattr(K, name, function)
        for name in NAMES:
            setattr(backend, name, repaired[name])
        keras.utils.get_custom_objects().update(objects)


def forward(args, weights=None):
    """A compiled forward pass of a BERT and its weights."""
    set_seed(0)
    model = build_transformer_model(
        model=args.model, vocab_size=21128, hidden_size=args.hidden, num_attention_heads=4,
        num_hidden_layers=args.layers, intermediate_size=4 * args.hidden, hidden_act="gelu")
    if weights is not None:
        model.set_weights(weights)
    spec = [tf.TensorSpec([None, None], "int32")] * 2
    return tf.function(model).get_concrete_function(spec), model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bert", choices=("bert", "roformer", "nezha"))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    repaired, model = forward(args)
    with unrepaired():
        own, _twin = forward(args, model.get_weights())     # _twin keeps the weights alive
    rng = np.random.RandomState(0)
    tokens = tf.constant(rng.randint(1, 21128, [args.batch, args.length]), "int32")
    inputs = (tokens, tf.zeros_like(tokens))
    difference = float(tf.reduce_max(tf.abs(repaired(*inputs) - own(*inputs))))
    seconds = {"own": [], "repaired": []}
    for _ in range(20):                                     # the first calls plan and allocate
        own(*inputs), repaired(*inputs)
    for _ in range(args.rounds):
        for name, function in (("own", own), ("repaired", repaired)):
            start = time.perf_counter()
            function(*inputs)
            seconds[name].append(time.perf_counter() - start)
    report(args, seconds, difference, {name: len(f.graph.get_operations()) for name, f in
                                       (("own", own), ("repaired", repaired))})


def report(args, seconds: dict, difference: float, operations: dict) -> None:
    """Prints the table and writes the record."""
    rows = []
    for name, label in (("own", "bert4keras' own functions"), ("repaired", "repaired functions")):
        rows += [Row(label, "milliseconds", [1000 * statistics.median(seconds[name])]),
                 Row(label, "operations in the graph", [operations[name]])]
    ratios = [b / a for a, b in zip(seconds["own"], seconds["repaired"])]
    rows += [Row("repaired / own", "ratio of time", [statistics.median(ratios)]),
             Row("largest difference of outputs", "absolute", [difference])]
    for row in rows:
        print(f"{row.name:32} {row.metric:26} {row.value:12.4g}")
    record = {"settings": vars(args), "environment": environment(),
              "rows": [row.as_dict() for row in rows]}
    replace_file(OUTPUT, lambda beside: beside.write_text(
        json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"))


if __name__ == "__main__":
    main()

"""Forward-mode products against gradients of single examples, on a small convolution network.

Weights outside of dense and embedding layers have no short factors: either every example's gradient
is formed (``vectorized_map``), or the queries' gradients are pushed forward through the network,
one pass over the batch for each query and output. Both ways in turn, in one run; they must agree.

    python benchmarks/path_kernel_forward.py          # about a minute on two cores
"""

import argparse
import time

import numpy as np

from bert_theseus import script
from bert_theseus.backend import keras, set_seed
from bert_theseus.path_kernel import PathKernelMachine
from bert_theseus.path_kernel.signals import cheapest
from bert_theseus.published import format_table
from bert_theseus.results import Row, write_results

L = keras.layers


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="output/benchmarks/path_kernel_forward")
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    for name, default in (("examples", 128), ("steps", 5), ("rounds", 3), ("seed", 42)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def problem(args):
    """16 × 16 pictures with three channels, two convolutions, one output."""
    set_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    x = rng.normal(size=(args.examples, 16, 16, 3)).astype("float32")
    model = keras.Sequential([
        L.Conv2D(16, 3, activation="relu", input_shape=(16, 16, 3)),
        L.Conv2D(32, 3, strides=2, activation="relu"), L.GlobalAveragePooling2D(), L.Dense(1)])
    return model, x, rng.normal(size=args.examples).astype("float32")


def seconds_a_step(machine, start, x, y, queries, steps):
    """Seconds a full-batch step, and the contributions."""
    machine.model.set_weights(start)
    began = time.perf_counter()
    result = machine.fit(x, y, x[:queries], 1e-3, epochs=steps, batch_size=None)
    return (time.perf_counter() - began) / steps, result.contributions


def main() -> None:
    args, began = arguments(), time.time()
    model, x, y = problem(args)
    start, rows, chosen = model.get_weights(), [], {}
    machines = {method: PathKernelMachine(model, "mse", method=method)
                for method in ("forward", "vectorized")}
    for queries in args.queries:
        times = {method: [] for method in machines}
        for _ in range(args.rounds + 1):                       # the first one traces
            found = {}
            for method, machine in machines.items():
                seconds, found[method] = seconds_a_step(machine, start, x, y, queries, args.steps)
                times[method].append(seconds)
            np.testing.assert_allclose(found["forward"], found["vectorized"], rtol=1e-3, atol=1e-6)
        times = {method: values[1:] for method, values in times.items()}
        chosen[queries] = cheapest(model, "auto", queries, every_output=False)
        for method, values in times.items():
            rows.append(Row(f"{queries} queries, {method}", "seconds a step", values))
        rows.append(Row(f"{queries} queries, vectorized over forward", "ratio",
                        np.divide(times["vectorized"], times["forward"])))
    print(format_table([("what", "unit", "measured")] + [
        (row.name, row.metric, f"{row.value:.3g} ± {row.std:.2g}") for row in rows]))
    print("\nmethod='auto' takes", ", ".join(f"{method} for {queries}"
                                             for queries, method in chosen.items()))
    write_results(args.output_dir, 8009, script.settings(args), rows, time.time() - began,
                  chosen=chosen)


if __name__ == "__main__":
    script.run(main)

"""Path kernel of 10,000 training examples × 100 queries on a 1,000-unit two-layer network.

Ours, for every one of 100 full-batch steps, against the way the article's formula is usually
typed in: one ``GradientTape`` per example, its gradient flattened, one product with the queries'
gradients. The latter is timed on the first examples of the same step, eager and compiled, in turn
with ours, and scaled to all examples; both must give the same contributions.

    python benchmarks/path_kernel.py          # prints the table, about 3 minutes on two cores
"""

import argparse
import resource
import time

import numpy as np

from bert_theseus import script
from bert_theseus.backend import keras, set_seed
from bert_theseus.path_kernel import PathKernelMachine
from bert_theseus.published import format_table
from bert_theseus.results import Row, write_results

import tensorflow as tf  # noqa: E402

GIB = 2**30


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="output/benchmarks/path_kernel")
    for name, default in (("examples", 10_000), ("queries", 100), ("units", 1000), ("inputs", 100),
                          ("outputs", 10), ("steps", 100), ("taped", 32), ("rounds", 3),
                          ("seed", 42)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def problem(args):
    """A network and a teacher's labels: [examples, inputs] → one of ``outputs`` classes."""
    set_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    x = rng.normal(size=(args.examples, args.inputs)).astype("float32")
    y = (x @ rng.normal(size=(args.inputs, args.outputs))).argmax(1)
    q = rng.normal(size=(args.queries, args.inputs)).astype("float32")
    model = keras.Sequential([
        keras.layers.Dense(args.units, "tanh", input_shape=(args.inputs,)),
        keras.layers.Dense(args.outputs)])
    return model, x, y, q


def query_gradients(model, q):
    """[queries · outputs, weights], the tape's Jacobian."""
    @tf.function
    def one(row):
        """[outputs, weights] of one query."""
        with tf.GradientTape() as tape:
            f = model(row)[0]
        parts = tape.jacobian(f, model.trainable_variables)
        return tf.concat([tf.reshape(p, [f.shape[0], -1]) for p in parts], 1)
    return tf.concat([one(q[i:i + 1]) for i in range(len(q))], 0)


def taped(model, loss):
    """Gradient of one example's loss, flat: the function that is called once an example."""
    def one(row, label):
        with tf.GradientTape() as tape:
            value = loss(label, model(row, training=True))
        return tf.concat([tf.reshape(g, [-1]) for g in
                          tape.gradient(value, model.trainable_variables)], 0)
    return one


def time_taped(one, model, x, y, queries, count) -> tuple[float, np.ndarray]:
    """Seconds an example, and its contributions [examples, queries · outputs] at rate 1."""
    one(x[:1], y[:1])
    start, rows = time.perf_counter(), []
    for i in range(count):
        rows.append(-tf.linalg.matvec(queries, one(x[i:i + 1], y[i:i + 1])).numpy())
    return (time.perf_counter() - start) / count, np.array(rows)


def time_ours(machine, start, x, y, q, steps) -> tuple[float, object]:
    """Seconds a step, everything (tracing, checks) included, and the result."""
    machine.model.set_weights(start)
    began = time.perf_counter()
    result = machine.fit(x, y, q, 0.1, epochs=steps, batch_size=None)
    return (time.perf_counter() - began) / steps, result


def main() -> None:
    args, began = arguments(), time.time()
    model, x, y, q = problem(args)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    machine, start = PathKernelMachine(model, loss), model.get_weights()
    first, one_step = time_ours(machine, start, x, y, q, 1)
    whole, result = time_ours(machine, start, x, y, q, args.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB     # before the tapes
    model.set_weights(start)
    queries = query_gradients(model, q)
    eager, compiled = taped(model, loss), tf.function(taped(model, loss))
    ours, eagerly, as_function = [], [], []
    for _ in range(args.rounds):                                    # in turn
        model.set_weights(start)
        seconds, rows = time_taped(eager, model, x, y, queries, args.taped)
        eagerly.append(seconds * args.examples)
        seconds, same = time_taped(compiled, model, x, y, queries, args.taped)
        as_function.append(seconds * args.examples)
        np.testing.assert_allclose(same, rows, rtol=1e-3, atol=1e-4)
        ours.append(time_ours(machine, start, x, y, q, 2)[0])
    expected = 0.1 / args.examples * rows.reshape(args.taped, args.queries, -1)
    found = np.swapaxes(one_step.contributions[:, :args.taped], 0, 1)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    rows = [Row("ours", "seconds a step", ours),
            Row("ours, first step (tracing)", "seconds", [first]),
            Row("one tape per example, eager", "seconds a step", eagerly),
            Row("one tape per example, compiled", "seconds a step", as_function),
            Row("ours against eager tapes", "times faster", np.divide(eagerly, ours)),
            Row("ours against compiled tapes", "times faster", np.divide(as_function, ours)),
            Row("ours, the whole fit", "seconds", [whole * args.steps]),
            Row("peak memory of the process", "GiB", [peak]),
            Row("largest residual", "output", [result.max_residual]),
            Row("largest change of an output", "output",
                [np.abs(result.output - result.initial).max()]),
            Row("difference of the two ways", "relative", [difference])]
    print(format_table([("what", "unit", "measured")] + [
        (row.name, row.metric, f"{row.value:.4g}" + (f" ± {row.std:.2g}" if row.std else ""))
        for row in rows]))
    write_results(args.output_dir, 8009, script.settings(args), rows, time.time() - began)


if __name__ == "__main__":
    script.run(main)

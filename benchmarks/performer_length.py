"""Linear against exact attention by length: time, peak memory, crossover, and the machine's floor.

    python benchmarks/performer_length.py [--hidden 256 768] [--num_features 256]

Both ways run in turn in one process on the same input, one sequence, head size 64, all positions
under a mask as BERT has it: bert4keras' own attention beside ours, in a whole block (with its
projections and feed-forward layer) and alone, forward and with all gradients. Exact attention is
left out where it would need more memory than is free. A second table sets the causal form
beside the published one as the paper words it, a loop over positions, unrolled while tracing.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bert_theseus import script     # before TensorFlow: it chooses Keras 2
import tensorflow as tf
from bert_theseus.performer import cost, favor_attention, orthogonal_projection
from bert_theseus.performer.kernels import KERNELS
from bert_theseus.published import format_table
from bert_theseus.results import Row, replace_file, write_results

LENGTHS = [128, 256, 512, 1024, 2048, 4096, 8192, 16384]
PARTS = {"attention": cost.attention_only, "block": cost.encoder_block}
PASSES = {"forward": False, "forward-backward": True}
SHARE = 0.85            # of the free memory that exact attention may need
ARTICLE = 5000          # kexue.fm 7921: a clear advantage only from about this length


def compiled(hidden: int, features: int) -> dict:
    """(part, pass) → compiled steps, ours and bert4keras'."""
    return {(part, name): [cost.step(make(hidden, m), hidden, backward) for m in (features, None)]
            for part, make in PARTS.items() for name, backward in PASSES.items()}


def measure(steps: dict, hidden: int, features: int, length: int) -> list[dict]:
    """Every part and pass at one length: seconds and bytes, exact None where it would not fit."""
    records = []
    for (part, name), ways in steps.items():
        fits = exact_bytes(hidden, length, PASSES[name]) < SHARE * free_memory()
        runs = [way(length) for way in (ways if fits else ways[:1])]
        seconds = cost.seconds(runs, repeats=15, limit=2.5) + [None]
        records.append({"hidden": hidden, "features": features, "length": length, "part": part,
                        "pass": name, "linear": seconds[0], "exact": seconds[1]})
    return records


def memory_of(way: str, hidden: int, features: int, lengths) -> dict[int, int]:
    """length → peak bytes of attention, forward-backward, in a process that does nothing else."""
    command = [sys.executable, __file__, "--memory_of", way, "--hidden", str(hidden),
               "--num_features", str(features), "--lengths", *map(str, lengths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {int(length): size for length, size in json.loads(done.stdout).items()}


def peaks(way: str, hidden: int, features: int, lengths) -> dict[int, int]:
    """Lengths in rising order: the peak so far, less what the process held before."""
    call = cost.step(cost.attention_only(hidden, features if way == "linear" else None), hidden)
    call(128)()
    before, found = peak(), {}
    for length in sorted(n for n in lengths if n >= 1024):
        if way == "exact" and exact_bytes(hidden, length, True) > SHARE * free_memory():
            break
        call(length)()
        found[length] = peak() - before
    return found


def peak() -> int:
    """Peak resident memory of this process so far; Linux keeps it for each program image."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def exact_bytes(hidden: int, length: int, backward: bool) -> int:
    """An estimate: so many [heads, length, length] matrices at once; measured are 4 and 3."""
    return 4 * (hidden // 64) * length**2 * (5 if backward else 4)


def free_memory() -> int:
    """Bytes that programs can still have (Linux)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))


def series(records, hidden, part, direction):
    """The records of one hidden size, part and pass."""
    return [r for r in records if (r["hidden"], r["part"], r["pass"]) == (hidden, part, direction)]


def marks(records, hidden: int) -> list[Row]:
    """Crossover, gain and memory at 8,192, and growth from 1,024 on, forward-backward."""
    rows = []
    for part in PARTS:
        both = [r for r in series(records, hidden, part, "forward-backward") if r["exact"]]
        name = f"{part}, hidden {hidden}"
        found = cost.crossover(*([r[k] for r in both] for k in ("length", "linear", "exact")))
        rows += [] if found is None else [Row(name, "crossover length", [found])]
        for r in (r for r in both if r["length"] == 8192):
            rows.append(Row(name, "times faster at 8192", [r["exact"] / r["linear"]]))
            if r.get("exact_bytes"):
                rows.append(Row(name, "share of memory at 8192",
                                [r["linear_bytes"] / r["exact_bytes"]]))
        long = [r for r in series(records, hidden, part, "forward-backward") if r["length"] >= 1024]
        if len(long) > 1:
            rows.append(Row(name, "slope of log time", [cost.growth(
                [r["length"] for r in long], [r["linear"] for r in long])]))
    return rows


def floor(records, hidden: int, features: int) -> list[Row]:
    """Multiply-adds a second of a plain matrix product, and the share of it a block reaches."""
    x, y = tf.random.normal([2048, 2048]), tf.random.normal([2048, 2048])
    run = tf.function(lambda: tf.reduce_sum(tf.matmul(x, y)))
    rate = 2048**3 / cost.seconds([lambda: run().numpy()], repeats=9)[0]
    rows = [Row("matrix product", "10⁹ multiply-adds/s", [rate / 1e9])]
    for part in PARTS:
        for r in series(records, hidden, part, "forward-backward"):
            if r["length"] in (1024, 8192):
                work = 3 * cost.multiply_adds(r["length"], hidden, features, part == "block")
                rows.append(Row(f"{part}, hidden {hidden}, length {r['length']}",
                                "share of the product's rate", [work / r["linear"] / rate]))
    return rows


def unrolled(query, key, value, projection):
    """Causal attention as published: one outer product and one sum for every position."""
    kernel, weight = KERNELS["favor"], tf.ones_like(key[..., :1])
    q = tf.exp(kernel.query(query, projection, 64**-0.25).log)          # [b, n, h, m]
    k = tf.exp(kernel.key(key, projection, 64**-0.25, weight).log)
    sums, norms = tf.zeros_like(k[:, 0, :, :, None] * value[:, 0, :, None]), tf.zeros_like(k[:, 0])
    outputs = []
    for i in range(query.shape[1]):
        sums += k[:, i, :, :, None] * value[:, i, :, None]
        norms += k[:, i]
        weighted = tf.einsum("bhm,bhmd->bhd", q[:, i], sums)
        outputs.append(weighted / tf.reduce_sum(q[:, i] * norms, -1, keepdims=True))
    return tf.stack(outputs, axis=1)


def causal(lengths) -> list[Row]:
    """Seconds to trace and seconds a step, forward and gradients, 4 heads of size 64, m = 256."""
    rows, rows_of = [], tf.constant(orthogonal_projection(256, 64, 0))
    ways = {"chunks (ours)": lambda *x: favor_attention(*x, rows_of, causal=True),
            "unrolled loop": lambda *x: unrolled(*x, rows_of)}
    for length in lengths:
        qkv = [tf.random.stateless_normal([1, length, 4, 64], [0, i]) / 2 for i in range(3)]
        runs, outputs = [], []
        for name, way in ways.items():
            run = tf.function(lambda x, way=way: tf.gradients(tf.reduce_sum(way(*x)**2), x))
            start = time.perf_counter()
            run(qkv)
            rows.append(Row(f"{name}, length {length}", "seconds to trace",
                            [time.perf_counter() - start]))
            runs.append(lambda run=run: run(qkv)[0].numpy())
            outputs.append(way(*qkv).numpy())
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-4)
        for name, seconds in zip(ways, cost.seconds(runs, limit=2.0)):
            rows.append(Row(f"{name}, length {length}", "seconds a step", [seconds]))
    return rows


def plot(records, path: Path) -> None:
    """Time of a block and peak memory of attention against length, forward-backward."""
    from matplotlib.figure import Figure
    sizes = sorted({r["hidden"] for r in records})
    figure = Figure(figsize=(4.6 * len(sizes), 6.6), layout="constrained")
    axes = figure.subplots(2, len(sizes), squeeze=False, sharex=True)
    for column, hidden in enumerate(sizes):
        for row, (part, field, unit, label) in enumerate((
                ("block", "", 1e3, "block, ms"),
                ("attention", "_bytes", 2**-20, "attention, MiB"))):
            axis = axes[row][column]
            for way, color in (("exact", "tab:gray"), ("linear", "tab:blue")):
                points = [(r["length"], unit * r[way + field]) for r in series(
                    records, hidden, part, "forward-backward") if r.get(way + field)]
                axis.loglog(*zip(*points), "o-", color=color, label=way) if points else None
            axis.axvline(ARTICLE, color="tab:red", ls=":", label="article's estimate, 5000")
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
        axes[0][column].set_title(f"hidden size {hidden}, forward-backward")
        axes[1][column].set_xlabel("length")
    axes[0][0].legend(frameon=False)
    replace_file(path, figure.savefig)


def mebibytes(record: dict, way: str) -> float | None:
    """Peak of a way, None where it was not measured."""
    size = record.get(way + "_bytes")
    return size and size / 2**20


def number(value: float | None) -> str:
    """A cell of the table."""
    return "–" if value is None else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 768])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--causal_lengths", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--num_features", type=int, default=256)
    parser.add_argument("--output_dir", default="output/benchmarks/performer_length")
    parser.add_argument("--memory_of", choices=("linear", "exact"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(peaks(args.memory_of, args.hidden[0], args.num_features, args.lengths)))
        return
    start, records, rows, memory = time.time(), [], [], {}
    for hidden in args.hidden:
        for way in ("linear", "exact"):
            memory[way] = memory_of(way, hidden, args.num_features, args.lengths)
        steps = compiled(hidden, args.num_features)
        for length in args.lengths:
            found = measure(steps, hidden, args.num_features, length)
            for r in found:
                if (r["part"], r["pass"]) == ("attention", "forward-backward"):
                    r.update({w + "_bytes": sizes.get(length) for w, sizes in memory.items()})
            records += found
            print(f"hidden {hidden}, length {length}: {time.time() - start:.0f} s", flush=True)
        rows += marks(records, hidden) + floor(records, hidden, args.num_features)
    rows += causal(args.causal_lengths)
    cells = [("hidden", "length", "part", "pass", "linear ms", "exact ms", "times faster",
              "linear MiB", "exact MiB")]
    cells += [(r["hidden"], r["length"], r["part"], r["pass"], *map(number, (
        1e3 * r["linear"], r["exact"] and 1e3 * r["exact"],
        r["exact"] and r["exact"] / r["linear"], mebibytes(r, "linear"), mebibytes(r, "exact"))))
        for r in records]
    print(format_table(cells))
    print(format_table([("name", "metric", "value")] + [
        (row.name, row.metric, f"{row.value:.4g}") for row in rows]))
    folder = Path(args.output_dir)
    write_results(folder, 7921, vars(args), rows, time.time() - start, records=records)
    plot(records, folder / "performer_length.png")


if __name__ == "__main__":
    script.run(main)

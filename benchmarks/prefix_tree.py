"""The prefix tree at KgCLUE's size, and beside nested dictionaries and marisa-trie at a tenth.

    python benchmarks/prefix_tree.py                 # 200,000 triples, about a minute
    python benchmarks/prefix_tree.py --triples 20559652 --compare 2055965
    python benchmarks/prefix_tree.py --triples 20559652 --parts 5 --compare 0     # 100 million

Each measurement runs in a process of its own, so that peaks and resident sets are its own. The
article's numbers (README of its code): build about 30 minutes, load 5 minutes, 30 GB of memory.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np
from make_knowledge import generate

from bert_theseus.prefix_tree import PrefixTree, split_subject
from bert_theseus.published import format_table
from bert_theseus.results import write_results

MARKS = {"build seconds": 180, "build peak GiB": 4, "file GB": 1, "open seconds": 0.1,
         "resident MB after 10,000 look-ups": 400, "child look-ups per second": 1e6}


def in_process(function, *args):
    """The result of ``function`` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(function, args)


def peak_mb() -> float:
    """The most this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mb() -> float:
    """What this process holds now, mapped pages of files included, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def tokenizer_of(folder: Path):
    """bert4keras' tokenizer with the vocabulary in ``folder``."""
    from bert_theseus import backend  # noqa: F401  (bert4keras on current TensorFlow)
    from bert4keras.tokenizers import Tokenizer
    return Tokenizer(str(folder / "vocab.txt"), do_lower_case=True)


# ---- ours ------------------------------------------------------------------------------------

def measure_build(knowledge: Path) -> dict:
    """Builds the tree beside the knowledge file: time, peak, size."""
    tokenizer, start = tokenizer_of(knowledge.parent), time.perf_counter()
    tree = PrefixTree.build(knowledge, tokenizer, knowledge.with_suffix(".tree"))
    return {"build seconds": time.perf_counter() - start, "build peak GiB": peak_mb() / 1024,
            "file GB": tree.path.stat().st_size / 1e9, "counts": tree.info["counts"]}


def random_keys(tree: PrefixTree, count: int) -> np.ndarray:
    """Token ids of random keys [count, longest], padded by −1."""
    tables, random = tree._tables, np.random.default_rng(0)
    rows = random.integers(0, len(tree), count)
    groups = [np.searchsorted(tables.subject_keys, rows, "right") - 1,
              tables.columns[1][rows], tables.columns[2][rows]]
    keys = [np.concatenate([tables.ids[i][tables.starts[i][g]:tables.starts[i][g + 1]]
                            for i, g in enumerate(key)]) for key in zip(*groups)]
    padded = np.full((count, max(map(len, keys))), -1)
    for row, key in zip(padded, keys):
        row[:len(key)] = key
    return padded


def measure_lookups(path: Path) -> dict:
    """Opens the tree, looks up 10,000 random keys with their objects, then times moves."""
    start = time.perf_counter()
    tree = PrefixTree.open(path)
    opened = time.perf_counter() - start
    keys = random_keys(tree, 10_000)
    cursors, leaves = np.repeat(tree.root, len(keys)), 0
    for column in keys.T:
        going = np.flatnonzero(column >= 0)
        cursors[going] = tree.advance(cursors[going], column[going])
    for i in range(len(cursors)):
        leaves += bool(tree.objects(cursors[i]))
    assert leaves == len(keys) and tree.is_key(cursors).all()
    return {"open seconds": opened, "resident MB after 10,000 look-ups": resident_mb(),
            **_moves_per_second(tree, keys)}


def _moves_per_second(tree: PrefixTree, keys: np.ndarray) -> dict:
    """Batches of 10,000 cursors, one per key, at every depth of the keys."""
    moves = listed = children = 0
    moving = listing = 0.0
    cursors = np.repeat(tree.root, len(keys))
    for depth in range(keys.shape[1]):
        going = keys[:, depth] >= 0
        cursors, keys = cursors[going], keys[going]
        column = keys[:, depth]
        if depth:  # the root is one cursor for all
            start = time.perf_counter()
            children += len(tree.children(cursors).tokens)
            listing, listed = listing + time.perf_counter() - start, listed + len(cursors)
        start = time.perf_counter()
        cursors = tree.advance(cursors, column)
        moving, moves = moving + time.perf_counter() - start, moves + len(cursors)
    return {"child look-ups per second": moves / moving,
            "cursors listed per second": listed / listing,
            "children listed per second": children / listing}


# ---- the others --------------------------------------------------------------------------------

def token_keys(knowledge: Path):
    """(token ids as in the article, object) of every line."""
    tokenizer = tokenizer_of(knowledge.parent)
    parts: dict[str, list[int]] = {}
    with open(knowledge, encoding="utf-8") as file:
        for line in file:
            name, predicate, text = line.rstrip("\n").split("\t")
            subject, meaning = split_subject(name)
            for part in (subject, predicate, meaning):
                if part not in parts:
                    parts[part] = tokenizer.encode(part)[0][1:]
            yield parts[subject] + parts[predicate] + parts[meaning], text


def measure_dictionaries(knowledge: Path) -> dict:
    """The article's tree: a dictionary per node, keys as strings, walked from the root."""
    keys, before = [(ids, text) for ids, text in token_keys(knowledge)], resident_mb()
    start, root = time.perf_counter(), {}
    for ids, text in keys:
        node = root
        for token in ids:
            node = node.setdefault(str(token), {})
        node["-1"] = node["-1"] + "\t" + text if "-1" in node else text
    seconds, memory = time.perf_counter() - start, resident_mb() - before
    path = knowledge.with_suffix(".json")
    with open(path, "w") as file:
        json.dump(root, file, ensure_ascii=False)
    size, start = path.stat().st_size, time.perf_counter()
    del root
    with open(path) as file:
        root = json.load(file)
    opened = time.perf_counter() - start
    path.unlink()
    sample = [[str(t) for t in keys[i][0]]
              for i in np.random.default_rng(0).integers(0, len(keys), 10_000)]
    start, moves = time.perf_counter(), 0
    for ids in sample:
        for length in range(len(ids)):
            node = root
            for token in ids[:length + 1]:
                node = node[token]
            moves += 1
    return {"build seconds": seconds, "file GB": size / 1e9, "open seconds": opened,
            "resident MB": memory, "child look-ups per second":
                moves / (time.perf_counter() - start)}


def measure_marisa(knowledge: Path) -> dict:
    """A marisa-trie of strings, one character per token id, as GENRE has it: children of a prefix
    are found by listing every key below it."""
    import marisa_trie
    keys, before = [ids for ids, _ in token_keys(knowledge)], resident_mb()
    start = time.perf_counter()
    trie = marisa_trie.Trie("".join(map(chr, ids)) for ids in keys)
    seconds, memory = time.perf_counter() - start, resident_mb() - before
    path = knowledge.with_suffix(".marisa")
    trie.save(str(path))
    size, start = path.stat().st_size, time.perf_counter()
    trie = marisa_trie.Trie().mmap(str(path))
    opened = time.perf_counter() - start
    sample = [keys[i] for i in np.random.default_rng(0).integers(0, len(keys), 300)]
    start, moves = time.perf_counter(), 0
    for ids in sample:
        for length in range(2, len(ids)):  # GENRE caches the first two levels
            prefix = "".join(map(chr, ids[:length]))
            _ = {key[length] for key in trie.keys(prefix) if len(key) > length}
            moves += 1
    path.unlink()
    return {"build seconds": seconds, "file GB": size / 1e9, "open seconds": opened,
            "resident MB": memory, "child look-ups per second":
                moves / (time.perf_counter() - start)}


# ---- run ---------------------------------------------------------------------------------------

def make(folder: Path, triples: int) -> Path:
    """A knowledge file of so many triples, made unless it is there."""
    path = folder / str(triples) / "knowledge.txt"
    if not (path.with_name("vocab.txt")).is_file():
        in_process(generate, path, triples)
    return path


def make_large(folder: Path, triples: int, parts: int) -> Path:
    """``parts`` files of ``triples`` with names and relations of their own, as one."""
    path = folder / f"{parts}x{triples}" / "knowledge.txt"
    if not path.is_file():
        beside = path.with_suffix(".part")
        beside.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as whole:
            for seed in range(parts):
                in_process(generate, path, triples, seed)
                with open(path, "rb") as part:
                    shutil.copyfileobj(part, whole, 1 << 24)
        beside.replace(path)
    return path


def ours(path: Path) -> dict:
    """Build and look-ups, each in its own process."""
    found = in_process(measure_build, path)
    return found | in_process(measure_lookups, path.with_suffix(".tree"))


def plot(growth: dict, path: Path) -> None:
    """Build time, peak and file size over the number of triples."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    sizes = sorted(growth)
    for axes, name in zip(figure.subplots(1, 3), ("build seconds", "build peak GiB", "file GB")):
        axes.loglog(sizes, [growth[n][name] for n in sizes], marker="o")
        axes.set(xlabel="triples", title=name)
        axes.grid(alpha=0.3, which="both")
    figure.savefig(path)


def _settings(args) -> dict:
    return {"triples": args.triples, "parts": args.parts, "compare": args.compare}


def growth(args) -> None:
    """Ours at three sizes, against the marks."""
    start, size = time.time(), args.triples
    found = {n: ours(make(args.folder, n)) for n in (size // 100, size // 10, size)}
    write_results(args.results / "prefix_tree", 8802, _settings(args), [], time.time() - start,
                  marks=MARKS, growth=found)
    plot(found, args.results / "prefix_tree" / "growth.png")
    print(f"{size:,} triples (marks are for 20,559,652)")
    print(format_table([("", "measured", "mark"), *(
        (name, f"{found[size][name]:,.3g}", f"{mark:,.3g}") for name, mark in MARKS.items())]))


def large(args) -> None:
    """More than one KgCLUE in one build; memory is what matters here."""
    start, size = time.time(), args.triples * args.parts
    found = ours(make_large(args.folder, args.triples, args.parts))
    write_results(args.results / "prefix_tree_large", 8802, _settings(args), [],
                  time.time() - start, marks=MARKS, large={size: found})
    print(f"{size:,} triples")
    print(format_table([("", "measured"), *((name, f"{found[name]:,.3g}") for name in MARKS)]))


def side_by_side(args) -> None:
    """Nested dictionaries, marisa-trie and ours, one after the other."""
    start, knowledge = time.time(), make(args.folder, args.compare)
    mine = ours(knowledge)
    mine["resident MB"] = mine["resident MB after 10,000 look-ups"]
    found = {"nested dictionaries": in_process(measure_dictionaries, knowledge),
             "marisa-trie, no objects": in_process(measure_marisa, knowledge), "ours": mine}
    write_results(args.results / "prefix_tree_peers", 8802, _settings(args), [],
                  time.time() - start, side_by_side=found)
    names = ["build seconds", "file GB", "open seconds", "resident MB",
             "child look-ups per second"]
    print(f"{args.compare:,} triples side by side")
    print(format_table([("", *names), *((who, *(f"{row[name]:,.3g}" for name in names))
                                        for who, row in found.items())]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--triples", type=int, default=205_596, help="0 leaves this part out")
    parser.add_argument("--parts", type=int, default=1, help="so many files of that size as one")
    parser.add_argument("--compare", type=int, default=205_596, help="0 leaves this part out")
    parser.add_argument("--folder", type=Path, default=Path("output/prefix_tree"))
    parser.add_argument("--results", type=Path, default=Path("output/benchmarks"))
    args = parser.parse_args()
    if args.triples:
        (growth if args.parts == 1 else large)(args)
    if args.compare:
        side_by_side(args)


if __name__ == "__main__":
    main()

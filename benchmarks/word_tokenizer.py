"""Tokenisation: the same ids as bert4keras, how many times sooner, and proof on whole files.

    python benchmarks/word_tokenizer.py --data_dir CLUE                  speed, on tnews titles
    python benchmarks/word_tokenizer.py --data_dir CLUE --compare        every line of every file
    python benchmarks/word_tokenizer.py                                  speed, on the demo's texts

Two pairs, turn about in one run: characters against ``bert4keras.Tokenizer.encode``, and words
against the same with ``pre_tokenize=lambda s: jieba.lcut(s, HMM=False)``. Claims: ids equal;
characters 5 times, words 10 times on one core and 15 times on two. ``--compare`` exits with
status 1 at the first line whose ids differ.
"""

import argparse
import gzip
import json
import logging
import statistics
import sys
import time
from pathlib import Path

import jieba
from tqdm import tqdm

from bert_theseus import demo, script
from bert_theseus.clue import get_task
from bert_theseus.published import format_table
from bert_theseus.results import environment, replace_file
from bert_theseus.wobert import CharTokenizer, WordTokenizer, build_word_vocab, read_vocab
from bert4keras.tokenizers import Tokenizer

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data_dir", help="a CLUE folder; without it the demo's data")
parser.add_argument("--vocab", help="vocab.txt of a character model; default "
                    "DATA_DIR/vocab/vocab.txt")
parser.add_argument("--num_words", type=int, default=20000)
parser.add_argument("--texts", type=int, default=20000)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--compare", action="store_true", help="compare ids on all files instead")
parser.add_argument("--every", type=int, default=1, help="with --compare: every so many lines")
parser.add_argument("--output", default="output/benchmarks/word_tokenizer.json")
args = parser.parse_args()


def tokenizers():
    """name → (reference, ours)."""
    jieba.setLogLevel(logging.WARNING)
    jieba.initialize()
    path = args.vocab or (Path(args.data_dir) / "vocab" / "vocab.txt" if args.data_dir else
                          Path(demo.demo_bert("output/demo/bert")) / "vocab.txt")
    chars, words = read_vocab(path), build_word_vocab(path, args.num_words).token_dict
    reference = Tokenizer(words, do_lower_case=True,
                          pre_tokenize=lambda s: jieba.lcut(s, HMM=False))
    return {"characters": (Tokenizer(chars, do_lower_case=True), CharTokenizer(chars, True)),
            "words": (reference, WordTokenizer(words))}


def titles() -> list[str]:
    """Training titles of tnews, or the demo's texts."""
    if args.data_dir:
        examples = get_task("tnews", args.data_dir).load(args.data_dir, "train")
    else:
        folder = demo.demo_task("output/demo")
        examples = get_task(demo.TASK, folder).load(folder, "train")
    return [example.text for example in examples][:args.texts]


def seconds(work) -> float:
    """Seconds one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def speed() -> None:
    """Both pairs in turn, ids compared first; table and record."""
    texts, rows = titles(), []
    for name, (reference, ours) in tokenizers().items():
        ways = {"bert4keras": lambda: [reference.encode(text, maxlen=128)[0] for text in texts],
                "encode": lambda: [ours.encode(text, maxlen=128)[0] for text in texts],
                "encode_batch": lambda: ours.encode_batch(texts, 128),
                "encode_batch, 2 processes": lambda: ours.encode_batch(texts, 128, processes=2)}
        expected = ways["bert4keras"]()
        for way in ways:  # the ids, and everything warm
            assert ways[way]() == expected, f"{name}: {way} gives other ids"
        rounds = [{way: seconds(work) for way, work in ways.items()} for _ in range(args.rounds)]
        for way in ways:
            ratios = [one["bert4keras"] / one[way] for one in rounds]
            rows.append({"unit": name, "way": way, "times": statistics.median(ratios),
                         "texts a second": len(texts) / min(one[way] for one in rounds),
                         "ratios": ratios})
    table = [("unit", "way", "texts a second", "times bert4keras")]
    print(format_table(table + [(r["unit"], r["way"], f"{r['texts a second']:,.0f}",
                                 f"{r['times']:.1f}") for r in rows]))
    record = {"environment": environment(), "texts": len(texts), "rounds": args.rounds,
              "rows": rows, "claims": {"characters": 5, "words": 10, "words, 2 processes": 15}}
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    replace_file(args.output, lambda beside: beside.write_text(text, encoding="utf-8"))


def compare() -> None:
    """Every line of every file below --data_dir, as it stands, through all four tokenizers."""
    files = sorted(p for p in Path(args.data_dir).rglob("*") if p.is_file())
    lines = differing = 0
    pairs = tokenizers()
    for path in tqdm(files, unit="file"):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number % args.every:
                    continue
                lines += 1
                for name, (reference, ours) in pairs.items():
                    expected = reference.tokens_to_ids(reference.tokenize(line))
                    if ours.encode(line)[0] != expected or ours.encode_batch([line])[0] != expected:
                        differing += 1
                        print(f"{path}:{number + 1}: {name} differ", file=sys.stderr)
    print(f"{lines} lines of {len(files)} files, {differing} with other ids")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    script.run(compare if args.compare else speed)

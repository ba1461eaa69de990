"""``python -m bert_theseus.wobert convert BERT OUTPUT``: a character model made a word model."""

import argparse
from itertools import chain

from bert_theseus import script
from bert_theseus.published import format_table
from bert_theseus.wobert import convert_checkpoint, corpus_files, coverage, documents


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line: ``convert`` and its arguments."""
    parser = argparse.ArgumentParser(prog="python -m bert_theseus.wobert")
    convert = parser.add_subparsers(required=True, dest="command").add_parser(
        "convert", help="characters to words, and what that does to a corpus")
    convert.add_argument("bert_dir")
    convert.add_argument("output_dir")
    convert.add_argument("--num_words", type=int, default=20000)
    convert.add_argument("--extra_words", nargs="*", default=[])
    convert.add_argument("--user_dict", help="own words in jieba's format")
    convert.add_argument("--corpus", nargs="+", help="text files and folders to count on")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Converts and prints size, tokens per 100 characters and unknown rate, before and after."""
    args = parse(argv)
    convert_checkpoint(args.bert_dir, args.output_dir, args.num_words, args.extra_words,
                       args.user_dict)
    files = corpus_files(args.corpus or [])
    cells = [("model", "tokens in the vocabulary", "tokens per 100 characters", "unknown")]
    for folder in (args.bert_dir, args.output_dir):
        found = coverage(folder, chain.from_iterable(documents(path) for path in files))
        counted = (f"{found.tokens_per_100:.2f}", f"{100 * found.unknown_rate:.3f} %") \
            if found.characters else ("–", "–")
        cells.append((folder, str(found.vocab_size), *counted))
    print(format_table(cells))


if __name__ == "__main__":
    script.run(main)

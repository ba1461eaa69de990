"""What all scripts share: their common arguments, and how they end on bad input.

>>> args = argument_parser("BERT-of-Theseus").parse_args(["--seed", "1", "--seed", "2"])
>>> args.seed
[1, 2]
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from bert_theseus.errors import InputError


def argument_parser(description: str, output_dir: str = "output",
                    seeds: tuple[int, ...] = (42,)) -> argparse.ArgumentParser:
    """A parser with --data_dir, --bert_dir, --output_dir, --seed (repeatable), --resume."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data_dir", help="folder in CLUE's layout (tnews/train.json, …; .json.gz "
                        "also); without it the script's own demo data is used")
    parser.add_argument("--bert_dir", help="folder with bert_config.json, vocab.txt, "
                        "bert_model.ckpt.*; without it the shipped or a random model is used")
    parser.add_argument("--output_dir", default=output_dir, help="where results and weights go")
    parser.add_argument("--seed", type=int, action=_Seeds, default=list(seeds),
                        help="repeatable: several seeds give mean ± standard deviation")
    parser.add_argument("--resume", action="store_true",
                        help="go on where an interrupted run in --output_dir stopped")
    return parser


class _Seeds(argparse.Action):
    """The first --seed on the command line replaces the default, further ones add to it."""

    def __call__(self, parser, namespace, value, option_string=None):
        given = getattr(namespace, "_seeds_given", [])
        namespace._seeds_given = given + [value]
        setattr(namespace, self.dest, namespace._seeds_given)


def settings(args: argparse.Namespace) -> dict:
    """Every argument of the run, for results.json."""
    return {key: value for key, value in vars(args).items() if not key.startswith("_")}


def run(main: Callable[[], object]) -> None:
    """Runs a script's ``main``: bad input ends it with one line and status 2, Ctrl-C with 130."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command with --resume goes on", file=sys.stderr)
        sys.exit(130)


def output_folder(path: str) -> Path:
    """Makes the output folder, or says in one line why it cannot."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the output folder ({error.strerror})", path,
                         "name another one with --output_dir") from None
    return folder

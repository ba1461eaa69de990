"""Masked language model on plain text (kexue.fm 7758), from scratch or going on from a BERT.

    python scripts/pretrain.py                                        demo: stories, from scratch
    python scripts/pretrain.py --corpus TEXTS --vocab vocab.txt       characters, from scratch
    python scripts/pretrain.py --corpus TEXTS --bert_dir BERT         going on
    python scripts/pretrain.py --corpus TEXTS --bert_dir BERT --unit word    the article: words

--corpus takes files and folders (.txt, .txt.gz; one document a line, or blank lines between), and
with --data_dir the texts of CLUE's train.json files are added. The corpus is tokenised once; Ctrl-C
saves, --resume goes on to the same weights. The model is in OUTPUT_DIR/model, as published.
"""

import json
import time
from itertools import chain
from pathlib import Path

import numpy as np

from bert_theseus import demo, script, wobert
from bert_theseus.checkpoint import bert_folder
from bert_theseus.errors import InputError
from bert_theseus.results import Row, write_results
from bert_theseus.wobert import curves, warm_start

# ---------------------------------------------------------------- settings
parser = script.argument_parser(__doc__.split("\n")[0], "output/pretrain")
parser.add_argument("--corpus", nargs="+", help="text files and folders")
parser.add_argument("--unit", choices=("char", "word"), default="char")
parser.add_argument("--model", choices=("bert", "roberta", "nezha", "roformer"), default="bert")
parser.add_argument("--vocab", help="from scratch: vocab.txt to choose the tokens from")
parser.add_argument("--vocab_size", type=int, default=5350, help="from scratch: tokens kept")
parser.add_argument("--num_words", type=int, default=20000, help="--unit word: words to add")
parser.add_argument("--user_dict", help="--unit word: own words, in jieba's format")
parser.add_argument("--layers", type=int, default=6, help="from scratch")
parser.add_argument("--hidden", type=int, default=128, help="from scratch")
parser.add_argument("--heads", type=int, help="from scratch; default one for every 64 units")
parser.add_argument("--maxlen", type=int, default=128)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--accumulate", type=int, default=1, help="batches an update")
parser.add_argument("--steps", type=int, help="updates; default 3 epochs")
parser.add_argument("--causal_steps", type=int, help="of these, left to right at the beginning; "
                    "default 900 from scratch, 0 otherwise")
parser.add_argument("--learning_rate", type=float, help="default 1e-3 from scratch, 5e-6 going on")
parser.add_argument("--warmup", type=int, default=100)
parser.add_argument("--decay", type=int, help="steps of the decay to 0; default all after warm-up")
parser.add_argument("--weight_decay", type=float, default=0.01)
parser.add_argument("--whole_word", action="store_true", help="mask words as a whole")
parser.add_argument("--save_seconds", type=float, default=300)
args = parser.parse_args()
DEMO = not (args.corpus or args.data_dir)


# ---------------------------------------------------------------- data
def texts():
    """The documents, anew at each call; in the demo, the project's own stories."""
    if DEMO:
        random = np.random.default_rng(0)
        return (demo.make_story(random)[0] for _ in range(6000))
    files = wobert.corpus_files(args.corpus or [])
    parts = [wobert.documents(path) for path in files]
    return chain(*parts, wobert.task_texts(args.data_dir) if args.data_dir else ())


def start(output):
    """The folder to go on from (in words already where --unit word), or None."""
    if args.bert_dir is None or args.unit == "char":
        return args.bert_dir
    if not (Path(args.bert_dir) / "word_tokenizer.json").is_file():
        wobert.convert_checkpoint(args.bert_dir, output / "start", args.num_words,
                                  user_dict=args.user_dict)
        return output / "start"
    return args.bert_dir


def make_tokenizer(folder, output):
    """The tokenizer of the folder, or of a vocabulary chosen from --vocab by frequency."""
    if folder is not None:
        return wobert.tokenizer_of(folder)
    if args.unit == "word":
        raise InputError("words start from a character model", "--unit word", "add --bert_dir")
    if not (args.vocab or DEMO):
        raise InputError("no vocabulary", "--vocab", "name a vocab.txt, e.g. Google's, or go on "
                         "from a model with --bert_dir")
    kept = output / "vocab.txt"
    if not kept.is_file():
        special = [*wobert.vocabulary.SPECIAL]
        known = wobert.read_vocab(args.vocab) if args.vocab else {
            token: i for i, token in enumerate([*special, *sorted(set("".join(texts())))])}
        wobert.vocabulary.write_vocab(kept, wobert.frequent_vocab(known, texts(), args.vocab_size))
    return wobert.CharTokenizer(wobert.read_vocab(kept), do_lower_case=True)


def make_records(tokenizer, output):
    """The corpus as shards; those of an earlier run if they are of the same corpus."""
    files = wobert.corpus_files(args.corpus or [])
    source = json.dumps([[str(p), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
                        + [args.data_dir, DEMO])
    index = wobert.records_of(
        output / "records", texts, tokenizer, wobert.Packing(maxlen=args.maxlen, seed=args.seed[0]),
        wobert.Segmenter() if args.whole_word else None, source)
    print(f"{index['train']['documents']} documents, {index['train']['tokens']} tokens in "
          f"{index['train']['sequences']} sequences; held out: {index['unseen']['tokens']} tokens")
    return index


# ---------------------------------------------------------------- model
def make_model(folder, tokenizer, output):
    """The model of ``folder``, or a new one whose words start from those around them."""
    if folder is not None:
        paths = bert_folder(folder)
        return wobert.MaskedLanguageModel(paths.config_path, paths.checkpoint_path, args.model)
    hidden, layers = (64, 2) if DEMO else (args.hidden, args.layers)
    mlm = wobert.MaskedLanguageModel(
        model=args.model, vocab_size=tokenizer._vocab_size, hidden_size=hidden,
        num_hidden_layers=layers, num_attention_heads=args.heads or max(1, hidden // 64),
        intermediate_size=4 * hidden, hidden_act="gelu", max_position=512)
    mlm.draw_weights(args.seed[0])
    mlm.start_from(*warm_start.of_records(output / "records", tokenizer._vocab_size, hidden,
                                          args.maxlen))
    return mlm


# ---------------------------------------------------------------- run
def main():
    if len(args.seed) > 1:
        raise InputError(f"{len(args.seed)} seeds for one model", "--seed",
                         "give one, and each run an --output_dir of its own")
    began, output = time.time(), script.output_folder(args.output_dir)
    folder = start(output)
    tokenizer = make_tokenizer(folder, output)
    index = make_records(tokenizer, output)
    epoch = index["train"]["sequences"] // (args.batch_size * args.accumulate)
    new = folder is None
    recipe = wobert.Recipe(
        steps=args.steps or (600 if DEMO else 3 * max(epoch, 1)), batch_size=args.batch_size,
        accumulate=args.accumulate, maxlen=args.maxlen, warmup=args.warmup, decay=args.decay,
        learning_rate=args.learning_rate or (1e-3 if new else 5e-6), seed=args.seed[0],
        weight_decay=args.weight_decay, whole_word=args.whole_word,
        causal_steps=(100 if DEMO else 900 * new) if args.causal_steps is None
        else args.causal_steps)
    mlm = make_model(folder, tokenizer, output)
    trainer = wobert.Pretrainer(mlm, output / "records", recipe, tokenizer._token_mask_id,
                                wobert.ordinary_ids(tokenizer._token_dict), output)
    if args.resume:
        trainer.restore()
    metrics = trainer.run(args.save_seconds, unseen_steps=max(recipe.steps // 10, 1),
                          on_save=lambda trainer: wobert.save_model(
                              mlm.transformer, output / "model", tokenizer))
    last = metrics[-1]
    rows = [Row(f"held-out text, {args.unit}", name, [last[key]], seeds=args.seed[:1])
            for name, key in (("masked accuracy", "unseen_accuracy"), ("loss", "unseen_loss"))
            if key in last]
    rows.append(Row("training", "tokens per second", [np.median([m["tokens_per_second"]
                                                                 for m in metrics])]))
    curves.plot_curves(metrics, output / "curves.png", recipe.causal_steps)
    write_results(output, 7758, script.settings(args), rows, time.time() - began, corpus=index)
    print("\n".join(f"{row.name}: {row.metric} {row.value:.3f}" for row in rows))


if __name__ == "__main__":
    script.run(main)

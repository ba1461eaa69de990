"""Masked language model: tokens a second, ours beside the article's way, turn about in one run.

    python benchmarks/mlm_step.py                       texts of the project's demo
    python benchmarks/mlm_step.py --corpus FOLDER --vocab vocab.txt

    ours      records tokenised once, masks drawn in the graph, vocabulary projection at the masked
              positions alone, fused AdamW
    article   kexue.fm 7758, train.py: tokenisation and masking per batch in Python, projection of
              every position, bert4keras' AdamW

Both train the same model (the size that is shipped) on the same pieces of text, filled to the same
length. Claim: at least 2 times the tokens a second. A token is a position of a sequence that is
not padding; the time of tokenising once is given beside.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from bert_theseus import demo, script
from bert_theseus.backend import K, keras
from bert_theseus.published import format_table
from bert_theseus.results import environment, replace_file
from bert_theseus.wobert import (CharTokenizer, MaskedLanguageModel, Packing, Pretrainer, Recipe,
                                 batches, corpus_files, documents, frequent_vocab, ordinary_ids,
                                 read_vocab, write_records)
from bert_theseus.wobert.vocabulary import SPECIAL
from bert4keras.models import build_transformer_model
from bert4keras.optimizers import Adam, extend_with_weight_decay
from bert4keras.tokenizers import Tokenizer

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--corpus", nargs="+", help="text files and folders")
parser.add_argument("--vocab", help="vocab.txt to choose from (with --corpus)")
parser.add_argument("--documents", type=int, default=20000)
parser.add_argument("--vocab_size", type=int, default=5350)
parser.add_argument("--layers", type=int, default=6)
parser.add_argument("--hidden", type=int, default=128)
parser.add_argument("--maxlen", type=int, default=128)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--steps", type=int, default=15, help="of each way in a round")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--output", default="results/benchmarks/mlm_step.json")
args = parser.parse_args()


def texts():
    if not args.corpus:
        random = np.random.default_rng(0)
        return ["".join(demo.make_story(random)[0] for _ in range(8)) for _ in range(2000)]
    from itertools import chain, islice
    return list(islice(chain(*(documents(p) for p in corpus_files(args.corpus))), args.documents))


def vocabulary(found):
    if args.vocab:
        return frequent_vocab(read_vocab(args.vocab), found, args.vocab_size)
    tokens = [*SPECIAL, *sorted(set("".join(found)))]
    return {t: i for i, t in enumerate(tokens + [f"词{i}" for i in range(len(tokens),
                                                                       args.vocab_size)])}


def sizes(vocab):
    return dict(vocab_size=len(vocab), hidden_size=args.hidden, num_hidden_layers=args.layers,
                num_attention_heads=max(1, args.hidden // 64), intermediate_size=4 * args.hidden,
                hidden_act="gelu", max_position=512)


def ours(vocab, found, folder):
    """A function that trains one step and returns its tokens; seconds to tokenise once."""
    began = time.perf_counter()
    write_records(folder / "records", found, CharTokenizer(vocab, True),
                  Packing(maxlen=args.maxlen, unseen_one_in=0))
    once = time.perf_counter() - began
    mlm = MaskedLanguageModel(**sizes(vocab))
    mlm.draw_weights(0)
    trainer = Pretrainer(mlm, folder / "records",
                         Recipe(10**6, args.batch_size, maxlen=args.maxlen), vocab["[MASK]"],
                         ordinary_ids(vocab), folder / "run")
    data = batches(folder / "records", args.batch_size, args.maxlen, 0)

    def step():
        batch = next(data)
        sums = trainer._train_on([batch])
        trainer.step += 1
        float(sums[0])
        return int(np.count_nonzero(batch))
    return step, once


def article(vocab, found, folder):
    """The same by the article's train.py: bert4keras' model, masks in Python, all positions."""
    tokenizer = Tokenizer(vocab, do_lower_case=True)
    model = build_transformer_model(with_mlm="linear", **sizes(vocab))
    labels = keras.layers.Input((None,))

    def loss_of(tensors):
        true, predicted = tensors
        mask = K.cast(K.not_equal(true, 0), K.floatx())
        loss = K.sparse_categorical_crossentropy(true, predicted, from_logits=True)
        return K.sum(loss * mask) / K.sum(mask)
    loss = keras.layers.Lambda(loss_of)([labels, model.output])
    train = keras.Model(model.inputs + [labels], loss)
    train.add_loss(loss)
    adamw = extend_with_weight_decay(Adam, name="AdamW")
    train.compile(adamw(learning_rate=1e-3, weight_decay_rate=0.01,
                        exclude_from_weight_decay=["Norm", "bias"]))
    stream, draw = packed(tokenizer, found), np.random.default_rng(0)

    def step():
        rows = [next(stream) for _ in range(args.batch_size)]
        masked = [random_masking(row, vocab, draw) for row in rows]
        sources, targets = (np.array([pair[k] + [0] * (args.maxlen - len(pair[k]))
                                      for pair in masked], "float32") for k in (0, 1))
        train.train_on_batch([sources, np.zeros_like(sources), targets])
        return sum(map(len, rows))
    return step, 0.0


def packed(tokenizer, found):
    """Endless rows of ids, tokenised as they are asked for, texts joined to full length."""
    row = [tokenizer._token_start_id]
    while True:
        for text in found:
            ids = tokenizer.encode(text, maxlen=args.maxlen)[0][1:]
            if len(row) + len(ids) > args.maxlen:
                yield row
                row = [tokenizer._token_start_id]
            row = row + ids


def random_masking(ids, vocab, draw):
    """15 %: [MASK], the same, a random token; token by token, as in the article's loop."""
    source, target = [], []
    for r, i in zip(draw.random(len(ids)), ids):
        chosen = r < 0.15 and i > 4
        source.append(vocab["[MASK]"] if chosen and r < 0.12 else
                      int(draw.integers(5, len(vocab))) if chosen and r >= 0.135 else i)
        target.append(i if chosen else 0)
    return source, target


def tokens_a_second(step) -> float:
    """Of ``--steps`` steps in a row."""
    began = time.perf_counter()
    tokens = sum(step() for _ in range(args.steps))
    return tokens / (time.perf_counter() - began)


def main() -> None:
    found, folder = texts(), Path("output/benchmarks/mlm_step")
    vocab = vocabulary(found)
    ways = {"ours": ours(vocab, found, folder), "article": article(vocab, found, folder)}
    for step, _ in ways.values():
        step(), step()
    rounds = [{way: tokens_a_second(step) for way, (step, _) in ways.items()}
              for _ in range(args.rounds)]
    ratios = [one["ours"] / one["article"] for one in rounds]
    speeds = {way: max(one[way] for one in rounds) for way in ways}
    print(format_table([("way", "tokens a second")] + [(w, f"{s:,.0f}")
                                                       for w, s in speeds.items()]))
    print(f"ours : article = {statistics.median(ratios):.2f} (median of {args.rounds} rounds); "
          f"tokenised once in {ways['ours'][1]:.1f} s")
    record = {"settings": {k: v for k, v in vars(args).items() if k not in ("corpus", "vocab",
                                                                           "output")},
              "environment": environment(), "tokens a second": speeds, "ratios": ratios,
              "ratio": statistics.median(ratios), "seconds to tokenise once": ways["ours"][1],
              "claim": "at least 2 times the tokens a second"}
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    replace_file(args.output, lambda beside: beside.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    script.run(main)

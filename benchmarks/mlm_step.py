"""Masked language model: tokens a second, ours beside the article's way, turn about in one run.

    python benchmarks/mlm_step.py                       texts of the project's demo
    python benchmarks/mlm_step.py --corpus FOLDER --vocab vocab.txt

    ours      records tokenised once, masks drawn in the graph, vocabulary projection and last
              feed-forward at the masked positions alone, layers of few passes, fused AdamW
    article   kexue.fm 7758, train.py: tokenisation and masking per batch in Python, projection of
              every position, bert4keras' layers and AdamW

Both train the same model (the size that is shipped), without dropout, on the same rows (texts that
share a sequence), and both report loss and accuracy over the masked positions. Claim: at least 2
times the tokens a second. A token is a position of a row that is not padding; the time of
tokenising once is given beside. So is the ratio of the multiply-adds of the matrix products, which
is what the ratio would be if a step took no other time.
"""

import argparse
import json
import statistics
import time
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np

from bert_theseus import demo, script
from bert_theseus.backend import K, keras
from bert_theseus.published import format_table
from bert_theseus.results import environment, replace_file
from bert_theseus.wobert import (CharTokenizer, MaskedLanguageModel, Packing, Pretrainer, Recipe,
                                 batches, corpus_files, documents, frequent_vocab, ordinary_ids,
                                 read_vocab, write_records)
from bert_theseus.wobert.records import _Packer
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
parser.add_argument("--steps", type=int, default=4, help="of each way in a round")
parser.add_argument("--rounds", type=int, default=11)
parser.add_argument("--output", default="output/benchmarks/mlm_step.json")
args = parser.parse_args()


def texts():
    if not args.corpus:
        random = np.random.default_rng(0)
        return ["".join(demo.make_story(random)[0] for _ in range(8)) for _ in range(2000)]
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
        sums = trainer._train_on([next(data)]).numpy()  # loss, hits, masked positions, tokens
        trainer.step += 1
        return int(sums[3])
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

    def accuracy_of(tensors):
        true, predicted = tensors
        mask = K.cast(K.not_equal(true, 0), K.floatx())
        hits = keras.metrics.sparse_categorical_accuracy(true, predicted)
        return K.sum(hits * mask) / K.sum(mask)
    loss, accuracy = (keras.layers.Lambda(one)([labels, model.output])
                      for one in (loss_of, accuracy_of))
    train = keras.Model(model.inputs + [labels], [loss, accuracy])
    train.add_loss(loss)
    train.add_metric(accuracy, name="accuracy", aggregation="mean")
    adamw = extend_with_weight_decay(Adam, name="AdamW")
    train.compile(adamw(learning_rate=1e-3, weight_decay_rate=0.01,
                        exclude_from_weight_decay=["Norm", "bias"]))
    stream, draw = cycle(rows_of(found, vocab)), np.random.default_rng(0)

    def step():
        rows = [encoded(tokenizer, next(stream)) for _ in range(args.batch_size)]
        masked = [random_masking(row, vocab, draw) for row in rows]
        sources, targets = (np.array([pair[k] + [0] * (args.maxlen - len(pair[k]))
                                      for pair in masked], "float32") for k in (0, 1))
        train.train_on_batch([sources, np.zeros_like(sources), targets])
        return sum(map(len, rows))
    return step, 0.0


def rows_of(found, vocab):
    """The rows of ``write_records``, each as its texts: their first token's place holds a text."""
    tokenizer = CharTokenizer(vocab, True)
    packer = _Packer(tokenizer, lambda text: [text] + [None] * (len(tokenizer.ids(text)) - 1),
                     Packing(maxlen=args.maxlen))
    rows = chain(*(packer.add(text) for text in found), packer.rest())
    return [[one for one in row if isinstance(one, str)] for row in rows]


def encoded(tokenizer, texts_of_row):
    """[CLS] text [SEP] text [SEP] …, by bert4keras' tokenizer."""
    ids = [tokenizer._token_start_id]
    for text in texts_of_row:
        ids += tokenizer.encode(text)[0][1:]
    return ids


def random_masking(ids, vocab, draw):
    """15 %: [MASK], the same, a random token; token by token, as in the article's loop."""
    source, target = [], []
    for r, i in zip(draw.random(len(ids)), ids):
        chosen = r < 0.15 and i > 4
        source.append(vocab["[MASK]"] if chosen and r < 0.12 else
                      int(draw.integers(5, len(vocab))) if chosen and r >= 0.135 else i)
        target.append(i if chosen else 0)
    return source, target


def multiply_adds(share: float, words: int) -> float:
    """Of a position's forward pass; the head, and before it the feed-forward part of the last
    layer, applied to a share of the positions."""
    square = args.hidden ** 2
    everywhere = args.layers * (4 * square + 2 * args.maxlen * args.hidden) \
        + (args.layers - 1) * 8 * square
    return everywhere + share * (8 * square + square + args.hidden * words)


def tokens_a_second(step) -> dict[str, float]:
    """Of ``--steps`` steps in a row, by the clock and by the processor time of this process."""
    began = time.perf_counter(), time.process_time()
    tokens = sum(step() for _ in range(args.steps))
    return {"clock": tokens / (time.perf_counter() - began[0]),
            "processor": tokens / (time.process_time() - began[1])}


def main() -> None:
    found, folder = texts(), Path("output/benchmarks/mlm_step")
    vocab = vocabulary(found)
    ways = {"ours": ours(vocab, found, folder), "article": article(vocab, found, folder)}
    for step, _ in ways.values():
        step(), step()
    rounds = [{way: tokens_a_second(step) for way, (step, _) in ways.items()}
              for _ in range(args.rounds)]
    clocks = ("clock", "processor")
    ratios = {by: [one["ours"][by] / one["article"][by] for one in rounds] for by in clocks}
    ratio = {by: statistics.median(ratios[by]) for by in clocks}
    speeds = {way: {by: statistics.median(one[way][by] for one in rounds) for by in clocks}
              for way in ways}
    print(format_table([("way", "tokens a second", "tokens a second of processor time")]
                       + [(way, *(f"{of[by]:,.0f}" for by in clocks))
                          for way, of in speeds.items()]))
    for by in clocks:
        print(f"ours : article = {ratio[by]:.2f} by the {by} (median of {args.rounds} rounds, "
              f"{min(ratios[by]):.2f} to {max(ratios[by]):.2f})")
    products = multiply_adds(1.0, len(vocab)) / multiply_adds(0.15, len(vocab))
    print(f"multiply-adds alone: {products:.2f}; tokenised once in {ways['ours'][1]:.1f} s")
    record = {"settings": {k: v for k, v in vars(args).items() if k not in ("corpus", "vocab",
                                                                           "output")},
              "environment": environment(), "tokens of the vocabulary": len(vocab),
              "tokens a second": speeds, "ratios": ratios, "ratio": ratio,
              "ratio of the multiply-adds": products,
              "seconds to tokenise once": ways["ours"][1],
              "claim": "at least 2 times the tokens a second"}
    text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
    replace_file(args.output, lambda beside: beside.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    script.run(main)

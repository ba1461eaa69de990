"""Titles and keywords from abstracts (CSL) with a UniLM-masked BERT, in characters or words.

kexue.fm 7758 writes titles with ``csl.py``: text cut to 256 characters, at most 32 tokens of
output, beam search by bert4keras' ``AutoRegressiveDecoder``, the best epoch by BLEU. Scores are
taken on texts in lower case with a space between characters: Rouge-1, -2, -L as F (``rouge``) and
sentence BLEU with smoothing method 1 (``nltk``), so that characters and words compare.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from bert_theseus.backend import keras
from bert_theseus.checkpoint import load_bert
from bert_theseus.clue import TASKS, find_file, read_rows
from bert_theseus.clue.files import find_folder
from bert_theseus.clue.unilm import answer_crossentropy, unilm_batches
from bert_theseus.errors import InputError
from bert4keras.snippets import AutoRegressiveDecoder

METRICS = ("Rouge-L", "Rouge-1", "Rouge-2", "BLEU")
CONTENT, OUTPUT = 256, 32  # characters read, tokens written


@dataclass(frozen=True)
class Pair:
    """A text and what is to be written about it."""

    content: str
    summary: str


def load_pairs(data_dir: str | os.PathLike, name: str = "csl", split: str = "train") -> list[Pair]:
    """Pairs of ``data_dir/name/split.json``: title and content, or CSL's abst and keyword.

    Of CLUE's CSL the rows labelled 1 are taken, whose keywords are all genuine; keywords are
    joined by "；". Raises InputError with file and line.

    >>> import json
    >>> os.makedirs("csl", exist_ok=True)
    >>> _ = open("csl/dev.json", "w").write(json.dumps({"title": "甲", "content": "甲乙"}))
    >>> load_pairs(".", "csl", "dev")
    [Pair(content='甲乙', summary='甲')]
    """
    names = (name, *(TASKS[name].folders if name in TASKS else ()))
    path, pairs = find_file(find_folder(data_dir, names), (split,)), []
    for line, row in read_rows(path):
        if str(row.get("label", "1")) != "1":
            continue
        summary = row.get("title", row.get("keyword"))
        content = row.get("content", row.get("abst"))
        if isinstance(summary, list):
            summary = "；".join(map(str, summary))
        if not (isinstance(summary, str) and isinstance(content, str) and summary and content):
            raise InputError("no text and summary in the row", f"{path}:{line}",
                             "give title and content, or abst and keyword")
        pairs.append(Pair(content[:CONTENT], summary))
    if not pairs:
        raise InputError("no usable row", path, "rows labelled 0 are left out")
    return pairs


def build_generator(bert_dir: str | os.PathLike, model: str = "bert",
                    learning_rate: float = 1e-5) -> keras.Model:
    """[token ids, segment ids] → logits [batch, length, vocabulary] under a UniLM mask."""
    bert = load_bert(bert_dir, model, application="unilm", with_mlm="linear",
                     return_keras_model=True)
    bert.compile(keras.optimizers.Adam(learning_rate), answer_crossentropy)
    return bert


def pair_batches(pairs: Sequence[Pair], tokenizer, batch_size: int = 16, seed: int = 0):
    """Training batches of pairs; see :func:`~bert_theseus.clue.unilm.unilm_batches`."""
    rows = []
    for pair in pairs:
        content = tokenizer.encode(pair.content, maxlen=CONTENT + 2)[0]
        rows.append((content + tokenizer.encode(pair.summary, maxlen=OUTPUT + 1)[0][1:],
                     len(content)))
    return unilm_batches(rows, batch_size, seed, repr(rows).encode())


class Writer(AutoRegressiveDecoder):
    """bert4keras' beam search over a model of :func:`build_generator`.

    >>> from bert_theseus.checkpoint import random_bert
    >>> from bert_theseus.wobert.characters import CharTokenizer
    >>> folder = random_bert("g", "[PAD] [UNK] [CLS] [SEP] [MASK] 天 气".split(), 1, 8, heads=2)
    >>> writer = Writer(build_generator(folder), CharTokenizer("g/vocab.txt"), maxlen=4)
    >>> len(writer.write("天气", beam_size=2)) <= 4
    True
    """

    def __init__(self, model: keras.Model, tokenizer, maxlen: int = OUTPUT):
        super().__init__(start_id=None, end_id=tokenizer._token_end_id, maxlen=maxlen)
        self.tokenizer = tokenizer
        row = tf.TensorSpec([None, None], tf.int32)
        self._last = tf.function(lambda tokens, segments: tf.nn.softmax(
            model([tokens, segments], training=False)[:, -1]), [row, row])

    @AutoRegressiveDecoder.wraps("probas")
    def predict(self, inputs, output_ids, states):
        """Probabilities [beams, vocabulary] of the next token; called by the beam search."""
        tokens, segments = inputs
        return self._last(np.concatenate([tokens, output_ids], 1).astype("int32"), np.concatenate(
            [segments, np.ones_like(output_ids)], 1).astype("int32")).numpy()

    def write(self, content: str, beam_size: int = 1) -> str:
        """What the model writes about a text."""
        inputs = self.tokenizer.encode(content, maxlen=CONTENT + 2)
        return self.tokenizer.decode(self.beam_search(list(inputs), beam_size))


def measure(writer: Writer, pairs: Sequence[Pair], beam_size: int = 1) -> dict[str, float]:
    """Rouge-L, Rouge-1, Rouge-2 and BLEU in [0, 1], means over the pairs."""
    written = [writer.write(pair.content, beam_size)
               for pair in tqdm(pairs, f"writing, beam {beam_size}", delay=2, leave=False)]
    return score(written, [pair.summary for pair in pairs])


def score(written: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """The article's metrics; an empty text counts 0.

    >>> {name: round(value, 2) for name, value in score(["甲乙丙"], ["甲乙丁"]).items()}
    {'Rouge-L': 0.67, 'Rouge-1': 0.67, 'Rouge-2': 0.5, 'BLEU': 0.24}
    """
    rouge, bleu = _scorers()
    totals = dict.fromkeys(METRICS, 0.0)
    for one, two in zip(written, wanted, strict=True):
        one, two = (" ".join(text.lower()).strip() for text in (one, two))
        if one and two:
            scores = rouge(one, two)
            for kind in ("l", "1", "2"):
                totals[f"Rouge-{kind.upper()}"] += scores[f"rouge-{kind}"]["f"]
            totals["BLEU"] += bleu(one.split(), two.split())
    return {name: total / len(wanted) for name, total in totals.items()}


def _scorers():
    try:
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
        from rouge import Rouge
    except ImportError as error:
        raise InputError(f"{error.name} is not installed", "Rouge and BLEU",
                         "pip install rouge nltk regex") from None
    smooth = SmoothingFunction().method1
    return (lambda one, two: Rouge().get_scores(one, two)[0],
            lambda one, two: sentence_bleu([two], one, smoothing_function=smooth))

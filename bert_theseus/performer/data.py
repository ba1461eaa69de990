"""Texts of a task as the study's batches: some of them, or joined to long documents."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bert4keras.tokenizers import Tokenizer

from bert_theseus.checkpoint import BertFolder
from bert_theseus.clue import Batches, Example, Task
from bert_theseus.performer.model import check_token_ids


def drawn(examples: Sequence[Example], count: int, seed: int = 0) -> list[Example]:
    """``count`` examples in an order that the seed draws; all of them where there are fewer.

    >>> sorted(e.text for e in drawn([Example("a"), Example("b"), Example("c")], count=9, seed=1))
    ['a', 'b', 'c']
    """
    order = np.random.default_rng(seed).permutation(len(examples))[:count]
    return [examples[i] for i in order]


def joined(examples: Sequence[Example], count: int, characters: int, seed: int = 0,
           share: float = 0.7) -> list[Example]:
    """Long documents out of short labelled texts: the label is what most of the texts say.

    Each document draws a label, then texts until it has that many characters: a text of its label
    with probability ``share``, any text otherwise. No text alone gives the answer away.

    >>> short = [Example("好。", label="1"), Example("差。", label="0")]
    >>> document = joined(short, count=1, characters=40)[0]
    >>> len(document.text), document.text.count("好") > 10, document.label
    (40, True, '1')
    """
    random, texts = np.random.default_rng(seed), {}
    for example in examples:
        texts.setdefault(example.label, []).append(example.text)
    labels, documents = sorted(texts), []
    for number in range(count):
        label, text = labels[random.integers(len(labels))], ""
        while len(text) < characters:
            own = texts[label] if random.random() < share else texts[
                labels[random.integers(len(labels))]]
            text += own[random.integers(len(own))]
        documents.append(Example(text[:characters], label=label, id=number))
    return documents


def checked_batches(task: Task, examples: Sequence[Example], paths: BertFolder, maxlen: int,
                    batch_size: int, shuffle: bool, seed: int) -> Batches:
    """Batches for the model in ``paths``; InputError if its vocabulary is larger than it is."""
    batches = Batches(task, examples, Tokenizer(paths.dict_path, do_lower_case=True), maxlen,
                      batch_size, shuffle, seed)
    config = json.loads(Path(paths.config_path).read_text(encoding="utf-8"))
    for rows in batches.by_length():
        check_token_ids(batches.inputs(rows)[0], config["vocab_size"], paths.dict_path)
    return batches

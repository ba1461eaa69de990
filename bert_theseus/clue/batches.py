"""Examples as batches: tokenised once, padded to their own longest row, in a reproducible order.

An epoch's order is a function of (seed, epoch): the examples are permuted, cut into stretches of
``BUCKET`` batches, each stretch is sorted by length and cut into batches, and the batches are
permuted again. Rows of a batch thus have about the same length, which saves most of the padding,
while which rows meet is still random.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from bert_theseus.clue.tagging import encode_tags, entities_of
from bert_theseus.clue.tasks import Example, Task
from bert_theseus.errors import InputError

BUCKET = 64
"""Batches per stretch that is sorted by length."""


class NumpyBatches:
    """The order of batches, for any rows: what :class:`Batches` and own data sources share.

    size, batch_size, shuffle, seed: number of rows, rows a batch, and the order.
    lengths: [size] row lengths to sort by, or None.
    make:    row numbers [batch] → what a training step gets, e.g. ``(inputs, labels)``.
    identity: bytes that tell this data from other data; a resumed run must have the same.

    >>> batches = NumpyBatches(5, 2, lambda rows: (rows,), shuffle=False)
    >>> [rows.tolist() for (rows,) in batches.epoch(0)]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, size: int, batch_size: int, make: Callable[[np.ndarray], tuple],
                 shuffle: bool = True, seed: int = 0, lengths: Sequence[int] | None = None,
                 identity: bytes = b""):
        if batch_size < 1:
            raise InputError(f"batch size {batch_size}", "batch_size", "use 1 or more")
        if size < 1:
            raise InputError("no example to make batches of", "examples")
        self.size, self.batch_size, self.shuffle, self.seed = size, batch_size, shuffle, seed
        self.lengths = np.zeros(size, "int64") if lengths is None else np.asarray(lengths, "int64")
        self.make, self._identity = make, identity

    def __len__(self) -> int:
        """Steps an epoch."""
        return -(-self.size // self.batch_size)

    def plan(self, epoch: int) -> list[np.ndarray]:
        """The row numbers of each batch of an epoch; every row once."""
        if not self.shuffle:
            return self._cut(np.arange(self.size))
        random = np.random.default_rng([self.seed, epoch])
        order, stretch = random.permutation(self.size), BUCKET * self.batch_size
        parts = [order[i:i + stretch] for i in range(0, self.size, stretch)]
        batches = [batch for part in parts
                   for batch in self._cut(part[np.argsort(self.lengths[part], kind="stable")])]
        return [batches[i] for i in random.permutation(len(batches))]

    def by_length(self) -> list[np.ndarray]:
        """A plan sorted by length: the least padding, for prediction."""
        return self._cut(np.argsort(self.lengths, kind="stable"))

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        return [order[i:i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple]:
        """The batches of an epoch from step ``start`` on."""
        for rows in self.plan(epoch)[start:]:
            yield self.make(rows)

    def forfit(self) -> Iterator[tuple]:
        """Batches without end, as ``model.fit(batches.forfit(), steps_per_epoch=len(batches))``
        wants them."""
        for epoch in itertools.count():
            yield from self.epoch(epoch)

    def tf_dataset(self, epochs: int | None = None):
        """The same as a ``tf.data.Dataset`` with prefetch, for other training loops."""
        import tensorflow as tf

        def spec(x):
            """Type and rank of an array; every axis may differ from batch to batch."""
            return tf.TensorSpec([None] * np.ndim(x), np.asarray(x).dtype)

        signature = tf.nest.map_structure(spec, _tuples(self.make(np.arange(1))))

        def generate():
            for epoch in itertools.count() if epochs is None else range(epochs):
                yield from map(_tuples, self.epoch(epoch))

        return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(4)

    def fingerprint(self) -> dict:
        """What a resumed run must share with the run it goes on with."""
        digest = hashlib.sha256(self._identity + self.lengths.tobytes()).hexdigest()[:16]
        return {"examples": self.size, "batch size": self.batch_size, "shuffle": self.shuffle,
                "data seed": self.seed, "data": digest}


class Batches(NumpyBatches):
    """Batches of a CLUE task for bert4keras models.

    task, examples: as from :func:`get_task` and :meth:`Task.load`.
    tokenizer:      any bert4keras ``Tokenizer``; one that offers ``encode_batch`` is asked for
                    single texts as a whole.
    maxlen:         longest row in tokens, [CLS] and [SEP] included; pairs lose tokens of the
                    longer text first, as in bert4keras.

    A batch is ``([token_ids, segment_ids], labels)``, int32 [batch, length], [batch, length],
    [batch]. Tagging has ``(…, tag ids [batch, length], weights [batch, length])`` with weight 0
    on [CLS], [SEP] and padding, which Keras takes as sample weights. Unlabelled examples give
    ``([token_ids, segment_ids],)``.

    Raises InputError for no examples, and for a maxlen that leaves no room for text.
    """

    def __init__(self, task: Task, examples: Sequence[Example], tokenizer, maxlen: int = 128,
                 batch_size: int = 32, shuffle: bool = True, seed: int = 0):
        if not examples:
            raise InputError("no example to make batches of", task.name)
        if maxlen < 5:
            raise InputError(f"maxlen {maxlen}", "maxlen", "use 5 or more")
        self.task, self.examples, self.tokenizer = task, examples, tokenizer
        self.maxlen, self.mappings = maxlen, []
        self.labelled = all(example.label is not None for example in examples)
        ids, segments = self._tokenise()
        self._tokens, self._segments = np.concatenate(ids), np.concatenate(segments)
        lengths = np.fromiter(map(len, ids), "int64", len(ids))
        self._ends = np.cumsum(lengths)
        self._labels = self._encode_labels() if self.labelled else None
        identity = b"".join(x.tobytes() for x in (self._tokens, self._segments, self._labels)
                            if x is not None)
        super().__init__(len(ids), batch_size, self._make, shuffle, seed, lengths, identity)

    def _tokenise(self) -> tuple[list, list]:
        if self.task.kind == "tagging":
            encode = self._encode_for_tags
        elif self.task.kind == "single" and hasattr(self.tokenizer, "encode_batch"):
            return self._encode_together()
        else:
            encode = self._encode
        pairs = [encode(example) for example in
                 tqdm(self.examples, f"tokenising {self.task.name}", delay=2, leave=False,
                      mininterval=0.5)]
        return ([np.asarray(ids, "int32") for ids, _ in pairs],
                [np.asarray(segments, "int32") for _, segments in pairs])

    def _encode(self, example: Example) -> tuple[list, list]:
        return self.tokenizer.encode(example.text, example.text2, maxlen=self.maxlen)

    def _encode_together(self) -> tuple[list, list]:
        rows = self.tokenizer.encode_batch([e.text for e in self.examples], maxlen=self.maxlen)
        ids = [np.asarray(row, "int32") for row in rows]
        return ids, [np.zeros_like(row) for row in ids]

    def _encode_for_tags(self, example: Example) -> tuple[list, list]:
        tokens = self.tokenizer.tokenize(example.text, maxlen=self.maxlen)
        try:
            self.mappings.append(self.tokenizer.rematch(example.text, tokens))
        except ValueError:
            raise InputError("the tokenizer does not find its own tokens in the text",
                             f"row with id {example.id} of {self.task.name}",
                             "delete unusual characters from it") from None
        return self.tokenizer.tokens_to_ids(tokens), [0] * len(tokens)

    def _encode_labels(self) -> np.ndarray:
        if self.task.kind != "tagging":
            ids = {label: i for i, label in enumerate(self.task.labels)}
            return np.array([ids[example.label] for example in self.examples], "int32")
        rows = [encode_tags(entities_of(example.label), mapping, self.task.tags)
                for example, mapping in zip(self.examples, self.mappings)]
        return np.concatenate([np.asarray(row, "int32") for row in rows])

    @property
    def labels(self) -> np.ndarray | None:
        """Label ids [examples] in the examples' order; None for tagging or without labels."""
        return None if self.task.kind == "tagging" else self._labels

    def inputs(self, rows: np.ndarray) -> list[np.ndarray]:
        """[token_ids, segment_ids] of these rows, padded with 0 to the longest of them."""
        return [self._pad(self._tokens, rows), self._pad(self._segments, rows)]

    def _pad(self, flat: np.ndarray, rows: np.ndarray) -> np.ndarray:
        lengths, ends = self.lengths[rows], self._ends[rows]
        padded = np.zeros((len(rows), lengths.max()), flat.dtype)
        for row, length, end in zip(padded, lengths.tolist(), ends.tolist()):
            row[:length] = flat[end - length:end]
        return padded

    def _make(self, rows: np.ndarray) -> tuple:
        inputs = self.inputs(rows)
        if self._labels is None:
            return (inputs,)
        if self.task.kind != "tagging":
            return inputs, self._labels[rows]
        return inputs, self._pad(self._labels, rows), self._weights(rows)

    def _weights(self, rows: np.ndarray) -> np.ndarray:
        weights = np.zeros((len(rows), self.lengths[rows].max()), "float32")
        for weight, row in zip(weights, rows):
            weight[:self.lengths[row]] = [len(chars) > 0 for chars in self.mappings[row]]
        return weights


def _tuples(value):
    """Lists as tuples: tf.data takes a list for a tensor."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value

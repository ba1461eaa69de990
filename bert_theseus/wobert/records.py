"""A corpus tokenised once, into sharded TFRecord files, and read back in a seeded order.

A record is a sequence ``[CLS] piece [SEP] piece [SEP] …`` as little-endian int32; a token that
goes on with the word of the one before it is stored as ``-id``, which is all that whole-word
masking needs. Each sequence goes to a shard drawn with the seed, and neither writing nor reading
ever holds the corpus. Within a shard the order is that of the corpus; an epoch reads the shards in
a drawn order through a shuffle buffer, so a shard has to be short beside the buffer, or else every
shard is once more a walk from the first file of the corpus to the last.

``index.json`` is written last and names what the shards were made from: a folder that was not
finished, or was made from something else, is made again.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.results import replace_file
from bert_theseus.wobert.corpus import held_out, pieces

SPLITS = ("train", "unseen")
BUFFER = 10_000  # sequences


@dataclass(frozen=True)
class Packing:
    """How documents become sequences.

    maxlen:        tokens a sequence holds, [CLS] and [SEP] included.
    char_factor:   a piece holds at most this many times maxlen characters (1.3 in the article).
    join:          whether documents that leave room share a sequence, separated by [SEP].
    unseen_one_in: one document in so many is held out to measure on; 0 holds out none.
    shards:        number of files for the training part: 64 are each shorter than the shuffle
                   buffer up to 640,000 sequences.
    seed:          of the distribution over the shards.
    """

    maxlen: int = 128
    char_factor: float = 1.3
    join: bool = True
    unseen_one_in: int = 200
    shards: int = 64
    seed: int = 42


def write_records(folder: str | Path, texts: Iterable[str], tokenizer, packing: Packing,
                  words: Callable[[str], list[str]] | None = None, source: str = "") -> dict:
    """Tokenises ``texts`` (documents) into ``folder``; returns what ``index.json`` says.

    tokenizer: with ``ids(text)`` and the special tokens of a bert4keras tokenizer.
    words:     text → its words; given, tokens that go on with a word are marked.
    source:    what the texts are; with the packing and the vocabulary it decides whether the
               folder can be used again (:func:`fingerprint`).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    encode = _marked(tokenizer, words)
    writers = {split: [tf.io.TFRecordWriter(str(path)) for path in _paths(folder, split, packing)]
               for split in SPLITS}
    counts = {split: {"sequences": 0, "tokens": 0, "documents": 0} for split in SPLITS}
    draw = random.Random(packing.seed)
    packers = {split: _Packer(tokenizer, encode, packing) for split in SPLITS}

    def write(split, sequence):
        draw.choice(writers[split]).write(np.asarray(sequence, "<i4").tobytes())
        counts[split]["sequences"] += 1
        counts[split]["tokens"] += len(sequence)

    for text in texts:
        split = SPLITS[held_out(text, packing.unseen_one_in)]
        counts[split]["documents"] += 1
        for sequence in packers[split].add(text):
            write(split, sequence)
    for split in SPLITS:
        for sequence in packers[split].rest():
            write(split, sequence)
    for writer in chain(*writers.values()):
        writer.close()
    return _finish(folder, counts, fingerprint(tokenizer, packing, words is not None, source))


def records_of(folder: str | Path, texts: Callable[[], Iterable[str]], tokenizer,
               packing: Packing, words=None, source: str = "") -> dict:
    """The index of ``folder``: as it is if it was made from the same, else written anew.

    Folders of 8 shards, once the default, are used as they are.
    """
    index, known = read_index(folder), {
        fingerprint(tokenizer, one, words is not None, source)
        for one in (packing, replace(packing, shards=8))}
    if index is None or index["fingerprint"] not in known:
        index = write_records(folder, texts(), tokenizer, packing, words, source)
    return index


def fingerprint(tokenizer, packing: Packing, marked: bool, source: str) -> str:
    """What the records depend on, as a hash."""
    parts = [sorted(tokenizer._token_dict.items(), key=lambda item: item[1]),
             type(tokenizer).__name__, vars(packing), marked, source]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def read_index(folder: str | Path) -> dict | None:
    """What ``index.json`` says, or None where the folder is not finished."""
    path = Path(folder) / "index.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def batches(folder: str | Path, batch_size: int, maxlen: int, seed: int,
            start: int = 0) -> Iterator[tf.Tensor]:
    """Endless training batches [batch_size, maxlen] of signed ids, padded with 0.

    Batch n is the same for every ``start`` ≤ n: each epoch has its own seeded order of shards
    and its own seeded shuffle buffer; an unfinished last batch of an epoch is left out.
    """
    count = (read_index(folder) or {})["train"]["sequences"]
    per_epoch = count // batch_size
    if per_epoch == 0:
        raise InputError(f"only {count} sequences for batches of {batch_size}", str(folder),
                         "give more text or a smaller --batch_size")
    epoch, skip = divmod(start, per_epoch)
    while True:
        data = _epoch(folder, seed, epoch).batch(batch_size, drop_remainder=True)
        data = data.skip(skip).map(lambda raw: _decode(raw, maxlen)).prefetch(2)
        yield from data
        epoch, skip = epoch + 1, 0


def unseen_batches(folder: str | Path, batch_size: int, maxlen: int) -> Iterator[tf.Tensor]:
    """The held-out part, once, in the order it stands in."""
    paths = sorted(str(path) for path in Path(folder).glob("unseen-*.tfrecord"))
    data = tf.data.TFRecordDataset(paths).batch(batch_size)
    yield from data.map(lambda raw: _decode(raw, maxlen))


def _epoch(folder, seed: int, epoch: int) -> tf.data.Dataset:
    paths = sorted(str(path) for path in Path(folder).glob("train-*.tfrecord"))
    random.Random(f"{seed}/{epoch}").shuffle(paths)
    return tf.data.TFRecordDataset(paths).shuffle(BUFFER, seed=seed * 100_003 + epoch)


def _decode(raw, maxlen: int):
    """Strings [batch] → int32 [batch, maxlen]."""
    ids = tf.io.decode_raw(raw, tf.int32, fixed_length=4 * maxlen)
    return tf.ensure_shape(ids, [None, maxlen])


class _Packer:
    """Collects pieces into sequences of at most maxlen tokens.

    A piece joins the fullest of ``OPEN`` unfinished sequences that has room for it; where none
    has, the fullest is done. That leaves a few per cent of padding instead of a fifth.
    """

    OPEN = 512

    def __init__(self, tokenizer, encode, packing: Packing):
        self.encode, self.packing, self.open = encode, packing, []
        self.room = packing.maxlen - 2
        self.start, self.end = tokenizer._token_start_id, tokenizer._token_end_id
        self.count = lambda text: len(tokenizer.ids(text))

    def add(self, document: str) -> Iterator[list[int]]:
        limit = int(self.packing.char_factor * self.packing.maxlen)
        for piece in pieces(document, self.count, self.room, limit):
            ids = self.encode(piece)[:self.room] + [self.end]
            if not self.packing.join:
                yield [self.start] + ids
                continue
            home = self._fullest(self.packing.maxlen - len(ids))
            if home is None:
                if len(self.open) == self.OPEN:
                    yield self.open.pop(self.open.index(self._fullest(self.packing.maxlen)))
                home = [self.start]
                self.open.append(home)
            home += ids

    def rest(self) -> Iterator[list[int]]:
        yield from self.open
        self.open = []

    def _fullest(self, most: int) -> list[int] | None:
        return max((one for one in self.open if len(one) <= most), key=len, default=None)


def _marked(tokenizer, words) -> Callable[[str], list[int]]:
    """text → ids, negative where a token goes on with the word before it."""
    if words is None:
        return tokenizer.ids

    def encode(text: str) -> list[int]:
        whole = tokenizer.ids(text)
        by_word = [tokenizer.ids(word) for word in words(text)]
        if list(chain(*by_word)) != whole:  # a word boundary inside a word piece: no marks
            return whole
        return [-i if k else i for ids in by_word for k, i in enumerate(ids)]

    return encode


def _paths(folder: Path, split: str, packing: Packing) -> list[Path]:
    count = packing.shards if split == "train" else 1
    for old in folder.glob(f"{split}-*.tfrecord"):
        old.unlink()
    return [folder / f"{split}-{i:03d}-of-{count:03d}.tfrecord" for i in range(count)]


def _finish(folder: Path, counts: dict, made_from: str) -> dict:
    if counts["train"]["sequences"] == 0:
        raise InputError("the corpus holds no text", str(folder), "give more text")
    index = {**counts, "fingerprint": made_from}
    text = json.dumps(index, indent=1)
    replace_file(folder / "index.json", lambda beside: beside.write_text(text, encoding="utf-8"))
    return index

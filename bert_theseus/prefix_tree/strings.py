"""The distinct strings of one field → its sorted table, in bounded memory.

1. share:  the strings of a chunk lie on disk by hash, so those of all chunks whose hashes begin
           alike are read together; each distinct one is tokenised once and dealt out by its first
           tokens to a range.
2. sort:   range by range the sequences are sorted and appended to the table; their places in it
           are the strings' ranks.
3. ranks:  share by share the ranks go back to the chunks.

In memory are one share, a few ranges, and per distinct string its rank and two lengths.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.prefix_tree import fields
from bert_theseus.prefix_tree.container import Writer
from bert_theseus.prefix_tree.tables import (Sequences, branching_nodes, common_prefixes,
                                             sort_sequences)
from bert_theseus.prefix_tree.tokens import BatchTokenizer

SHARE_STRINGS = 1 << 21    # strings of chunks read together
RANGE_STRINGS = 1 << 19    # distinct strings sorted at a time
_SLOTS = 256               # values of a hash's first byte


def in_order(function: Callable, items: Iterable, threads: int) -> Iterator:
    """``map`` over a few threads that never runs more than one item ahead of them."""
    with ThreadPoolExecutor(threads) as pool:
        items, waiting = iter(items), []
        for item in islice(items, threads + 1):
            waiting.append(pool.submit(function, item))
        while waiting:
            result = waiting.pop(0).result()
            for item in islice(items, 1):
                waiting.append(pool.submit(function, item))
            yield result


def offsets(lengths: np.ndarray) -> np.ndarray:
    """0, then the running sum; 32 bits where they suffice."""
    ends = np.concatenate([[0], np.cumsum(lengths, dtype="int64")])
    return ends.astype("uint32" if ends[-1] < 1 << 32 else "uint64")


@dataclass
class Distinct:
    """Where the distinct strings of a chunk stand in its files: per slot of hashes, and the end."""

    rows: np.ndarray       # [slots + 1]
    octets: np.ndarray     # [slots + 1]

    @classmethod
    def find(cls, lines: fields.Lines, field: str, path: Path) -> "Distinct":
        """Writes a chunk's distinct strings of a field by hash: ``path`` + ``.text`` (a line
        each), ``.hashes`` [distinct, 2], ``.rows`` (which string each line has)."""
        one, two = fields.hashes(lines, field)
        values, first, inverse = np.unique(one, return_index=True, return_inverse=True)
        _refuse_collision(two[first][inverse] != two)
        inverse.astype("uint32").tofile(f"{path}.rows")
        np.stack([values, two[first]], 1).tofile(f"{path}.hashes")
        strings = lines.strings(field, first)
        Path(f"{path}.text").write_bytes(b"".join([text + b"\n" for text in strings]))
        rows = np.searchsorted(values >> np.uint64(56), np.arange(_SLOTS + 1, dtype="uint64"))
        return cls(rows, np.cumsum([0, *(len(text) + 1 for text in strings)])[rows])

    def read(self, path: Path, start: int, end: int) -> tuple[np.ndarray, list[bytes]]:
        """Hashes and strings of the slots ``start … end − 1``."""
        (first, last), (begin, stop) = self.rows[[start, end]], self.octets[[start, end]]
        hashes = np.fromfile(f"{path}.hashes", "uint64", 2 * (last - first), offset=16 * first)
        with open(f"{path}.text", "rb") as file:
            file.seek(begin)
            return hashes.reshape(-1, 2), file.read(stop - begin).split(b"\n")[:-1]


class StringTable:
    """The table of one field, from the distinct strings of all chunks.

    paths: the beginnings of the chunks' files (see :meth:`Distinct.find`). In the end each has
    ``.rows`` as before and ``.ranks`` [distinct, 2]: the row of the table, and which of the
    strings that share this row.
    """

    def __init__(self, field: str, chunks: list[Distinct], paths: list[Path],
                 tokens: BatchTokenizer, writer: Writer):
        self.field, self.chunks, self.paths = field, chunks, paths
        self.tokens, self.writer = tokens, writer
        self.strings = self.groups = 0
        self.lengths, self.text_lengths, self.shared = [], [], []     # of each range
        self.counts = dict.fromkeys(
            (f"{field}s", f"{field}s with [UNK]", f"{field}s sharing their ids"), 0)

    def build(self, source: Path, threads: int, report: Callable) -> None:
        """All steps; ``source`` is named in errors."""
        shares = _shares(sum(np.diff(chunk.rows) for chunk in self.chunks))
        for number, slots in enumerate(shares):
            report(f"{self.field}s", self._deal(number, slots, len(shares)))
        self.ranks = np.empty((self.strings, 2), "uint32")
        for part in in_order(self._sort, range(len(self.bounds) + 1), threads):
            self._append(*part, source)
        self._finish()
        for number, slots in enumerate(shares):
            self._give_back(number, slots)

    def _path(self, number: int, kind: str) -> Path:
        return self.writer.folder / f"{self.field}.{number}.{kind}"

    # ---- 1. share --------------------------------------------------------------------------
    def _deal(self, number: int, slots: tuple[int, int], shares: int) -> int:
        """Tokenises the distinct strings of a share and deals them out; how many there are."""
        parts = [chunk.read(path, *slots) for chunk, path in zip(self.chunks, self.paths)]
        hashes = np.concatenate([hashes for hashes, _ in parts])
        every = [text for _, strings in parts for text in strings]
        _, first, inverse = np.unique(hashes[:, 0], return_index=True, return_inverse=True)
        _refuse_collision(hashes[first, 1][inverse] != hashes[:, 1])
        (inverse + self.strings).astype("uint32").tofile(self._path(number, "inverse"))
        texts = [every[row] for row in first.tolist()]
        sequences = Sequences(*self.tokens.encode([text.decode() for text in texts]))
        keys = sequences.packed(np.arange(len(texts)), 0)
        if not number:   # hashes are random: the first share is a sample of all
            ranges = -(-len(texts) * shares // RANGE_STRINGS)
            bounds = np.unique(np.sort(keys)[len(texts) * np.arange(1, ranges) // ranges])
            self.bounds = bounds[bounds > keys.min()]    # sort keys that begin a new range
        self._cut(np.searchsorted(self.bounds, keys, "right"), sequences, texts)
        self.strings += len(texts)
        return len(texts)

    def _cut(self, ranges: np.ndarray, sequences: Sequences, texts: list[bytes]) -> None:
        order = np.argsort(ranges, kind="stable")
        cuts = np.searchsorted(ranges[order], np.arange(len(self.bounds) + 2)).tolist()
        for number, (start, end) in enumerate(zip(cuts[:-1], cuts[1:])):
            rows = order[start:end]
            for kind, data in (("ids", sequences.take(rows)),
                               ("lengths", sequences.lengths[rows].astype("uint32")),
                               ("places", (rows + self.strings).astype("uint32")),
                               ("texts", b"".join([texts[row] + b"\n" for row in rows.tolist()]))):
                with open(self._path(number, kind), "ab") as file:
                    file.write(data)

    # ---- 2. sort ---------------------------------------------------------------------------
    def _sort(self, number: int):
        """One range: its table, the tokens shared from row to row, its strings, their places,
        where a new row begins, and how many strings have an unknown token."""
        ids, lengths, places, octets = (self._take(number, *kind) for kind in (
            ("ids", self.tokens.dtype), ("lengths", "uint32"), ("places", "uint32"),
            ("texts", "uint8")))
        ends = np.flatnonzero(octets == 10)
        sequences = Sequences(ids, lengths)
        texts = Sequences(octets[octets != 10], np.diff(ends, prepend=-1) - 1)
        order, fresh = sort_sequences(sequences)
        table, texts = sequences.rows(order[fresh]), texts.rows(order)
        return (table, common_prefixes(table), texts, places[order], fresh,
                sequences.holding(self.tokens.unknown_id))

    def _take(self, number: int, kind: str, dtype: str) -> np.ndarray:
        path = self._path(number, kind)
        data = np.fromfile(path, dtype)
        path.unlink()
        return data

    def _append(self, table, shared, texts, places, fresh, unknown: int, source: Path) -> None:
        """Adds a sorted range to the table and notes the ranks of its strings."""
        if (table.ids == self.tokens.end_id).sum() != len(table.lengths):
            raise InputError(f"a {self.field} holds the end token", source, "take it out")
        group = np.cumsum(fresh) - 1
        self.ranks[places, 0] = group + self.groups
        self.ranks[places, 1] = np.arange(len(group)) - np.flatnonzero(fresh)[group]
        write = self.writer.append
        write(f"{self.field}.ids", table.ids)
        write(f"{self.field}.text", texts.ids)
        write(f"{self.field}.extra", (group + self.groups)[~fresh], "uint32")
        self.lengths.append(table.lengths.astype("uint32"))
        self.text_lengths.append(texts.lengths.astype("uint32"))
        self.shared.append(shared)
        several = ~fresh
        several[:-1] |= ~fresh[1:]
        for name, count in zip(self.counts, (len(group), unknown, int(several.sum()))):
            self.counts[name] += count
        self.groups += len(table.lengths)

    def _finish(self) -> None:
        """Writes what needs the whole table."""
        write, lengths = self.writer.append, np.concatenate(self.lengths)
        write(f"{self.field}.starts", offsets(lengths))
        write(f"{self.field}.text_starts", offsets(np.concatenate(self.text_lengths)))
        if self.field == "subject":
            table = Sequences(self.writer.view("subject.ids"), lengths)
            firsts = np.cumsum([len(part) for part in self.shared])[:-1]
            shared = np.concatenate(self.shared)
            shared[firsts] = [table.common(row - 1, row) for row in firsts.tolist()]
            for name, nodes in branching_nodes(table, shared).items():
                write(f"node.{name}", nodes, self.tokens.dtype if name == "token" else "uint32")

    # ---- 3. ranks --------------------------------------------------------------------------
    def _give_back(self, number: int, slots: tuple[int, int]) -> None:
        inverse = self._take(number, "inverse", "uint32")
        start, end = slots
        sizes = [chunk.rows[end] - chunk.rows[start] for chunk in self.chunks]
        for path, own in zip(self.paths, np.split(inverse, np.cumsum(sizes)[:-1])):
            with open(f"{path}.ranks", "ab") as file:
                file.write(self.ranks[own])


def _shares(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Slots ``start … end − 1`` that are read together, from the strings in each slot."""
    number = (np.cumsum(sizes) - sizes) // SHARE_STRINGS
    starts = np.flatnonzero(np.diff(number, prepend=-1)).tolist()
    return list(zip(starts, [*starts[1:], len(sizes)]))


def _refuse_collision(collided: np.ndarray) -> None:
    if collided.any():
        raise RuntimeError("two strings share a 64-bit hash; change fields._MULTIPLIERS")

"""Knowledge file → prefix tree, in bounded memory.

1. scan:     chunk by chunk, lines are cut into fields; each field's distinct strings are found by
             their hashes; what a line is made of goes to disk as three small integers.
2. tables:   the distinct strings of all chunks are tokenised once and sorted by their ids, see
             ``strings.py``.
3. scatter:  the lines, now triples of ranks, are dealt out to buckets of neighbouring subjects.
4. gather:   each bucket is sorted and appended to the file's columns, its objects compressed.

In memory are a few chunks and a few numbers per distinct string, none per line. The steps are numpy
and zlib, which release Python's lock, hence threads. Scratch files are raw arrays: the head of an
.npy file is read by ``ast``, which CPython before 3.11.8 cannot do in several threads at once.
"""

import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.prefix_tree import fields
from bert_theseus.prefix_tree.container import Writer
from bert_theseus.prefix_tree.strings import Distinct, StringTable, in_order, offsets
from bert_theseus.prefix_tree.tokens import BatchTokenizer

FIELDS = ("subject", "predicate", "meaning")
BLOCK = 256                # keys whose objects are compressed together
BUCKET_LINES = 1 << 21     # lines sorted at a time
CHUNK_BYTES = 1 << 26


@dataclass
class Chunk:
    """What stays in memory of a scanned chunk; the rest is in ``folder`` under its number."""

    number: int
    lines: int
    digest: bytes
    strings: dict[str, Distinct]       # of each field


class Build:
    """One build: the steps above in order. ``path`` is the knowledge file, ``folder`` scratch."""

    def __init__(self, path: Path, tokenizer, folder: Path, threads: int, report: Callable):
        self.path, self.folder, self.threads, self.report = path, folder, threads, report
        self.tokens = BatchTokenizer(tokenizer)
        self.writer = Writer(folder)
        self.chunks: list[Chunk] = []
        self.counts: dict[str, int] = {}

    def run(self, target: Path, meta: dict) -> None:
        """All steps; ``target`` appears at the very end, whole."""
        self.scan()
        for field in FIELDS:
            self.table(field)
        self.scatter()
        self.gather()
        digest = hashlib.blake2b(b"".join(c.digest for c in self.chunks), digest_size=16)
        source = {"name": self.path.name, "bytes": self.path.stat().st_size,
                  "digest": digest.hexdigest()}
        self.writer.write(target, {**meta, "source": source, "counts": self.counts})

    # ---- 1. scan ---------------------------------------------------------------------------
    def scan(self) -> None:
        """Reads the knowledge file once and fills ``chunks``; raises InputError without a triple."""
        numbered = enumerate(fields.read_chunks(self.path, CHUNK_BYTES))
        for chunk in in_order(self._scan_chunk, numbered, self.threads):
            self.chunks.append(chunk)
            self.report("lines read", chunk.lines)
        self.counts["triples"] = sum(chunk.lines for chunk in self.chunks)
        if not self.counts["triples"]:
            raise InputError("no triple in the knowledge file", self.path, "name another file")

    def _scan_chunk(self, item) -> Chunk:
        number, (first_line, data) = item
        lines = fields.parse(data, first_line, self.path)
        strings = {field: Distinct.find(lines, field, self._path(number, field))
                   for field in FIELDS}
        self._path(number, "objects").write_bytes(b"\n".join(fields.objects(lines)))
        return Chunk(number, len(lines), hashlib.blake2b(data, digest_size=16).digest(), strings)

    def _path(self, number: int, name: str) -> Path:
        return self.folder / f"{number}.{name}"

    # ---- 2. tables -------------------------------------------------------------------------
    def table(self, field: str) -> None:
        """Tokenises, sorts and writes the distinct strings of one field."""
        table = StringTable(field, [chunk.strings.pop(field) for chunk in self.chunks],
                            [self._path(chunk.number, field) for chunk in self.chunks],
                            self.tokens, self.writer)
        table.build(self.path, self.threads, self.report)
        self.counts |= table.counts
        if field == "subject":
            self.subjects = table.groups

    # ---- 3. scatter ------------------------------------------------------------------------
    def scatter(self) -> None:
        """Deals the lines of every chunk to buckets of neighbouring subjects."""
        counts = np.zeros(self.subjects, "int64")
        for chunk in self.chunks:
            subject = self._line_ranks(chunk, "subject")[:, 0]
            counts += np.bincount(subject, minlength=self.subjects)
        ends = np.cumsum(counts)
        self.bucket_of = ((ends - counts) // BUCKET_LINES).astype("uint32")
        self.buckets = int(self.bucket_of[-1]) + 1
        self.parts = list(in_order(self._scatter_chunk, self.chunks, self.threads))

    def _line_ranks(self, chunk: Chunk, field: str) -> np.ndarray:
        """[lines, 2] row of the field's table, and which of the strings that share it."""
        path = self._path(chunk.number, field)
        ranks = np.fromfile(f"{path}.ranks", "uint32").reshape(-1, 2)
        return ranks[np.fromfile(f"{path}.rows", "uint32")]

    def _scatter_chunk(self, chunk: Chunk):
        lines = np.stack([self._line_ranks(chunk, field) for field in FIELDS], 2).reshape(-1, 6)
        bucket = self.bucket_of[lines[:, 0]]
        order = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[order], np.arange(self.buckets + 1))
        lines[order].tofile(self._path(chunk.number, "lines"))
        path = self._path(chunk.number, "objects")
        texts = path.read_bytes().split(b"\n")
        order, ends = order.tolist(), [0]
        with open(path, "wb") as file:
            for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
                file.write(b"".join([texts[row] + b"\n" for row in order[start:end]]))
                ends.append(file.tell())
        for field in FIELDS:
            for kind in ("text", "hashes", "rows", "ranks"):
                self._path(chunk.number, f"{field}.{kind}").unlink()
        self.report("lines dealt out", chunk.lines)
        return bounds, ends

    # ---- 4. gather -------------------------------------------------------------------------
    def gather(self) -> None:
        """Sorts the buckets one after the other and writes the columns."""
        keys, objects_end = 0, 0
        key_counts = np.zeros(self.subjects, "int64")
        for name in ("key.variant_rows", "key.variants"):
            self.writer.append(name, np.zeros(0), "uint32")
        for rows, variants, blocks, sizes in in_order(self._gather_bucket, range(self.buckets),
                                                      self.threads):
            count = len(rows)
            key_counts += np.bincount(rows[:, 0], minlength=self.subjects)
            self.writer.append("key.predicate", rows[:, 1], "uint32")
            self.writer.append("key.meaning", rows[:, 2], "uint32")
            special = np.flatnonzero(variants.any(1))
            self.writer.append("key.variant_rows", special + keys, "uint32")
            self.writer.append("key.variants", variants[special], "uint32")
            self.writer.append("object.rows", keys + np.arange(0, count, BLOCK), "uint32")
            self.writer.append("object.starts", objects_end + np.cumsum(sizes) - sizes, "uint64")
            self.writer.append("object.text", b"".join(blocks))
            keys, objects_end = keys + count, objects_end + int(sum(sizes))
            self.report("keys written", count)
        if keys >= 1 << 32:
            raise InputError(f"{keys} keys, more than this file form holds", self.path, "split it")
        self.writer.append("object.starts", [objects_end], "uint64")
        self.writer.append("subject.keys", offsets(key_counts))
        self.counts["keys"] = keys

    def _gather_bucket(self, bucket: int):
        lines, texts = [], []
        for chunk, (bounds, ends) in zip(self.chunks, self.parts):
            start, end = bounds[bucket:bucket + 2].tolist()
            lines.append(np.fromfile(self._path(chunk.number, "lines"), "uint32", 6 * (end - start),
                                     offset=24 * start).reshape(-1, 6))
            with open(self._path(chunk.number, "objects"), "rb") as file:
                file.seek(ends[bucket])
                texts += file.read(ends[bucket + 1] - ends[bucket]).split(b"\n")[:-1]
        lines = np.concatenate(lines)
        order = _stable_order(lines)
        lines = lines[order]
        fresh = np.ones(len(lines), bool)
        fresh[1:] = (lines[1:] != lines[:-1]).any(1)
        blocks = _compress([texts[row] for row in order.tolist()], fresh)
        return lines[fresh, :3], lines[fresh, 3:], blocks, [len(block) for block in blocks]


def _stable_order(lines: np.ndarray) -> np.ndarray:
    """By subject, predicate, meaning, then which string of its group each is."""
    wide = lines.astype("uint64")
    order = np.arange(len(lines))
    if lines[:, 3:].any():
        order = np.lexsort((lines[:, 5], lines[:, 4], lines[:, 3]))
    tail = (wide[:, 1] << np.uint64(32)) | wide[:, 2]
    order = order[np.argsort(tail[order], kind="stable")]
    return order[np.argsort(lines[order, 0], kind="stable")]


def _compress(texts: list[bytes], fresh: np.ndarray) -> list[bytes]:
    """Blocks of ``BLOCK`` keys: a line per key, its objects separated by tabs."""
    joined = np.frombuffer(b"\n".join(texts) + b"\n", "uint8").copy()
    ends = np.flatnonzero(joined == 10)          # of every text, which holds no line end itself
    joined[ends[:-1][~fresh[1:]]] = 9
    firsts = np.flatnonzero(fresh)[::BLOCK]
    bounds = np.concatenate([[0], ends[firsts[1:] - 1] + 1, [len(joined)]]).tolist()
    return [zlib.compress(joined[a:b], 1) for a, b in zip(bounds[:-1], bounds[1:])]


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

"""Knowledge file → prefix tree, in bounded memory.

1. scan:     chunk by chunk, lines are cut into fields; each field's distinct strings are found by
             their hashes; what a line is made of goes to disk as three small integers.
2. tables:   the distinct strings of all chunks are tokenised once and sorted by their ids.
3. scatter:  the lines, now triples of ranks, are dealt out to buckets of neighbouring subjects.
4. gather:   each bucket is sorted and appended to the file's columns, its objects compressed.

Only the distinct strings of one field and a few chunks are ever in memory. The steps are numpy
and zlib, which release Python's lock, hence threads. Scratch files are raw arrays: the head of an
.npy file is read by ``ast``, which CPython before 3.11.8 cannot do in several threads at once.
"""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.prefix_tree import fields
from bert_theseus.prefix_tree.container import Writer
from bert_theseus.prefix_tree.tables import Sequences, branching_nodes, sort_sequences
from bert_theseus.prefix_tree.tokens import BatchTokenizer

FIELDS = ("subject", "predicate", "meaning")
BLOCK = 256                # keys whose objects are compressed together
BUCKET_LINES = 1 << 21     # lines sorted at a time
CHUNK_BYTES = 1 << 26


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


@dataclass
class Chunk:
    """What stays in memory of a scanned chunk; the rest is in ``folder`` under its number."""

    number: int
    lines: int
    digest: bytes
    hashes: dict[str, np.ndarray]      # field → [distinct, 2] hashes of its strings


class Build:
    """One build: the steps above in order. ``path`` is the knowledge file, ``folder`` scratch."""

    def __init__(self, path: Path, tokenizer, folder: Path, threads: int, report: Callable):
        self.path, self.folder, self.threads, self.report = path, folder, threads, report
        self.tokens = BatchTokenizer(tokenizer)
        self.writer = Writer(folder)
        self.chunks: list[Chunk] = []
        self.counts: dict[str, int] = {}
        self.ranks: dict[str, np.ndarray] = {}      # field → rank of each chunk's strings
        self.variants: dict[str, np.ndarray] = {}   # field → which string of its group
        self.bounds: dict[str, np.ndarray] = {}     # field → where each chunk's strings begin

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
        hashes = {field: self._distinct(number, lines, field) for field in FIELDS}
        self._path(number, "objects").write_bytes(b"\n".join(fields.objects(lines)))
        return Chunk(number, len(lines), hashlib.blake2b(data, digest_size=16).digest(), hashes)

    def _distinct(self, number: int, lines: fields.Lines, field: str) -> np.ndarray:
        one, two = fields.hashes(lines, field)
        values, first, inverse = np.unique(one, return_index=True, return_inverse=True)
        _refuse_collision(two[first][inverse] != two)
        inverse.astype("uint32").tofile(self._path(number, f"{field}.rows"))
        self._path(number, field).write_bytes(b"\n".join(lines.strings(field, first)))
        return np.stack([values, two[first]], 1)

    def _path(self, number: int, name: str) -> Path:
        return self.folder / f"{number}.{name}"

    # ---- 2. tables -------------------------------------------------------------------------
    def table(self, field: str) -> None:
        """Tokenises, sorts and writes the distinct strings of one field."""
        sizes = np.cumsum([0] + [len(chunk.hashes[field]) for chunk in self.chunks])
        hashes = np.concatenate([chunk.hashes.pop(field) for chunk in self.chunks])
        _, first, inverse = np.unique(hashes[:, 0], return_index=True, return_inverse=True)
        _refuse_collision(hashes[first, 1][inverse] != hashes[:, 1])
        del hashes
        is_first = np.zeros(len(inverse), bool)
        is_first[first] = True
        strings, sequences = self._tokenise(field, sizes, is_first)
        order, fresh = sort_sequences(sequences)
        group = np.cumsum(fresh) - 1
        place = np.empty(len(order), "int64")
        place[order] = np.arange(len(order))
        appearance = (np.cumsum(is_first) - 1)[first][inverse]  # of every chunk's strings
        self.ranks[field] = group[place][appearance].astype("uint32")
        run_start = np.flatnonzero(fresh)[group]
        self.variants[field] = (np.arange(len(order)) - run_start)[place][appearance] \
            .astype("uint32")
        self.bounds[field] = sizes
        self._write_table(field, strings, sequences, order, fresh)

    def _tokenise(self, field, sizes, is_first):
        texts, ids, lengths = [], [], []
        for chunk in self.chunks:
            path = self._path(chunk.number, field)
            rows = np.flatnonzero(is_first[sizes[chunk.number]:sizes[chunk.number + 1]])
            every = path.read_bytes().split(b"\n")
            new = [every[row] for row in rows.tolist()]
            path.unlink()
            row_ids, row_lengths = self.tokens.encode([text.decode() for text in new])
            texts.append(b"".join(new))
            ids.append(row_ids.astype(self._dtype))
            lengths.append(np.stack([row_lengths, [len(text) for text in new]]))
            self.report(f"{field}s", len(new))
        token_lengths, text_lengths = np.concatenate(lengths, 1).astype("int64")
        strings = Sequences(np.frombuffer(b"".join(texts), "uint8"), text_lengths)
        return strings, Sequences(np.concatenate(ids), token_lengths)

    @property
    def _dtype(self) -> str:
        size = getattr(self.tokens.tokenizer, "_vocab_size", None)
        return "uint16" if size is not None and size < 1 << 16 else "uint32"

    def _write_table(self, field, strings, sequences, order, fresh) -> None:
        groups = order[fresh]
        table = Sequences(sequences.take(groups), sequences.lengths[groups])
        if (table.ids == self.tokens.end_id).sum() != len(groups):
            raise InputError(f"a {field} holds the end token", self.path, "take it out")
        write = self.writer.append
        write(f"{field}.ids", table.ids, self._dtype)
        write(f"{field}.starts", _offsets(table.lengths))
        write(f"{field}.text", strings.take(order))
        write(f"{field}.text_starts", _offsets(strings.lengths[order]))
        write(f"{field}.extra", (np.cumsum(fresh) - 1)[~fresh], "uint32")
        self._count(field, sequences, order, fresh)
        if field == "subject":
            nodes = branching_nodes(table)
            write("node.token", nodes["token"], self._dtype)
            write("node.row", nodes["row"], "uint32")
            write("node.child", nodes["child"], "uint32")

    def _count(self, field, sequences, order, fresh) -> None:
        unknown = sequences.ids == self.tokens.unknown_id
        holders = np.searchsorted(sequences.starts, np.flatnonzero(unknown), "right") - 1
        shared = ~fresh
        shared[:-1] |= ~fresh[1:]
        self.counts |= {f"{field}s": len(order), f"{field}s with [UNK]": len(np.unique(holders)),
                        f"{field}s sharing their ids": int(shared.sum())}

    # ---- 3. scatter ------------------------------------------------------------------------
    def scatter(self) -> None:
        """Deals the lines of every chunk to buckets of neighbouring subjects."""
        counts = np.zeros(int(self.ranks["subject"].max()) + 1, "int64")
        for chunk in self.chunks:
            subject = self._line_ranks(chunk, "subject", self.ranks)
            counts += np.bincount(subject, minlength=len(counts))
        ends = np.cumsum(counts)
        self.bucket_of = ((ends - counts) // BUCKET_LINES).astype("uint32")
        self.buckets = int(self.bucket_of[-1]) + 1
        self.parts = list(in_order(self._scatter_chunk, self.chunks, self.threads))

    def _line_ranks(self, chunk: Chunk, field: str, values: dict) -> np.ndarray:
        bounds = self.bounds[field]
        own = values[field][bounds[chunk.number]:bounds[chunk.number + 1]]
        return own[np.fromfile(self._path(chunk.number, f"{field}.rows"), "uint32")]

    def _scatter_chunk(self, chunk: Chunk):
        columns = [self._line_ranks(chunk, field, self.ranks) for field in FIELDS]
        columns += [self._line_ranks(chunk, field, self.variants) for field in FIELDS]
        bucket = self.bucket_of[columns[0]]
        order = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[order], np.arange(self.buckets + 1))
        np.stack([column.astype("uint32")[order] for column in columns], 1) \
            .tofile(self._path(chunk.number, "lines"))
        path = self._path(chunk.number, "objects")
        texts = path.read_bytes().split(b"\n")
        order, offsets = order.tolist(), [0]
        with open(path, "wb") as file:
            for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
                file.write(b"".join([texts[row] + b"\n" for row in order[start:end]]))
                offsets.append(file.tell())
        for field in FIELDS:
            self._path(chunk.number, f"{field}.rows").unlink()
        self.report("lines dealt out", chunk.lines)
        return bounds, offsets

    # ---- 4. gather -------------------------------------------------------------------------
    def gather(self) -> None:
        """Sorts the buckets one after the other and writes the columns."""
        keys, objects_end = 0, 0
        subjects = len(self.bucket_of)
        key_counts = np.zeros(subjects, "int64")
        for name in ("key.variant_rows", "key.variants"):
            self.writer.append(name, np.zeros(0), "uint32")
        for rows, variants, blocks, sizes in in_order(self._gather_bucket, range(self.buckets),
                                                      self.threads):
            count = len(rows)
            key_counts += np.bincount(rows[:, 0], minlength=subjects)
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
        self.writer.append("subject.keys", _offsets(key_counts))
        self.counts["keys"] = keys

    def _gather_bucket(self, bucket: int):
        lines, texts = [], []
        for chunk, (bounds, offsets) in zip(self.chunks, self.parts):
            start, end = bounds[bucket:bucket + 2].tolist()
            lines.append(np.fromfile(self._path(chunk.number, "lines"), "uint32", 6 * (end - start),
                                     offset=24 * start).reshape(-1, 6))
            with open(self._path(chunk.number, "objects"), "rb") as file:
                file.seek(offsets[bucket])
                texts += file.read(offsets[bucket + 1] - offsets[bucket]).split(b"\n")[:-1]
        lines = np.concatenate(lines)
        order = _stable_order(lines)
        lines = lines[order]
        fresh = np.ones(len(lines), bool)
        fresh[1:] = (lines[1:] != lines[:-1]).any(1)
        blocks = _compress([texts[row] for row in order.tolist()], fresh)
        return lines[fresh, :3], lines[fresh, 3:], blocks, [len(block) for block in blocks]


def _refuse_collision(collided: np.ndarray) -> None:
    if collided.any():
        raise RuntimeError("two strings share a 64-bit hash; change fields._MULTIPLIERS")


def _offsets(lengths: np.ndarray) -> np.ndarray:
    """0, then the running sum; 32 bits where they suffice."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return ends.astype("uint32" if ends[-1] < 1 << 32 else "uint64")


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

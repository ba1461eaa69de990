"""Facts added, replaced or deleted after the build, and answers overridden, without a rebuild.

An append-only log beside the tree, one JSON object a line with a checksum in front; a line torn
by a crash ends the log. Its first line names the tree it belongs to. Readers look at the log's
size before each question, so a fact added by one process is seen by all others.

In memory: for every touched key its objects as they are now, and a small trie of the keys that
the tree itself does not have. Nodes of that trie are never removed, so cursors stay valid.
"""

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError

Key = tuple[str, str, str]  # subject without its bracket, predicate, meaning


class Overlay:
    """The log of one tree, replayed into memory.

    base: (key, ids) → row and objects of a key of the tree itself, or None.
    folded: the tree that this one replaced; what a log of it says is already in the file.
    """

    def __init__(self, path: Path, tree_id: str, base, folded: str | None = None,
                 overrides: dict[str, list[str]] | None = None):
        self.path, self.tree_id, self.folded, self._base = path, tree_id, folded, base
        self.read_to = 0
        self.objects: dict[Key, list[str]] = {}
        self.overrides: dict[str, Key] = {q: tuple(k) for q, k in (overrides or {}).items()}
        self.rows: dict[int, Key] = {}               # touched keys of the tree itself
        self.deleted = np.zeros(0, "int64")          # rows whose every object is gone, sorted
        self.children: list[dict[int, int]] = [{}]   # trie of new keys: token → node
        self.live: list[int] = [0]                   # keys below each node that have objects
        self.leaves: dict[int, list[Key]] = {}

    # ---- the log ---------------------------------------------------------------------------
    def refresh(self) -> None:
        """Replays what was appended since the last look."""
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            return
        if size <= self.read_to:
            return
        with open(self.path, "rb") as file:
            file.seek(self.read_to)
            for record, length in _records(file.read()):
                if record.get("tree", self.tree_id) == self.folded:
                    return
                self._replay(record)
                self.read_to += length

    def append(self, record: dict) -> None:
        """Makes one change durable, then visible here; the caller holds the lock."""
        with open(self.path, "r+b" if self.path.exists() else "w+b") as file:
            file.seek(self.read_to)
            if not self.read_to:
                file.write(_line({"tree": self.tree_id}))
            file.write(_line(record))
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self.refresh()

    def _replay(self, record: dict) -> None:
        if "tree" in record:
            if record["tree"] != self.tree_id:
                raise InputError("this overlay belongs to another tree", self.path,
                                 "remove it, or put back the tree it was made for")
        elif "override" in record:
            self.overrides[record["override"]] = tuple(record["answer"])
        else:
            self._apply(record["do"], tuple(record["key"]), record["ids"], record["objects"])

    # ---- the facts -------------------------------------------------------------------------
    def _apply(self, do: str, key: Key, ids: Sequence[int], texts: list[str]) -> None:
        found = self._base(key, ids)
        old = self.objects.get(key, found[1] if found else [])
        new = {"add": lambda: old + [text for text in texts if text not in old],
               "replace": lambda: list(texts),
               "delete": lambda: [text for text in old if texts and text not in texts]}[do]()
        alive = bool(self.objects.get(key))
        self.objects[key] = new
        if found:
            self.rows[found[0]] = key
            gone = [row for row, touched in self.rows.items() if not self.objects[touched]]
            self.deleted = np.array(sorted(gone), "int64")
        else:
            self._grow(key, ids, int(bool(new)) - int(alive))

    def _grow(self, key: Key, ids: Sequence[int], change: int) -> None:
        node = 0
        self.live[0] += change
        for token in ids:
            if token not in self.children[node]:
                self.children[node][token] = len(self.children)
                self.children.append({})
                self.live.append(0)
            node = self.children[node][token]
            self.live[node] += change
        if key not in self.leaves.setdefault(node, []):
            self.leaves[node].append(key)

    def below(self, node: int) -> Iterator[tuple[list[int], list[Key]]]:
        """Token paths from ``node`` to every live leaf, with the keys there."""
        if not self.live[node]:
            return
        keys = [key for key in self.leaves.get(node, []) if self.objects[key]]
        if keys:
            yield [], keys
        for token, child in sorted(self.children[node].items()):
            for path, found in self.below(child):
                yield [token, *path], found


@contextmanager
def locked(path: Path):
    """Only one process at a time changes the files that belong to ``path``."""
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _line(record: dict) -> bytes:
    text = json.dumps(record, ensure_ascii=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _records(data: bytes) -> Iterator[tuple[dict, int]]:
    """Whole, undamaged lines; stops before a torn last one."""
    for line in data.split(b"\n")[:-1]:
        crc, _, text = line.partition(b" ")
        if crc != b"%08x" % zlib.crc32(text):
            return
        yield json.loads(text), len(line) + 1

"""``PrefixTree``: building, opening, moving, looking up, changing facts."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.prefix_tree.build import Build, cores
from bert_theseus.prefix_tree.container import Reader, scratch_folder
from bert_theseus.prefix_tree.cursors import CURSOR, DEAD, LEAF, Tables
from bert_theseus.prefix_tree.fields import join_subject, split_subject
from bert_theseus.prefix_tree.overlay import Key, Overlay, locked
from bert_theseus.prefix_tree.texts import Texts
from bert_theseus.prefix_tree.tokens import BatchTokenizer, fingerprint


@dataclass(frozen=True)
class Fact:
    """One key with its objects, as texts; ``subject`` is without its bracket."""

    subject: str
    predicate: str
    meaning: str
    objects: tuple[str, ...]

    @property
    def name(self) -> str:
        """The subject as it stands in the knowledge file, bracket included."""
        return join_subject(self.subject, self.meaning)


class Children(NamedTuple):
    """Children of several cursors: cursor ``owners[i]`` may go on with ``tokens[i]``."""

    owners: np.ndarray
    tokens: np.ndarray


class Paths(NamedTuple):
    """Paths below cursors: whose they are [n], tokens [n, length] padded by −1, where they end."""

    owners: np.ndarray
    tokens: np.ndarray
    cursors: np.ndarray


class PrefixTree:
    """A tree opened for reading; see :meth:`build` and :meth:`open`.

    Cursors are numpy structured arrays [n] of dtype ``CURSOR``: index, repeat and concatenate
    them like any array. A cursor that left the tree is dead: no children, no key.

    >>> from pathlib import Path
    >>> from bert4keras.tokenizers import Tokenizer
    >>> words = "[PAD] [UNK] [CLS] [SEP] 龙 晶 繁 体 游 戏".split()
    >>> tokenizer = Tokenizer({word: i for i, word in enumerate(words)}, do_lower_case=True)
    >>> _ = Path("kg.txt").write_text("龙晶（游戏）\\t繁体\\t龍晶\\n", encoding="utf-8")
    >>> tree = PrefixTree.build("kg.txt", tokenizer, "kg.tree")
    >>> tree.children(tree.root).tokens
    array([4])
    >>> tree.objects(tree.find("龙晶（游戏）", "繁体"))
    ['龍晶']
    """

    def __init__(self, reader: Reader, tokenizer=None):
        self.path = reader.path
        self._tokens = BatchTokenizer(tokenizer) if tokenizer else None
        self._attach(reader)

    def _attach(self, reader: Reader) -> None:
        self._reader, self.info = reader, reader.meta
        self.end_id = reader.meta["end_id"]
        self._tables, self._texts = Tables(reader, self.end_id), Texts(reader)
        self._overlay = Overlay(_overlay_path(self.path), reader.meta["id"], self._base,
                                reader.meta["folds"], reader.meta["overrides"])
        self._overlay.refresh()

    # ---- making and opening ----------------------------------------------------------------
    @classmethod
    def build(cls, knowledge: str | os.PathLike, tokenizer, path: str | os.PathLike,
              threads: int | None = None,
              report: Callable[[str, int], object] | None = None) -> "PrefixTree":
        """Builds the tree of a knowledge file (subject, relation, object, tab-separated; ``.gz``).

        report: called with (what, how many) as the work goes on. Raises InputError with file and
        line for a line that is no triple. A tree already at ``path`` is replaced at the end,
        whole, and its overlay with it.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(_overlay_path(path)):
            _build(Path(knowledge), tokenizer, path, threads, report)
        return cls.open(path, tokenizer)

    @classmethod
    def open(cls, path: str | os.PathLike, tokenizer=None) -> "PrefixTree":
        """Opens a tree; with a tokenizer it is checked to be the one the tree was built with.

        Changing facts needs the tokenizer, looking up does not. Raises InputError for a file
        that is truncated, damaged, foreign, or of another tokenizer.
        """
        reader = Reader(path)
        if tokenizer is not None and fingerprint(tokenizer) != reader.meta["tokenizer"]:
            raise InputError("the tree was built with another tokenizer", path,
                             "use its vocabulary and settings, or build it again")
        return cls(reader, tokenizer)

    def verify(self) -> None:
        """Reads the whole file and compares its checksums; raises InputError."""
        self._reader.verify()

    def refresh(self) -> None:
        """Takes in what other processes changed: facts in the overlay, or a compacted tree."""
        if self._is_replaced():
            self._attach(Reader(self.path))
        try:
            self._overlay.refresh()
        except InputError:
            if not self._is_replaced():  # else the tree and its overlay changed in between
                raise
            self._attach(Reader(self.path))

    def _is_replaced(self) -> bool:
        return os.stat(self.path).st_ino != self._reader.inode

    # ---- moving ----------------------------------------------------------------------------
    @property
    def root(self) -> np.ndarray:
        """[1] cursor at the start; taking it takes in changes made by other processes."""
        self.refresh()
        return self._tables.root()

    def children(self, cursors: np.ndarray) -> Children:
        """The tokens each cursor may go on with, by cursor, then token.

        cursors: [n]. Cost grows with the number of children returned.
        """
        owner, token, lo, hi = self._tables.children(cursors)
        if len(self._overlay.deleted):
            kept = ~self._all_deleted(cursors["stage"][owner], lo, hi)
            owner, token = owner[kept], token[kept]
        extra = [(index, new) for index in np.flatnonzero(self._grown(cursors)).tolist()
                 for new, node in self._overlay.children[cursors["extra"][index]].items()
                 if self._overlay.live[node]]
        if extra:
            pairs = np.unique(np.concatenate([np.stack([owner, token], 1), extra]), axis=0)
            owner, token = pairs.T
        return Children(owner, token)

    def advance(self, cursors: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """The cursors [n] one token further; dead where ``tokens`` [n] is no child."""
        tokens = np.asarray(tokens)
        result = self._tables.advance(cursors, tokens)
        result["extra"] = -1
        for index in np.flatnonzero(self._grown(cursors)).tolist():
            node = self._overlay.children[cursors["extra"][index]].get(int(tokens[index]))
            if node is not None and self._overlay.live[node]:
                result["extra"][index] = node
        if len(self._overlay.deleted):
            lo, hi = self._tables.key_range(result)
            dead = self._all_deleted(np.full(len(result), 1), lo, hi)
            result["stage"][dead], result["lo"][dead], result["hi"][dead] = DEAD, 0, 0
        return result

    def walk(self, tokens: Sequence[int], cursors: np.ndarray | None = None) -> np.ndarray:
        """``advance`` by all tokens of a sequence, from the root or from ``cursors`` [n]."""
        cursors = self.root if cursors is None else cursors
        for token in tokens:
            cursors = self.advance(cursors, np.full(len(cursors), token))
        return cursors

    def is_key(self, cursors: np.ndarray) -> np.ndarray:
        """[n] bool: whether a cursor stands at the end of a key."""
        key = (cursors["stage"] == LEAF) & (cursors["hi"] > cursors["lo"])
        for index in np.flatnonzero(self._grown(cursors)).tolist():
            key[index] |= bool(self._new_keys(int(cursors["extra"][index])))
        return key

    def sole(self, cursors: np.ndarray) -> np.ndarray:
        """[n] bool: whether exactly one path is left below a cursor; :meth:`finish` follows it."""
        only = self._tables.sole(cursors) & ~self._grown(cursors)
        if len(self._overlay.deleted):
            lo, hi = self._tables.key_range(cursors)
            only &= ~self._all_deleted(np.full(len(cursors), 1), lo, hi)
        return only

    def finish(self, cursors: np.ndarray) -> np.ndarray:
        """The leaves of cursors that are :meth:`sole`."""
        result = cursors.copy()
        result["lo"], result["hi"] = self._tables.key_range(cursors)
        result["stage"], result["depth"], result["node"] = LEAF, 0, 0
        return result

    def paths(self, cursors: np.ndarray, until_end: bool = False) -> Paths:
        """All token paths below the cursors [n], to the leaves or (``until_end``) to the end of
        the part they stand in."""
        owners, prefix, found = np.arange(len(cursors)), np.zeros((len(cursors), 0), "int64"), []
        while len(owners):
            at, tokens = self.children(cursors)
            cursors = self.advance(cursors[at], tokens)
            owners, prefix = owners[at], np.concatenate([prefix[at], tokens[:, None]], 1)
            ends = tokens == self.end_id
            if not until_end:
                ends &= self.is_key(cursors)
            found.append((owners[ends], prefix[ends], cursors[ends]))
            owners, prefix, cursors = owners[~ends], prefix[~ends], cursors[~ends]
        return _join_paths(found)

    def _grown(self, cursors: np.ndarray) -> np.ndarray:
        """Cursors that stand in the trie of added keys as well."""
        return (cursors["extra"] >= 0) & (self._overlay.live[0] > 0)

    def _all_deleted(self, stage, lo, hi) -> np.ndarray:
        early = stage == 0
        lo, hi = lo.copy(), hi.copy()
        lo[early] = self._tables.subject_keys[lo[early]]
        hi[early] = self._tables.subject_keys[hi[early]]
        deleted = self._overlay.deleted
        gone = np.searchsorted(deleted, hi) - np.searchsorted(deleted, lo)
        return (gone == hi - lo) & (hi > lo)

    def _new_keys(self, node: int) -> list[Key]:
        return [key for key in self._overlay.leaves.get(node, []) if self._overlay.objects[key]]

    # ---- looking up ------------------------------------------------------------------------
    def facts(self, cursor: np.ndarray) -> list[Fact]:
        """The facts at one leaf; several where different texts share their token ids."""
        cursor = np.ravel(cursor)[0]
        facts = []
        if cursor["stage"] == LEAF:
            for row in range(int(cursor["lo"]), int(cursor["hi"])):
                key = self._texts.key(row)
                texts = self._overlay.objects.get(key)
                facts.append((key, self._texts.objects(row) if texts is None else texts))
        facts += [(key, self._overlay.objects[key]) for key in self._new_keys(int(cursor["extra"]))]
        return [Fact(*key, tuple(texts)) for key, texts in facts if texts]

    def objects(self, cursor: np.ndarray) -> list[str]:
        """The objects at one leaf, in file order."""
        return [text for fact in self.facts(cursor) for text in fact.objects]

    def find(self, subject: str, predicate: str) -> np.ndarray:
        """[1] cursor of a subject (with its bracket) and predicate; dead if there is none."""
        return self.walk(self._ids(_key(subject, predicate)))

    def __len__(self) -> int:
        """Keys of the file; the overlay is not counted."""
        return self.info["counts"]["keys"]

    def _base(self, key: Key, ids: Sequence[int]) -> tuple[int, list[str]] | None:
        cursor = self._tables.root()
        for token in ids:
            cursor = self._tables.advance(cursor, np.array([token]))
        for row in range(int(cursor["lo"][0]), int(cursor["hi"][0])):
            if cursor["stage"][0] == LEAF and self._texts.key(row) == key:
                return row, self._texts.objects(row)
        return None

    def _ids(self, key: Key) -> list[int]:
        if self._tokens is None:
            raise InputError("the tree was opened without its tokenizer", self.path,
                             "open it with PrefixTree.open(path, tokenizer)")
        return self._tokens.encode(list(key))[0].tolist()

    # ---- changing facts --------------------------------------------------------------------
    def add(self, subject: str, predicate: str, *objects: str) -> None:
        """Adds objects to a fact, new or not; seen by the next question of every process."""
        self._change("add", subject, predicate, objects)

    def replace(self, subject: str, predicate: str, *objects: str) -> None:
        """Makes ``objects`` the only ones of a fact."""
        self._change("replace", subject, predicate, objects)

    def delete(self, subject: str, predicate: str, *objects: str) -> None:
        """Deletes the named objects of a fact, or the fact when none is named."""
        self._change("delete", subject, predicate, objects)

    def override(self, question: str, subject: str, predicate: str) -> None:
        """From now on ``question``, word by word, is answered with this fact."""
        self._append({"override": question, "answer": _key(subject, predicate)})

    def overridden(self, question: str) -> Fact | None:
        """The fact that answers ``question`` by :meth:`override`, if it (still) exists."""
        key = self._overlay.overrides.get(question)
        facts = self.facts(self.walk(self._ids(key))) if key else []
        return next((fact for fact in facts if tuple(key) == (
            fact.subject, fact.predicate, fact.meaning)), None)

    def _change(self, do: str, subject: str, predicate: str, objects: Sequence[str]) -> None:
        key, texts = _key(subject, predicate), [" ".join(text.split()) for text in objects]
        if do != "delete" and not texts:
            raise InputError(f"{do} needs an object", f"{subject} {predicate}", "name one")
        self._append({"do": do, "key": key, "ids": self._ids(key), "objects": texts})

    def _append(self, record: dict) -> None:
        with locked(_overlay_path(self.path)):
            self.refresh()
            self._overlay.append(record)

    def compact(self, tokenizer, report: Callable[[str, int], object] | None = None) -> None:
        """Builds the tree anew with all changes in it; readers go over to it by themselves.

        Overridden answers are kept. A kill at any moment leaves the old tree with its overlay,
        or the new one.
        """
        with locked(_overlay_path(self.path)):
            self.refresh()
            overrides = self._overlay.overrides
            knowledge = self.path.with_name(f".{self.path.name}.compacting")
            try:
                self._export(knowledge)
                _build(knowledge, tokenizer, self.path, None, report, overrides)
            finally:
                knowledge.unlink(missing_ok=True)
            self.refresh()

    def _export(self, path: Path) -> None:
        """Writes every triple, changes applied, as a knowledge file."""
        touched = self._overlay.objects
        new = (key for keys in self._overlay.leaves.values() for key in keys)
        rows = ((key, touched.get(key, texts)) for _, key, texts in self._texts.triples())
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            for key, texts in chain(rows, ((key, touched[key]) for key in new)):
                name = join_subject(key[0], key[2])
                file.writelines(f"{name}\t{key[1]}\t{text}\n" for text in texts)


def _build(knowledge: Path, tokenizer, path: Path, threads, report, overrides=None) -> None:
    """Builds under a lock that the caller holds; an overlay of the old tree becomes void."""
    folder = scratch_folder(path)
    meta = {"id": os.urandom(8).hex(), "folds": _tree_id(path), "end_id": int(
        tokenizer._token_end_id), "tokenizer": fingerprint(tokenizer),
        "overrides": overrides or {}}
    try:
        Build(knowledge, tokenizer, folder, threads or cores(),
              report or (lambda what, count: None)).run(path, meta)
        _overlay_path(path).unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _join_paths(found: list) -> Paths:
    """One table of the paths found at each length, by owner, then tokens."""
    width = max((tokens.shape[1] for _, tokens, _ in found if len(tokens)), default=0)
    owners = np.concatenate([np.zeros(0, "int64"), *(part[0] for part in found)])
    tokens = np.full((len(owners), width), -1)
    row = 0
    for _, part, _ in found:
        tokens[row:row + len(part), :part.shape[1]] = part[:, :width]
        row += len(part)
    order = np.lexsort((*tokens.T[::-1], owners))
    ends = np.concatenate([np.zeros(0, CURSOR), *(part[2] for part in found)])
    return Paths(owners[order], tokens[order], ends[order])


def _tree_id(path: Path) -> str | None:
    try:
        return Reader(path).meta["id"]
    except InputError:
        return None


def _overlay_path(path: Path) -> Path:
    return path.with_name(path.name + ".overlay")


def _key(subject: str, predicate: str) -> Key:
    for text in (subject, predicate):
        if not text or any(c in text for c in "\t\r\n"):
            raise InputError(f"{text!r} is no subject or relation", None,
                             "give a text without tabs and line ends")
    name, meaning = split_subject(subject)
    return name, predicate, meaning

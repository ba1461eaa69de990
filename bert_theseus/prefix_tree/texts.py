"""From rows back to texts: subjects, predicates, meanings and objects, read from disk."""

import zlib

import numpy as np

from bert_theseus.errors import InputError
from bert_theseus.prefix_tree.container import Reader
from bert_theseus.prefix_tree.overlay import Key

_FIELDS = ("subject", "predicate", "meaning")


class Texts:
    """Texts of key rows. Strings that share their ids are told apart by the row's variant."""

    def __init__(self, reader: Reader):
        self._reader = reader
        self._extra = [reader.array(f"{field}.extra") for field in _FIELDS]
        self._starts = [reader.array(f"{field}.text_starts") for field in _FIELDS]
        self._columns = [reader.array("key.predicate"), reader.array("key.meaning")]
        self._subject_keys = reader.array("subject.keys")
        self._variant_rows = reader.array("key.variant_rows")
        self._variants = reader.array("key.variants").reshape(-1, 3)
        self._object_rows = reader.array("object.rows")
        self._object_starts = reader.array("object.starts")

    def key(self, row: int) -> Key:
        """(subject without its bracket, predicate, meaning) of a row."""
        subject = int(np.searchsorted(self._subject_keys, row, "right")) - 1
        groups = (subject, int(self._columns[0][row]), int(self._columns[1][row]))
        place = int(np.searchsorted(self._variant_rows, row))
        special = place < len(self._variant_rows) and self._variant_rows[place] == row
        variants = self._variants[place].tolist() if special else (0, 0, 0)
        return tuple(self._string(*item) for item in zip(range(3), groups, variants))

    def _string(self, field: int, group: int, variant: int) -> str:
        place = group + int(np.searchsorted(self._extra[field], group)) + variant
        start, end = self._starts[field][place:place + 2].tolist()
        return self._reader.read(f"{_FIELDS[field]}.text", start, end).decode()

    def objects(self, row: int) -> list[str]:
        """The objects of a row in file order, each once."""
        block = int(np.searchsorted(self._object_rows, row, "right")) - 1
        return self._unpack(block)[row - int(self._object_rows[block])]

    def _unpack(self, block: int) -> list[list[str]]:
        start, end = self._object_starts[block:block + 2].tolist()
        try:
            text = zlib.decompress(self._reader.read("object.text", start, end)).decode()
        except zlib.error:
            raise InputError("the objects of the prefix tree are damaged", self._reader.path,
                             "build it again") from None
        return [list(dict.fromkeys(line.split("\t"))) for line in text.split("\n")[:-1]]

    def triples(self):
        """Yields (row, key, objects) of the whole tree, in the order of its rows."""
        row = 0
        for block in range(len(self._object_rows)):
            for texts in self._unpack(block):
                yield row, self.key(row), texts
                row += 1

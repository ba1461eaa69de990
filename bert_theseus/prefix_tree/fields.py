"""Lines of a knowledge file → subject, predicate, meaning, object, a whole chunk at a time.

A chunk is a few megabytes of whole lines. Tabs, line ends and brackets are found by numpy in the
bytes; no Python object is made per line. A string is known by a 64-bit hash of its bytes, with a
second, independent one to notice a collision.
"""

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError

OPEN, CLOSE = "（", "）"
_FIX = "give subject, relation and object separated by tabs, one triple a line"
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], "uint64")


def split_subject(name: str) -> tuple[str, str]:
    """A subject's name and its bracketed disambiguation, as the article splits them.

    >>> split_subject("龙晶（游戏）"), split_subject("龙晶")
    (('龙晶', '游戏'), ('龙晶', ''))
    """
    start = name.find(OPEN)
    if name.endswith(CLOSE) and start >= 0:
        return name[:start], name[start + 1:-1]
    return name, ""


def join_subject(subject: str, meaning: str) -> str:
    """The inverse of :func:`split_subject`.

    >>> join_subject("龙晶", "游戏")
    '龙晶（游戏）'
    """
    return f"{subject}{OPEN}{meaning}{CLOSE}" if meaning else subject


def read_chunks(path: str | os.PathLike, size: int = 1 << 26) -> Iterator[tuple[int, bytes]]:
    """Yields (number of the first line, whole lines); ``.gz`` is unpacked on the way."""
    path, line, rest = Path(path), 1, b""
    if not path.is_file():
        raise InputError("no such knowledge file", path, "name a file of triples, .gz also")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            while block := file.read(size):
                block = rest + (block.removeprefix(b"\xef\xbb\xbf") if line == 1 and not rest
                                else block)
                end = block.rfind(b"\n") + 1
                chunk, rest = block[:end], block[end:]
                if chunk:
                    yield line, chunk
                    line += chunk.count(b"\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"the gzip file is damaged ({error})", path, "get it again") from None
    if rest:
        yield line, rest + b"\n"


@dataclass
class Lines:
    """Where the four fields of each line stand in ``data``; arrays [lines] of byte offsets."""

    data: bytes
    starts: dict[str, np.ndarray]
    ends: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.starts["object"])

    def strings(self, field: str, index: np.ndarray) -> list[bytes]:
        """The bytes of one field of the lines ``index``."""
        starts, ends = self.starts[field][index].tolist(), self.ends[field][index].tolist()
        return [self.data[a:b] for a, b in zip(starts, ends)]


def parse(data: bytes, first_line: int, path: str | os.PathLike) -> Lines:
    """Cuts whole lines into fields; a line that is no triple is refused with its number."""
    if b"\r\n" in data:
        data = data.replace(b"\r\n", b"\n")
    _check_encoding(data, first_line, path)
    octets = np.frombuffer(data, "uint8")
    ends = np.flatnonzero(octets == 10)
    starts = np.concatenate([[0], ends[:-1] + 1])
    filled = ends > starts
    numbers = first_line + np.flatnonzero(filled)
    starts, ends = starts[filled], ends[filled]
    tabs = np.flatnonzero(octets == 9)
    first = np.searchsorted(tabs, starts)
    _refuse(np.searchsorted(tabs, ends) - first != 2, numbers, path, "a line without two tabs")
    one, two = (tabs[first], tabs[first + 1]) if len(tabs) else (starts, starts)
    _refuse(one == starts, numbers, path, "a triple without a subject")
    _refuse(two == one + 1, numbers, path, "a triple without a relation")
    subject_ends, meanings, meaning_ends = _brackets(octets, starts, one)
    return Lines(data, {"subject": starts, "predicate": one + 1, "meaning": meanings,
                        "object": two + 1},
                 {"subject": subject_ends, "predicate": two, "meaning": meaning_ends,
                  "object": ends})


def _check_encoding(data: bytes, first_line: int, path) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + data.count(b"\n", 0, error.start)
        raise InputError("not UTF-8", f"{path}:{line}", "convert the file to UTF-8") from None


def _refuse(bad: np.ndarray, numbers: np.ndarray, path, what: str) -> None:
    if bad.any():
        raise InputError(what, f"{path}:{numbers[bad.argmax()]}", _FIX)


def _brackets(octets: np.ndarray, starts: np.ndarray, ends: np.ndarray):
    """Ends of the bare subjects, starts and ends of the meanings (empty without a bracket)."""
    bracket = (octets[:-2] == 0xEF) & (octets[1:-1] == 0xBC)  # （ is EF BC 88, ） is EF BC 89
    opens = np.append(np.flatnonzero(bracket & (octets[2:] == 0x88)), len(octets))
    first = opens[np.searchsorted(opens, starts)]
    last = np.maximum(ends - 3, starts)
    closed = (ends - starts >= 6) & bracket[last] & (octets[last + 2] == 0x89) & (first < last)
    return (np.where(closed, first, ends), np.where(closed, first + 3, ends),
            np.where(closed, ends - 3, ends))


def hashes(lines: Lines, field: str) -> tuple[np.ndarray, np.ndarray]:
    """Two 64-bit hashes [lines] of a field's bytes, eight bytes a round."""
    words = np.ndarray(len(lines.data) + 1, "<u8", lines.data + bytes(8), strides=(1,))
    start, length = lines.starts[field], lines.ends[field] - lines.starts[field]
    states = [np.asarray(length, "uint64") * m + m for m in _MULTIPLIERS]
    rows = np.arange(len(start))
    for done in range(0, int(length.max(initial=0)), 8):
        rows = rows[length[rows] > done]
        word = words[start[rows] + done]
        short = np.maximum(8 - (length[rows] - done), 0).astype("uint64") * np.uint64(8)
        word &= np.uint64(0xFFFFFFFFFFFFFFFF) >> short
        for state, multiplier in zip(states, _MULTIPLIERS):
            mixed = (state[rows] ^ word) * multiplier
            state[rows] = mixed ^ (mixed >> np.uint64(29))
    return tuple(_finish(state) for state in states)


def _finish(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    return state ^ (state >> np.uint64(32))


def objects(lines: Lines) -> list[bytes]:
    """The objects, white space collapsed as in the article: ``" ".join(text.split())``."""
    texts = lines.strings("object", np.arange(len(lines)))
    for row in _odd_spaces(lines):
        texts[row] = " ".join(texts[row].decode().split()).encode()
    return texts


def _odd_spaces(lines: Lines) -> list[int]:
    """Rows whose object holds white space other than single blanks between words."""
    octets = np.frombuffer(lines.data, "uint8")
    blank, border = octets == 0x20, (octets == 0x20) | (octets == 9) | (octets == 10)
    odd = blank.copy()
    odd[1:-1] &= border[:-2] | border[2:]
    odd |= ((octets >= 0x0B) & (octets <= 0x0D)) | ((octets >= 0x1C) & (octets <= 0x1F))
    odd[:-2] |= _wide_spaces(octets[:-2], octets[1:-1], octets[2:])
    positions = np.flatnonzero(odd)
    rows = np.searchsorted(lines.starts["object"], positions, "right") - 1
    inside = (rows >= 0) & (positions < lines.ends["object"][rows])
    return np.unique(rows[inside]).tolist()


def _wide_spaces(one: np.ndarray, two: np.ndarray, three: np.ndarray) -> np.ndarray:
    """Where white space of several bytes begins: U+0085, A0, 1680, 2000–200A, 2028, 2029, 202F,
    205F, 3000."""
    found = (one == 0xE3) & (two == 0x80) & (three == 0x80)
    lead = np.flatnonzero((one == 0xC2) | (one == 0xE1) | (one == 0xE2))
    a, b, c = one[lead], two[lead], three[lead]
    found[lead] |= (a == 0xC2) & ((b == 0x85) | (b == 0xA0))
    found[lead] |= (a == 0xE1) & (b == 0x9A) & (c == 0x80)
    found[lead] |= (a == 0xE2) & (b == 0x80) & (
        (c <= 0x8A) | (c == 0xA8) | (c == 0xA9) | (c == 0xAF))
    found[lead] |= (a == 0xE2) & (b == 0x81) & (c == 0x9F)
    return found

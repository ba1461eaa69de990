"""The file: a fixed head, named arrays one after the other, a JSON directory at the end.

    magic (8 bytes) | directory offset, length, crc32 (3 × uint64) | arrays … | directory

The head is written last and the file renamed into place after that, so that a killed build
leaves nothing with a valid head at the final path. Opening reads the head and the directory
alone; every array has a crc32 which ``verify`` checks.
"""

import json
import mmap
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np

from bert_theseus.errors import InputError

MAGIC = b"BTPTREE1"
_HEAD = struct.Struct("<8s3Q")
_AGAIN = "build it again"


class Writer:
    """Collects arrays as files in a scratch folder, then joins them into one file."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.sections: dict[str, str] = {}

    def append(self, name: str, array: np.ndarray | bytes, dtype: str | None = None) -> None:
        """Adds the array (or bytes) to the end of the section ``name``."""
        if not isinstance(array, bytes):
            array = np.ascontiguousarray(array, dtype)
        self.sections.setdefault(name, "uint8" if isinstance(array, bytes) else array.dtype.name)
        with open(self.folder / f"{name}.section", "ab") as file:
            file.write(array if isinstance(array, bytes) else array.tobytes())

    def view(self, name: str) -> np.ndarray:
        """What a section holds so far, memory-mapped."""
        return np.memmap(self.folder / f"{name}.section", self.sections[name], "r")

    def write(self, path: Path, meta: dict) -> None:
        """Joins all sections into ``path``; only the last step makes it valid."""
        beside, directory = self.folder / "joined", {}
        with open(beside, "wb") as out:
            out.write(bytes(_HEAD.size))
            for name, dtype in self.sections.items():
                out.write(bytes(-out.tell() % 64))
                offset = out.tell()
                crc = _copy(self.folder / f"{name}.section", out)
                directory[name] = {"dtype": dtype, "offset": offset,
                                   "bytes": out.tell() - offset, "crc32": crc}
            text = json.dumps({"meta": meta, "arrays": directory}, ensure_ascii=False).encode()
            end = out.tell()
            out.write(text)
            out.seek(0)
            out.write(_HEAD.pack(MAGIC, end, len(text), zlib.crc32(text)))
            out.flush()
            os.fsync(out.fileno())
        os.replace(beside, path)


def _copy(source: Path, out) -> int:
    crc = 0
    with open(source, "rb") as file:
        while block := file.read(1 << 24):
            out.write(block)
            crc = zlib.crc32(block, crc)
    source.unlink()
    return crc


class Reader:
    """The arrays of a file, memory-mapped (``array``) or read piece by piece (``read``)."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError("no such prefix tree", path, "build it first")
        self._file = open(self.path, "rb")
        self.inode = os.fstat(self._file.fileno()).st_ino
        try:
            self.meta, self._directory = self._read_directory()
        except InputError:
            self._file.close()
            raise
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM)

    def _read_directory(self) -> tuple[dict, dict]:
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size or head[:7] != MAGIC[:7]:
            raise InputError("this is no prefix tree", self.path, "name a file that build wrote")
        magic, offset, length, crc = _HEAD.unpack(head)
        if magic != MAGIC:
            raise InputError("a prefix tree of another version", self.path, _AGAIN)
        self._file.seek(offset)
        text = self._file.read(length + 1)
        if len(text) != length or zlib.crc32(text) != crc:
            raise InputError("the prefix tree is truncated or damaged", self.path, _AGAIN)
        record = json.loads(text)
        return record["meta"], record["arrays"]

    def array(self, name: str) -> np.ndarray:
        """A read-only view into the file; pages come in as they are touched."""
        section = self._directory[name]
        dtype = np.dtype(section["dtype"])
        return np.frombuffer(self._map, dtype, section["bytes"] // dtype.itemsize,
                             section["offset"])

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes ``start:end`` of a section, read from disk and not kept in memory."""
        section = self._directory[name]
        return os.pread(self._file.fileno(), end - start, section["offset"] + start)

    def verify(self) -> None:
        """Reads the whole file and compares every checksum; raises InputError."""
        for name, section in self._directory.items():
            crc, position = 0, 0
            while position < section["bytes"]:
                block = self.read(name, position, min(position + (1 << 24), section["bytes"]))
                crc, position = zlib.crc32(block, crc), position + len(block)
            if crc != section["crc32"]:
                raise InputError(f"the array {name} is damaged", self.path, _AGAIN)


def scratch_folder(path: Path) -> Path:
    """An empty folder beside ``path``; what an earlier, killed build left there is removed."""
    folder = path.with_name(f".{path.name}.building")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

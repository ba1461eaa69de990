"""CLUE's files: one JSON object a line, UTF-8, plain or gzip; every fault with file and line."""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from bert_theseus.errors import InputError

ENDINGS = (".json", ".json.gz", ".txt", ".txt.gz")
"""CLUE names its files .json; the pair tasks are also found as .txt with the same content."""


def find_folder(data_dir: str | os.PathLike, names: tuple[str, ...]) -> Path:
    """The first of ``data_dir/NAME`` that is a folder, or ``data_dir`` itself if it has the name.

    Raises InputError naming what was looked for and what is there.
    """
    root = Path(data_dir)
    if not root.is_dir():
        fault = "not a folder" if root.exists() else "no such folder"
        raise InputError(fault, str(root), "give the folder that holds CLUE's task folders")
    for name in names:
        if (root / name).is_dir():
            return root / name
    if root.name in names:
        return root
    raise InputError(f"no folder {' or '.join(names)}", str(root), f"there is {_listing(root)}")


def find_file(folder: str | os.PathLike, stems: tuple[str, ...]) -> Path:
    """The first file of ``folder`` with one of these stems and an ending of ``ENDINGS``.

    >>> import pathlib; _ = pathlib.Path("dev.json").write_text("{}")
    >>> find_file(".", ("dev",)).name
    'dev.json'
    """
    folder = Path(folder)
    for stem in stems:
        for ending in ENDINGS:
            if (folder / (stem + ending)).is_file():
                return folder / (stem + ending)
    raise InputError(f"no file {stems[0]}.json or {stems[0]}.json.gz", str(folder),
                     f"there is {_listing(folder)}")


def _listing(folder: Path) -> str:
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    shown = ", ".join(names[:12]) or "nothing"
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def read_rows(path: str | os.PathLike) -> Iterator[tuple[int, dict]]:
    """Line number (from 1) and JSON object of each line that is not blank.

    Lines end at a line feed alone: texts hold U+2028 and U+0085, at which ``str.splitlines``
    would cut them. Raises InputError with ``file:line`` for another encoding than UTF-8, a
    broken line, a line that is no object, a damaged or truncated gzip file.

    >>> import pathlib
    >>> _ = pathlib.Path("a.json").write_text('{"sentence": "一\\u2028二"}\\n', encoding="utf-8")
    >>> list(read_rows("a.json"))
    [(1, {'sentence': '一\\u2028二'})]
    """
    for number, line in _lines(Path(path)):
        text = _decode(line, f"{path}:{number}")
        if text.strip():
            yield number, _parse(text, f"{path}:{number}")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line
    except EOFError:
        raise InputError("the gzip file ends too early", f"{path}:{number}",
                         "copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"a damaged gzip file ({error})", f"{path}:{number}",
                         "copy or download it again") from None
    except OSError as error:
        raise InputError(f"cannot read it ({error.strerror})", str(path)) from None


def _decode(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise InputError(f"not UTF-8{_guess(line)}", where, "save the file as UTF-8") from None


def _guess(line: bytes) -> str:
    if line[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return " but UTF-16"
    try:
        line.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    return ", it looks like GBK"


def _parse(text: str, where: str) -> dict:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"broken JSON ({error.msg} at column {error.colno})", where,
                         "mend or delete the line") from None
    if not isinstance(row, dict):
        raise InputError(f"a JSON {type(row).__name__} where an object is wanted", where,
                         "CLUE's files hold one JSON object a line")
    return row

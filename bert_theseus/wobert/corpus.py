"""Plain text → documents → pieces that end where sentences end.

The article's ``train.py`` (kexue.fm 7758) cuts texts at newlines and full stops and packs the
sentences greedily up to 1.3·maxlen characters (words are longer than a character). Here the
same, with two things more: a piece also never exceeds the token budget, so that nothing is cut
off afterwards (with characters as units 1.3·maxlen characters would lose a fifth of the text);
and short documents may share a sequence, separated by [SEP].
"""

import gzip
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from bert_theseus.errors import InputError

SENTENCE = re.compile(r"[^\n。！？!?；]*[\n。！？!?；]+[”’」』）)\"']*|[^\n。！？!?；]+")
SUFFIXES = (".txt", ".txt.gz")
_SNIFF = 1 << 16


def corpus_files(paths: Iterable[str | Path]) -> list[Path]:
    """The text files named, and those (.txt, .txt.gz) below the folders named, in order."""
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES))
            if not found:
                raise InputError("no .txt or .txt.gz file in the folder", str(path),
                                 "name a folder with texts, or the files themselves")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError("no such corpus file or folder", str(path), "check the path")
    return files


def documents(path: str | Path, layout: str = "auto") -> Iterator[str]:
    """The documents of one file (.gz or plain, UTF-8), one after the other.

    layout: "line" one document a line; "blank" documents separated by blank lines; "auto" is
            "blank" where the first 64 KiB hold a blank line between two others.

    Raises InputError for a binary or empty file and for one that is not UTF-8, with the line.

    >>> from pathlib import Path
    >>> _ = Path("two.txt").write_text("春眠\\n不觉晓\\n\\n处处\\n", encoding="utf-8")
    >>> list(documents("two.txt"))
    ['春眠\\n不觉晓', '处处']
    """
    path = Path(path)
    if layout == "auto":
        layout = _sniff_layout(path)
    empty = True
    for document in (_lines(path) if layout == "line" else _blocks(path)):
        document = document.strip()
        if document:
            empty = False
            yield document
    if empty:
        raise InputError("the corpus file holds no text", str(path), "leave it out")


def pieces(document: str, count: Callable[[str], int], budget: int,
           max_chars: int) -> Iterator[str]:
    """Cuts a document at sentence ends into pieces as long as budget and ``max_chars`` allow.

    count:  text → its number of tokens; a sentence ends in a token of its own, so the counts of
            sentences add up.
    budget: tokens a piece may have; a sentence of more is halved until it fits.

    >>> list(pieces("一二。三四。五六。", len, budget=6, max_chars=8))
    ['一二。三四。', '五六。']
    """
    piece, tokens = "", 0
    for sentence in SENTENCE.findall(document):
        for part, size in _small_enough(sentence, count, budget, max_chars):
            if piece and (tokens + size > budget or len(piece) + len(part) > max_chars):
                yield piece.strip()
                piece, tokens = "", 0
            piece, tokens = piece + part, tokens + size
    if piece.strip():
        yield piece.strip()


def _small_enough(sentence: str, count, budget: int,
                  max_chars: int) -> Iterator[tuple[str, int]]:
    size = count(sentence)
    if len(sentence) < 2 or (len(sentence) <= max_chars and size <= budget):
        yield sentence, size
        return
    middle = min(len(sentence) // 2, max_chars)
    yield from _small_enough(sentence[:middle], count, budget, max_chars)
    yield from _small_enough(sentence[middle:], count, budget, max_chars)


def held_out(document: str, one_in: int) -> bool:
    """Whether a document belongs to the unseen part: decided by its text alone, so that
    repetitions of a text never end up on both sides."""
    digest = hashlib.blake2b(document.encode(), digest_size=8).digest()
    return one_in > 0 and int.from_bytes(digest, "big") % one_in == 0


_TEXT_FIELDS = ("sentence", "sentence1", "sentence2", "text", "content", "abst", "question",
                "premise", "hypothesis", "query1", "query2")


def task_texts(data_dir: str | Path) -> Iterator[str]:
    """The distinct texts (no labels) of every ``*/train.json`` and ``.json.gz`` in CLUE's layout.

    A text that some other file of the tasks (dev, test, …) holds too is left out, compared
    after NFKC, in lower case, without white space.
    """
    folder = Path(data_dir)
    seen = {_key(text) for path in _task_files(folder, train=False) for text in _texts(path)}
    for path in _task_files(folder, train=True):
        for text in _texts(path):
            key = _key(text)
            if key and key not in seen:
                seen.add(key)
                yield " ".join(text.split())


def _task_files(folder: Path, train: bool) -> list[Path]:
    files = sorted(list(folder.glob("*/*.json")) + list(folder.glob("*/*.json.gz")))
    return [p for p in files if (p.name.split(".")[0] == "train") is train]


def _texts(path: Path) -> Iterator[str]:
    with _Decoded(path) as lines:
        for line in lines:
            line = line.strip()
            example = json.loads(line) if line[:1] == "{" else {}
            if isinstance(example, dict):
                yield from (example[f] for f in _TEXT_FIELDS if isinstance(example.get(f), str))


def _key(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


class _Decoded:
    """Lines of a UTF-8 file, plain or gzip; what is wrong with it comes as InputError."""

    def __init__(self, path: Path):
        self.path = path
        self.file = (gzip.open if path.name.endswith(".gz") else open)(path, "rb")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def __iter__(self) -> Iterator[str]:
        number = 0
        try:
            for number, line in enumerate(self.file, 1):
                yield self._decode(line, number)
        except (gzip.BadGzipFile, EOFError) as error:
            raise InputError(f"damaged gzip file ({error})", f"{self.path}:{number + 1}",
                             "fetch it again") from None

    def _decode(self, line: bytes, number: int) -> str:
        if b"\0" in line:
            raise InputError("a binary file, not text", f"{self.path}:{number}",
                             "give plain UTF-8 text")
        try:
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            guess = _guess(line)
            raise InputError(f"not UTF-8{guess}", f"{self.path}:{number}",
                             "convert it: iconv -f GB18030 -t UTF-8 OLD > NEW" if guess
                             else "give plain UTF-8 text") from None


def _guess(line: bytes) -> str:
    try:
        text = line.decode("gb18030")
    except UnicodeDecodeError:
        return ""
    return " (it reads as GBK)" if any("\u4e00" <= c <= "\u9fff" for c in text) else ""


def _lines(path: Path) -> Iterator[str]:
    with _Decoded(path) as lines:
        yield from lines


def _blocks(path: Path) -> Iterator[str]:
    block: list[str] = []
    for line in _lines(path):
        if line.strip():
            block.append(line.strip())
        elif block:
            yield "\n".join(block)
            block = []
    yield "\n".join(block)


def _sniff_layout(path: Path) -> str:
    size, blank = 0, False
    for line in _lines(path):
        if blank and line.strip():
            return "blank"
        blank = size > 0 and not line.strip()
        size += len(line)
        if size > _SNIFF:
            break
    return "line"

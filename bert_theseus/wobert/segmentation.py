"""Text → words, as ``jieba.lcut(text, HMM=False)`` cuts it, by whatever is fastest here.

``rjieba`` is jieba in Rust with the same dictionary; the words are the same, 30 times sooner.
Where it is not installed jieba itself does the work. One class hides which, so that a tokenizer
saved here and loaded elsewhere gives the same ids.

Own words make the cut follow them. jieba's format for a user dictionary is one ``word
[frequency] [tag]`` a line; without a frequency the word gets the smallest one that keeps it
whole, computed as jieba computes it, whichever of the two cuts.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from bert_theseus.errors import InputError

ENGINES = ("auto", "rjieba", "jieba")
_LINE = re.compile(r"^(.+?)(?: ([0-9]+))?(?: ([a-z]+))?$")


class Segmenter:
    """Cuts texts into words; own words are known to this object alone.

    words:  own words → frequency; None lets jieba's rule choose one.
    engine: "rjieba", "jieba", or "auto", rjieba where it is installed.

    Calling it gives the list of words, whose concatenation is the text; ``cut(text, False)`` is
    the same without a call in between.

    >>> Segmenter()("云计算公司")
    ['云', '计算', '公司']
    >>> Segmenter(["云计算"])("云计算公司")
    ['云计算', '公司']
    """

    def __init__(self, words: Mapping[str, int | None] | Iterable[str] = (), engine: str = "auto"):
        if engine not in ENGINES:
            raise InputError(f"unknown segmentation {engine!r}", "engine",
                             f"use one of {', '.join(ENGINES)}")
        given = dict(words) if isinstance(words, Mapping) else dict.fromkeys(words)
        self.words = _with_frequencies(given)
        self.engine = _installed(engine)
        self.cut = _rjieba(self.words) if self.engine == "rjieba" else _jieba(self.words)

    def __call__(self, text: str) -> list[str]:
        return self.cut(text, False)

    def __reduce__(self):
        return Segmenter, (self.words, self.engine)


def read_user_dict(path: str | Path) -> dict[str, int | None]:
    """A user dictionary in jieba's format: word → frequency or None.

    >>> _ = Path("own.txt").write_text("云计算 5 n\\n石墨烯\\n", encoding="utf-8")
    >>> read_user_dict("own.txt")
    {'云计算': 5, '石墨烯': None}
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(f"cannot read the user dictionary ({error.strerror})", str(path)) from None
    except UnicodeDecodeError:
        raise InputError("the user dictionary is not UTF-8", str(path),
                         "save it as UTF-8") from None
    words: dict[str, int | None] = {}
    for number, line in enumerate(lines, 1):
        if match := _LINE.match(line.strip()):
            words[match[1]] = int(match[2]) if match[2] else None
            if words[match[1]] == 0:
                raise InputError(f"frequency 0 for {match[1]!r}", f"{path}:{number}",
                                 "give 1 or more, or leave the frequency out")
    return words


@lru_cache(maxsize=1)
def jieba_frequencies() -> dict[str, int]:
    """jieba's own dictionary: word → frequency, in the order of ``jieba.dt.FREQ``."""
    frequencies, _ = _dictionary()
    return {word: frequency for word, frequency in frequencies.items() if frequency > 0}


def _with_frequencies(words: dict[str, int | None]) -> dict[str, int]:
    """Every word with a frequency: jieba's ``suggest_freq`` where none is given."""
    if all(frequency is not None for frequency in words.values()):
        return words
    cutter = _jieba_tokenizer()
    fixed = {}
    for word, frequency in words.items():
        fixed[word] = cutter.suggest_freq(word) if frequency is None else frequency
        cutter.add_word(word, fixed[word])
    return fixed


def _installed(engine: str) -> str:
    if engine == "jieba":
        return engine
    try:
        import rjieba  # noqa: F401
    except ImportError:
        if engine == "rjieba":
            raise InputError("rjieba is not installed", "engine",
                             "pip install rjieba, or use engine='jieba'") from None
        return "jieba"
    return "rjieba"


def _rjieba(words: Mapping[str, int]):
    """jieba adds an own word's frequency to its total even where it replaces a word it had;
    rjieba takes the old one off. A word no text can hold makes up for the difference."""
    import rjieba
    if not words:
        return rjieba.cut
    cutter, known = rjieba.Jieba(), jieba_frequencies()
    for word, frequency in words.items():
        cutter.add_word(word, frequency, "n")
    cutter.add_word("\ue000\ue001", sum(known.get(word, 0) for word in words), "n")
    return cutter.cut


def _jieba(words: Mapping[str, int]):
    cutter = _jieba_tokenizer()
    for word, frequency in words.items():
        cutter.add_word(word, frequency)
    return lambda text, hmm: cutter.lcut(text, HMM=hmm)


def _jieba_tokenizer():
    """A jieba of one's own: words added here are not added to ``jieba.dt``, nor the reverse."""
    import jieba
    tokenizer, frequencies, total = jieba.Tokenizer(), *_dictionary()
    tokenizer.FREQ, tokenizer.total, tokenizer.initialized = dict(frequencies), total, True
    return tokenizer


@lru_cache(maxsize=1)
def _dictionary() -> tuple[dict[str, int], int]:
    import jieba
    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.initialize()
    return tokenizer.FREQ, tokenizer.total

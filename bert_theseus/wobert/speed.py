"""The article's speed table: how much sooner words are read than characters, text by text length.

Both models read the same texts, tokenisation included, turn about; a round's ratio compares runs
that stood next to each other, so a machine that drifts does not favour either.
"""

import time
from collections.abc import Callable, Sequence

LENGTHS, ROUNDS = (128, 256, 512), 3


def pieces_of(texts: Sequence[str], length: int, count: int) -> list[str]:
    """``count`` stretches of ``length`` characters out of the texts put one behind the other.

    >>> pieces_of(["甲乙", "丙丁戊"], 2, 3)
    ['甲乙', '丙丁', '甲乙']
    """
    text = "".join(texts)
    starts = max(len(text) - length + 1, 1)
    return [text[i * length % starts:][:length] for i in range(count)]


def speed_ups(slow: Callable, fast: Callable, texts: Sequence[str], count: int = 128,
              lengths: Sequence[int] = LENGTHS, rounds: int = ROUNDS) -> dict[int, list[float]]:
    """Length in characters → seconds of ``slow`` over seconds of ``fast``, one value a round.

    slow, fast: functions that read a list of texts. The first reading, which traces, is left out.

    >>> ratios = speed_ups(lambda texts: time.sleep(.1), lambda texts: None, ["甲乙"], rounds=2)
    >>> {length: min(values) > 2 for length, values in ratios.items()}
    {128: True, 256: True, 512: True}
    """
    found = {}
    for length in lengths:
        pieces = pieces_of(texts, length, count)
        slow(pieces), fast(pieces)
        found[length] = [_seconds(slow, pieces) / _seconds(fast, pieces) for _ in range(rounds)]
    return found


def _seconds(read: Callable, pieces: list[str]) -> float:
    began = time.perf_counter()
    read(pieces)
    return time.perf_counter() - began

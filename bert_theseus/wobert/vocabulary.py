"""Vocabularies: pruned to what Chinese text needs, then widened by words (kexue.fm 7758).

Google's Chinese vocabulary has 21,128 tokens, of which 7,321 are ``##中`` and the like, that a
tokenizer which puts spaces around every CJK character cannot produce; the article leaves them
out and adds the 20,000 most frequent words of jieba's dictionary.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bert_theseus import backend  # noqa: F401  (repairs bert4keras first)
from bert4keras.tokenizers import Tokenizer

from bert_theseus.errors import InputError
from bert_theseus.results import replace_file
from bert_theseus.wobert.characters import CharTokenizer
from bert_theseus.wobert.segmentation import jieba_frequencies

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def read_vocab(dict_path: str | Path) -> dict[str, int]:
    """vocab.txt → token → id, in bert4keras' reading; InputError for what is not a vocabulary:
    a missing file, another encoding, a token twice, a special token missing."""
    path = Path(dict_path)
    if not path.is_file():
        raise InputError("no such vocabulary", str(path), "name a folder or file with vocab.txt")
    token_dict: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise InputError("the vocabulary is not UTF-8", str(path), "convert it to UTF-8") from None
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, 1):
        token = (line.split() or [line.strip()])[0]
        if token in token_dict:
            raise InputError(f"token {token!r} stands twice in the vocabulary", f"{path}:{number}",
                             "remove one of the two lines")
        token_dict[token] = len(token_dict)
    missing = [token for token in SPECIAL if token not in token_dict]
    if missing:
        raise InputError(f"the vocabulary lacks {missing[0]}", str(path), "use a BERT vocabulary")
    return token_dict


def write_vocab(path: str | Path, token_dict: dict[str, int]) -> None:
    """Writes vocab.txt, one token a line, in the order of the ids."""
    text = "".join(token + "\n" for token, _ in sorted(token_dict.items(), key=lambda kv: kv[1]))
    replace_file(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def ordinary_ids(token_dict: dict[str, int]) -> list[int]:
    """Ids that masking may choose and draw: neither special ([CLS], [unused1], …) nor empty.

    >>> ordinary_ids({"[PAD]": 0, "[unused1]": 1, "[": 2, "中": 3})
    [2, 3]
    """
    return [i for token, i in token_dict.items()
            if token and not (len(token) > 2 and token[0] == "[" and token[-1] == "]")]


def frequent_vocab(token_dict: dict[str, int], texts: Iterable[str], size: int) -> dict[str, int]:
    """The ``size`` tokens of a vocabulary that ``texts`` need most, most frequent first.

    Always kept: the special tokens, and single letters, digits and ASCII punctuation with their
    ``##`` forms, so that every Latin word and number can still be written.
    """
    tokenizer = CharTokenizer(token_dict, do_lower_case=True)
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(tokenizer.ids(text))
    names = {i: token for token, i in token_dict.items()}
    ascii_tokens = [t for t in token_dict if len(t.removeprefix("##")) == 1 and t.isascii()]
    frequent = [names[i] for i, _ in counts.most_common() if names[i] not in SPECIAL]
    room = size - len(SPECIAL) - len(ascii_tokens)
    if room < 0:
        raise InputError(f"a vocabulary of {size} tokens has no room for letters and digits",
                         "--vocab_size", f"use at least {size - room}")
    others = [t for t in frequent if t not in set(ascii_tokens)][:room]
    return {token: i for i, token in enumerate([*SPECIAL, *ascii_tokens, *others])}


class WordVocab(NamedTuple):
    """A vocabulary with words, in the form ``build_transformer_model`` takes it.

    token_dict:      token → id: the kept tokens, then the words.
    keep_tokens:     old ids of the kept tokens, in their new order.
    compound_tokens: for each word the new ids of the pieces it is the mean of.
    """

    token_dict: dict[str, int]
    keep_tokens: list[int]
    compound_tokens: list[list[int]]


def build_word_vocab(dict_path: str | Path, num_words: int = 20000,
                     extra_words: Iterable[str] = ()) -> WordVocab:
    """The article's vocabulary: kept tokens, the most frequent words of jieba, own words.

    dict_path:   vocab.txt of a character model.
    num_words:   how many words of jieba's dictionary to add, most frequent first, those left
                 out that the vocabulary has.
    extra_words: own words, lower-cased, added behind.

    With Google's vocabulary and 20,000 words this gives 33,585 tokens; the article says 33,586.
    The one token between is ``##§``: bert4keras drops word pieces that hold punctuation, and
    Python 2, whose Unicode tables call § a symbol, keeps it.
    """
    old = read_vocab(dict_path)
    kept = [*SPECIAL, *(t for t in old if t not in SPECIAL and not Tokenizer._is_redundant(t))]
    token_dict = {token: i for i, token in enumerate(kept)}
    pieces = CharTokenizer(dict(token_dict), do_lower_case=True)
    words = _new_words(token_dict, num_words, [w.lower() for w in extra_words])
    token_dict.update({word: len(kept) + i for i, word in enumerate(words)})
    return WordVocab(token_dict, [old[token] for token in kept], [pieces.ids(w) for w in words])


def _new_words(known: dict[str, int], num_words: int, extra_words: list[str]) -> list[str]:
    counts = jieba_frequencies() if num_words else {}
    by_count = sorted(counts, key=lambda word: -counts[word])
    words = [word for word in by_count if word not in known][:num_words]
    if len(words) < num_words:
        raise InputError(f"jieba's dictionary has only {len(words)} words that are new",
                         "num_words", f"use at most {len(words)}")
    taken = {*known, *words}
    return words + [w for w in dict.fromkeys(extra_words) if w.strip() and w not in taken]

"""Token ids of many distinct strings at once, identical to ``tokenizer.encode``.

bert4keras' tokenizer isolates every Chinese character and every punctuation mark, so a string
made of these alone is looked up in a table code point → id. Strings with anything else (Latin
letters, digits, combining marks) take the full tokenizer, one by one.
"""

import hashlib
import unicodedata

import numpy as np

_UNSEEN, _FULL, _SPACE = -3, -2, -1  # table entries that are no token id


class BatchTokenizer:
    """Wraps a tokenizer with ``encode``; ``.end_id`` is the id that closes every part, ``.dtype``
    what holds every id.

    A subclass, a ``pre_tokenize`` function or translated tokens may tie neighbouring characters
    together; then every string takes the full tokenizer.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.end_id = int(tokenizer._token_end_id)
        self.unknown_id = int(tokenizer._token_unk_id)
        size = getattr(tokenizer, "_vocab_size", None)
        self.dtype = "uint16" if size is not None and size < 1 << 16 else "uint32"
        self._table = np.full(0x110000, _UNSEEN, "int32") if _is_plain(tokenizer) else None

    def encode(self, strings: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all strings in one row, each closed by ``end_id``, and their lengths."""
        if self._table is None:
            ids = [self._full(text) for text in strings]
            return (np.fromiter((i for row in ids for i in row), self.dtype),
                    np.fromiter(map(len, ids), "int64", len(ids)))
        codes = np.frombuffer("".join(strings).encode("utf-32-le"), "<u4")
        self._learn(codes)
        owner = np.repeat(np.arange(len(strings)), np.fromiter(map(len, strings), "int64"))
        return self._place(self._table[codes], owner, strings)

    def _place(self, looked_up, owner, strings):
        full = np.unique(owner[looked_up == _FULL]).tolist()
        by_tokenizer = np.zeros(len(strings), bool)
        by_tokenizer[full] = True
        kept = (looked_up >= 0) & ~by_tokenizer[owner]
        rows = [self._full(strings[i]) for i in full]
        lengths = np.bincount(owner[kept], minlength=len(strings)) + 1
        lengths[full] = [len(row) for row in rows]
        ids = np.full(lengths.sum(), self.end_id, self.dtype)
        target = np.ones(len(ids), bool)
        target[np.cumsum(lengths) - 1] = False
        closed = np.repeat(by_tokenizer, lengths)
        ids[target & ~closed] = looked_up[kept]
        ids[closed] = np.fromiter((i for row in rows for i in row), self.dtype)
        return ids, lengths

    def _full(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)[0][1:]

    def _learn(self, codes: np.ndarray) -> None:
        new = codes[self._table[codes] == _UNSEEN]
        for code in np.unique(new).tolist():
            self._table[code] = self._entry(chr(code))

    def _entry(self, character: str) -> int:
        tokenizer = self.tokenizer
        if tokenizer._do_lower_case:
            character = _normalize(character)
        if len(character) != 1:
            return _FULL
        if tokenizer._is_punctuation(character) or tokenizer._is_cjk_character(character):
            return tokenizer.token_to_id(character)
        return _SPACE if tokenizer._is_space(character) else _FULL


def _is_plain(tokenizer) -> bool:
    kind = type(tokenizer)
    return ((kind.__module__, kind.__name__) == ("bert4keras.tokenizers", "Tokenizer")
            and tokenizer._pre_tokenize is None and not tokenizer._token_translate)


def _normalize(text: str) -> str:
    """Lower case without accents, as bert4keras does it."""
    decomposed = unicodedata.normalize("NFD", text.lower())
    return "".join(c for c in decomposed if unicodedata.category(c) != "Mn")


def fingerprint(tokenizer) -> str:
    """A digest of everything that decides about ids: class, case, special tokens, vocabulary."""
    digest = hashlib.blake2b(digest_size=16)
    parts = [type(tokenizer).__name__, getattr(tokenizer, "_do_lower_case", None),
             tokenizer._token_start, tokenizer._token_end, tokenizer._token_unk,
             sorted(tokenizer._token_translate.items())]
    vocabulary = getattr(tokenizer, "_token_dict", {})
    parts += sorted(vocabulary.items(), key=lambda item: item[1])
    for part in parts:
        digest.update(repr(part).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()

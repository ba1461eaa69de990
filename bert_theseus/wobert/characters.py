"""bert4keras' character tokenizer, the same ids in a fraction of the time.

bert4keras looks at every character of every text in Python: category, block, spacing, then a
greedy word-piece search. Two observations make that cheap without changing one id:

* what happens to a character depends on that character alone (lower case, NFD, accents, spaces
  around CJK and punctuation), so ``str.translate`` with a table that fills itself does it in C.
  The two exceptions (final sigma; combining characters that NFD may reorder) go the slow way;
* the pieces of a word never change, so word → ids is a dictionary that fills itself.

>>> tokens = "[PAD] [UNK] [CLS] [SEP] [MASK] 中 文 bert ##s".split()
>>> tokenizer = CharTokenizer({t: i for i, t in enumerate(tokens)}, do_lower_case=True)
>>> tokenizer.encode("BERTs中文")
([2, 7, 8, 5, 6, 3], [0, 0, 0, 0, 0, 0])
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain

from bert_theseus import backend  # noqa: F401  (repairs bert4keras first)
from bert4keras.snippets import lowercase_and_normalize, truncate_sequences
from bert4keras.tokenizers import Tokenizer

from bert_theseus.wobert.parallel import map_chunks

ASCII_RUNS = re.compile(r"([\x00-\x7f]+)")
CACHE_LIMIT = 500_000  # words kept; a full cache is emptied, so memory stays bounded


class CharTokenizer(Tokenizer):
    """``bert4keras.tokenizers.Tokenizer`` with the same arguments, the same ids, and speed.

    token_dict:    path of a vocab.txt or a dictionary token → id.
    do_lower_case: as in bert4keras (True for Google's Chinese BERT).

    Everything else is inherited: ``tokenize``, ``rematch``, ``decode``, ``token_to_id``.

    >>> tokenizer = CharTokenizer({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "我": 3}, True)
    >>> tokenizer.encode_batch(["我", "我我他"])
    [[1, 3, 2], [1, 3, 3, 0, 2]]
    """

    def __init__(self, token_dict, do_lower_case: bool = False, word_maxlen: int = 200, **kwargs):
        super().__init__(token_dict, do_lower_case, word_maxlen, **kwargs)
        self._spacing = SpacingTable(do_lower_case)
        self._solo = SoloIds(self._spacing, self._ids_of_word)
        self._run_ids = FillingDict(self._ids_of_run)
        self._word_ids = FillingDict(self._ids_of_word)
        ends = [token and self._token_dict.get(token) for token in
                (self._token_start, self._token_end)]
        self._ends = None if None in ends else ends

    def encode(self, first_text, second_text=None, maxlen: int | None = None,
               pattern: str = "S*E*E", truncate_from="right") -> tuple[list[int], list[int]]:
        """Token ids and segment ids, as bert4keras' ``encode`` gives them for every argument."""
        if second_text is None and type(first_text) is str and truncate_from == "right" \
                and self._ends and (maxlen is None or maxlen > 1):
            ids = self._framed(self.ids(first_text), maxlen)
            return ids, [0] * len(ids)
        texts = (first_text,) if second_text is None else (first_text, second_text)
        if not all(isinstance(text, str) for text in texts):
            return super().encode(first_text, second_text, maxlen, pattern, truncate_from)
        first, second = [self._with_ends(self.ids(text)) for text in texts] + [None] * (
            second_text is None)
        if maxlen is not None:
            self._truncate(first, second, maxlen, pattern, truncate_from)
        if second is None:
            return first, [0] * len(first)
        if pattern == "S*E*E":
            second = second[int(bool(self._token_start)):]
        return first + second, [0] * len(first) + [1] * len(second)

    def _framed(self, ids: list[int], maxlen: int | None) -> list[int]:
        """[CLS] ids [SEP], of at most ``maxlen``."""
        if maxlen is not None and len(ids) > maxlen - 2:
            ids = ids[:maxlen - 2]
        return [self._ends[0], *ids, self._ends[1]]

    def encode_batch(self, texts: Sequence[str], maxlen: int | None = None,
                     second_texts: Sequence[str] | None = None, processes: int = 1) -> list:
        """Many texts at once: a list of token ids for each, as ``encode(text, maxlen=maxlen)[0]``
        (the segment ids of single texts are zeros); with ``second_texts`` a list of
        ``encode(text, second_text, maxlen=maxlen)``, token ids and segment ids.

        processes: how many share the work where there are enough texts to pay for it (the ids
                   do not depend on it); 0 means one for each core. On systems that cannot fork,
                   the work stays in this process.
        """
        if second_texts is None:
            return map_chunks(lambda part: self._encode_part(part, maxlen), texts, processes)
        pairs = list(zip(texts, second_texts, strict=True))
        rows = map_chunks(lambda part: [self._encode_pair(*p, maxlen) for p in part], pairs,
                          processes)
        return [(row[1:], [0] * row[0] + [1] * (len(row) - 1 - row[0])) for row in rows]

    def _encode_part(self, texts: Sequence[str], maxlen: int | None) -> list[list[int]]:
        return [self.encode(text, maxlen=maxlen)[0] for text in texts]

    def _encode_pair(self, first: str, second: str, maxlen: int | None) -> list[int]:
        """Length of the first segment, then the token ids."""
        ids, segments = self.encode(first, second, maxlen)
        return [segments.count(0), *ids]

    def rematch(self, text: str, tokens: Sequence[str]) -> list[list[int]]:
        """For each token the positions of its characters in ``text``, [] for special tokens.

        bert4keras counts in the lower-cased text; positions here fit the text as given, also
        where a character changes its length in lower case.
        """
        normal, origin = self._normal_form(text)
        positions, offset = [], 0
        for token in tokens:
            if self._is_special(token):
                positions.append([])
                continue
            token = self.stem(token)
            start = normal.index(token, offset)
            offset = start + len(token)
            positions.append(origin[start:offset])
        return positions

    def _normal_form(self, text: str) -> tuple[str, list[int]]:
        """The text as the tokens show it, and for each of its characters where it comes from."""
        lower = lowercase_and_normalize if self._do_lower_case else str
        parts = [lower(ch) for ch in text]
        origin = [i for i, part in enumerate(parts) for _ in part]
        normal = lower(text)  # differs from the parts in final sigmas, never in length
        kept = [k for k, c in enumerate(normal)
                if not (ord(c) in (0, 0xFFFD) or self._is_control(c))]
        return "".join(normal[k] for k in kept), [origin[k] for k in kept]

    def ids(self, text: str) -> list[int]:
        """Token ids of a text without [CLS] and [SEP].

        The usual text is characters that are tokens by themselves and ASCII runs between them;
        a text with anything else (é, １, combining marks) takes the general way.
        """
        if self._pre_tokenize is not None:
            return self.tokens_to_ids(self.bare_tokens(text))
        try:
            solo, *rest = ASCII_RUNS.split(text)
            ids = list(map(self._solo.__getitem__, solo))
            for i in range(0, len(rest), 2):
                ids += self._run_ids[rest[i]]
                ids += map(self._solo.__getitem__, rest[i + 1])
            return ids
        except NotSolo:
            return self._ids_by_words(text)

    def _ids_by_words(self, text: str) -> list[int]:
        try:
            words = text.translate(self._spacing).split()
        except ContextDependent:
            return self.tokens_to_ids(self.bare_tokens(text))
        return list(chain.from_iterable(map(self._word_ids.__getitem__, words)))

    def _ids_of_run(self, run: str) -> tuple[int, ...]:
        return tuple(self._ids_by_words(run))

    def bare_tokens(self, text: str) -> list[str]:
        """Tokens of a text without [CLS] and [SEP], by bert4keras' own code."""
        return [self._token_translate.get(t) or t for t in self._tokenize(text)]

    def _ids_of_word(self, word: str) -> tuple[int, ...]:
        pieces = self._word_piece_tokenize(word)
        return tuple(self.token_to_id(self._token_translate.get(t) or t) for t in pieces)

    def _with_ends(self, ids: list[int]) -> list[int]:
        if self._token_start is not None:
            ids.insert(0, self.token_to_id(self._token_start))
        if self._token_end is not None:
            ids.append(self.token_to_id(self._token_end))
        return ids

    def _truncate(self, first, second, maxlen, pattern, truncate_from) -> None:
        """In place, as bert4keras does on tokens."""
        at = {"right": -int(self._token_end is not None) - 1,
              "left": int(self._token_start is not None)}.get(truncate_from, truncate_from)
        truncate_sequences(maxlen + int(second is not None and pattern == "S*E*E"), at,
                           first, second)


class ContextDependent(Exception):
    """A character whose normal form depends on its neighbours."""


class SpacingTable(dict):
    """Code point → what bert4keras makes of that character; fills itself as characters come.

    lower_case: lower case and accents off, as ``lowercase_and_normalize``.
    spaces:     spaces around CJK characters and punctuation, control characters off.
    """

    def __init__(self, lower_case: bool, spaces: bool = True):
        self.lower_case, self.spaces = lower_case, spaces

    def __missing__(self, code: int) -> str:
        text = chr(code)
        if self.lower_case:
            text = normalise_character(text)
        if self.spaces:
            text = "".join(map(_space, text))
        self[code] = text
        return text


def normalise_character(character: str) -> str:
    """Lower case, NFD, no accents: of one character, where that does not depend on others."""
    text = lowercase_and_normalize(character)
    if character == "Σ" or any(unicodedata.combining(c) for c in text):
        raise ContextDependent(character)
    return text


def _space(ch: str) -> str:
    if Tokenizer._is_punctuation(ch) or Tokenizer._is_cjk_character(ch):
        return f" {ch} "
    if Tokenizer._is_space(ch):
        return " "
    return "" if ord(ch) in (0, 0xFFFD) or Tokenizer._is_control(ch) else ch


class NotSolo(Exception):
    """A character that is not a token by itself."""


class SoloIds(dict):
    """Character → id, for CJK characters and punctuation, which no neighbour changes."""

    def __init__(self, spacing: SpacingTable, ids_of_word):
        self.spacing, self.ids_of_word = spacing, ids_of_word

    def __missing__(self, character: str) -> int:
        try:
            spaced = self.spacing[ord(character)]
        except ContextDependent:
            raise NotSolo(character) from None
        if len(spaced) != 3 or spaced[0] + spaced[2] != "  ":
            raise NotSolo(character)
        self[character], = self.ids_of_word(spaced[1])
        return self[character]


class FillingDict(dict):
    """Key → what ``compute`` makes of it, once; emptied when it reaches ``CACHE_LIMIT``."""

    def __init__(self, compute):
        self.compute = compute

    def __missing__(self, key: str):
        if len(self) >= CACHE_LIMIT:
            self.clear()
        self[key] = found = self.compute(key)
        return found

"""Words as tokens: bert4keras' tokenizer behind jieba, the same ids many times sooner.

kexue.fm 7758: cut the text into words without new-word discovery (HMM=False); a word of the
vocabulary is a token, any other word goes through the ordinary BERT tokenizer:

    Tokenizer(token_dict, do_lower_case=True, pre_tokenize=lambda s: jieba.lcut(s, HMM=False))

The ids here are those of that line, for every text. What is different: jieba's cut comes from
``rjieba`` where it is installed, what a word becomes is looked up instead of worked out, and the
tokenizer can be saved with its model, own words included.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from bert_theseus import backend  # noqa: F401  (repairs bert4keras first)
from bert4keras.snippets import lowercase_and_normalize
from bert4keras.tokenizers import Tokenizer

from bert_theseus.errors import InputError
from bert_theseus.results import replace_file
from bert_theseus.wobert.characters import (CharTokenizer, ContextDependent, FillingDict,
                                            SpacingTable)
from bert_theseus.wobert.segmentation import Segmenter, jieba_frequencies
from bert_theseus.wobert.vocabulary import read_vocab, write_vocab

SETTINGS, VOCAB = "word_tokenizer.json", "vocab.txt"
# what lower case, NFD and taking accents off leave as it is; anything else goes through the table
CHANGES = re.compile("[^\x00-@\\[-\x7f\u00b7\u2010-\u2027\u3001-\u301f\u4e00-\u9fff\uff01-\uff20]")
END = -1  # between the texts of a batch
JOINED = 64  # texts cut in one call: that alone makes the cut a third faster


class WordTokenizer(CharTokenizer):
    """A bert4keras ``Tokenizer`` whose tokens are words where the vocabulary has them.

    token_dict:    path of a vocab.txt or a dictionary token → id.
    words:         own words for the segmentation: names, or a dictionary word → frequency
                   (``read_user_dict`` reads jieba's format). They follow ``do_lower_case``.
    min_frequency: char fallback: a word of two or more CJK characters that jieba's dictionary
                   counts fewer times becomes characters even where the vocabulary has it; own
                   words stay whole. 0 leaves none out, ``float("inf")`` leaves out all.
    engine:        see :class:`~bert_theseus.wobert.segmentation.Segmenter`.
    Further arguments as for bert4keras' ``Tokenizer``.

    ``encode``, ``encode_batch``, ``tokenize``, ``rematch`` as in :class:`CharTokenizer`.

    >>> vocab = "[PAD] [UNK] [CLS] [SEP] [MASK] 我 们 北 京 我们".split()
    >>> tokenizer = WordTokenizer({token: i for i, token in enumerate(vocab)})
    >>> tokenizer.tokenize("我们在北京")
    ['[CLS]', '我们', '在', '北', '京', '[SEP]']
    """

    def __init__(self, token_dict, do_lower_case: bool = True,
                 words: Mapping[str, int | None] | Iterable[str] = (),
                 min_frequency: float = 0, engine: str = "auto", word_maxlen: int = 200, **kwargs):
        given = dict(words) if isinstance(words, Mapping) else dict.fromkeys(words)
        lower = lowercase_and_normalize if do_lower_case else str
        given = {lower(word): frequency for word, frequency in given.items()}
        self.segmenter, self.min_frequency = Segmenter(given, engine), min_frequency
        self._cut = self.segmenter.cut
        super().__init__(token_dict, do_lower_case, word_maxlen, pre_tokenize=self.segmenter,
                         **kwargs)
        self._lowering = SpacingTable(do_lower_case, spaces=False)
        self._rare = self._rare_words()
        self._pieces = FillingDict(self._pieces_of_word)
        self._batch_ids = FillingDict(lambda w: (END,) if w == "\n" else self._ids_of_word(w))
        self._joinable = not any(token.isspace() for token in self._token_dict)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text without [CLS] and [SEP]."""
        try:
            words = self._cut(self._normal(text), False)
        except ContextDependent:
            return self.tokens_to_ids(self.bare_tokens(text))
        return list(chain.from_iterable(map(self._word_ids.__getitem__, words)))

    def _encode_part(self, texts: Sequence[str], maxlen: int | None) -> list[list[int]]:
        if not (self._joinable and self._ends and (maxlen is None or maxlen > 1)):
            return super()._encode_part(texts, maxlen)
        rows: list[list[int]] = []
        for start in range(0, len(texts), JOINED):
            part = texts[start:start + JOINED]
            try:
                rows += [self._framed(ids, maxlen) for ids in self._ids_together(part)]
            except ContextDependent:
                rows += super()._encode_part(part, maxlen)
        return rows

    def _ids_together(self, texts: Sequence[str]) -> list[list[int]]:
        """The texts cut in one call. Line ends, which separate words as any space does, become
        spaces first and then stand between the texts."""
        lines = (self._normal(text).replace("\n", " ").replace("\r", " ") for text in texts)
        words = self._cut("\n".join(lines) + "\n", False)
        ids = list(chain.from_iterable(map(self._batch_ids.__getitem__, words)))
        rows, start = [], 0
        for _ in texts:
            end = ids.index(END, start)
            rows.append(ids[start:end])
            start = end + 1
        return rows

    def _normal(self, text: str) -> str:
        if self._do_lower_case and CHANGES.search(text):
            return text.translate(self._lowering)
        return text

    def decode(self, ids, tokens: list[str] | None = None) -> str:
        """Tokens → text, with a space only where two Latin words would run into one.

        bert4keras puts spaces around words and behind punctuation, which Chinese has not.

        >>> vocab = {"我们": 0, "用": 1, "gpu": 2, ".": 3, "3": 4, "hello": 5, "world": 6}
        >>> WordTokenizer(vocab).decode([0, 1, 2, 0, 4, 3, 4, 5, 6])
        '我们用gpu我们3.3 hello world'
        """
        text, before = "", ""
        for token in tokens or self.ids_to_tokens(ids):
            if self._is_special(token) and len(token) > 1:
                continue
            if token[:2] == "##" and len(token) > 2:
                token = token[2:]
            elif _joins(before) and _joins(token[:1]):
                text += " "
            text += token
            before = token[-1:]
        return text

    def save(self, folder: str | Path) -> None:
        """Writes ``vocab.txt`` and ``word_tokenizer.json`` (own words, settings, fingerprint)."""
        settings = {**self._settings(), "fingerprint": self.fingerprint()}
        text = json.dumps(settings, ensure_ascii=False, indent=1) + "\n"
        write_vocab(Path(folder) / VOCAB, self._token_dict)
        replace_file(Path(folder) / SETTINGS,
                     lambda beside: beside.write_text(text, encoding="utf-8"))

    @classmethod
    def load(cls, folder: str | Path, engine: str = "auto") -> "WordTokenizer":
        """The tokenizer saved in a folder; InputError where the vocabulary there, jieba's
        dictionary or the settings are not those it was saved with."""
        path = Path(folder) / SETTINGS
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            saved = settings.pop("fingerprint")
        except OSError as error:
            raise InputError(f"no saved word tokenizer ({error.strerror})", str(path),
                             "name a folder written by save or by convert_checkpoint") from None
        except (ValueError, KeyError, AttributeError):
            raise InputError("not a saved word tokenizer", str(path), "save it again") from None
        min_frequency = float(settings["min_frequency"])
        tokenizer = cls(read_vocab(Path(folder) / VOCAB), settings["do_lower_case"],
                        settings["words"], min_frequency, engine)
        if tokenizer.fingerprint() != saved:
            raise InputError("the fingerprint does not fit: vocabulary, own words or jieba's "
                             "dictionary are others than the model was trained with", str(path),
                             "use the vocab.txt and the jieba version of the model")
        return tokenizer

    def fingerprint(self) -> str:
        """A hash of all that the ids depend on: vocabulary, own words, settings, dictionary."""
        tokens = sorted(self._token_dict, key=self._token_dict.get)
        parts = json.dumps([tokens, self._settings(), _dictionary_hash()], ensure_ascii=False)
        return hashlib.sha256(parts.encode()).hexdigest()[:32]

    def _settings(self) -> dict:
        return {"do_lower_case": self._do_lower_case, "words": self.segmenter.words,
                "min_frequency": str(float(self.min_frequency))}

    def _tokenize(self, text: str, pre_tokenize: bool = True) -> list[str]:
        if not pre_tokenize:
            return super()._tokenize(text, False)
        if self._do_lower_case:
            text = lowercase_and_normalize(text)
        return list(chain.from_iterable(map(self._pieces.__getitem__, self.segmenter(text))))

    def _pieces_of_word(self, word: str) -> list[str]:
        if word in self._token_dict and word not in self._rare:
            return [word]
        return super()._tokenize(word, False)

    def _ids_of_word(self, word: str) -> tuple[int, ...]:
        pieces = self._pieces_of_word(word)
        return tuple(self.token_to_id(self._token_translate.get(t) or t) for t in pieces)

    def _rare_words(self) -> set[str]:
        if not self.min_frequency:
            return set()
        counts = jieba_frequencies()
        return {token for token in self._token_dict
                if is_word(token) and token not in self.segmenter.words
                and counts.get(token, 0) < self.min_frequency}


def is_word(token: str) -> bool:
    """Whether a token is a word of two or more characters with a CJK character in it."""
    return len(token) > 1 and token[:2] != "##" and any(map(Tokenizer._is_cjk_character, token))


def tokenizer_of(folder: str | Path) -> CharTokenizer:
    """The tokenizer a model folder needs: the saved word tokenizer; a plain
    :class:`WordTokenizer` where the vocabulary holds words (published WoBERTs); characters
    otherwise."""
    if (Path(folder) / SETTINGS).is_file():
        return WordTokenizer.load(folder)
    token_dict = read_vocab(Path(folder) / VOCAB)
    words = sum(map(is_word, token_dict))
    return (WordTokenizer if words > 100 else CharTokenizer)(token_dict, do_lower_case=True)


def _joins(ch: str) -> bool:
    """Whether a character runs into the next word: neither CJK nor punctuation nor a space."""
    return bool(ch) and not (Tokenizer._is_cjk_character(ch) or Tokenizer._is_punctuation(ch)
                             or Tokenizer._is_space(ch))


def _dictionary_hash() -> str:
    import jieba
    with jieba.Tokenizer().get_dict_file() as file:
        return hashlib.sha256(file.read()).hexdigest()

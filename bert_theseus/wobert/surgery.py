"""A character model's folder → the folder of a word model (kexue.fm 7758).

Only the tables with a row for each token change: rows of tokens that stay are copied bit by bit,
rows of ``##中`` and the like fall away, and a new word starts as the mean of its characters:

    embedding(w) = mean of embedding(c) over the pieces c of w      (and so its output bias)

All other variables (encoder, pooler, heads) are copied as they are, so the same holds for BERT,
RoBERTa, NEZHA and RoFormer, whose checkpoints share these names.
"""

import json
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from bert_theseus.checkpoint import (CHECKPOINT, CONFIG, bert_folder, bert_writer,
                                     refuse_strangers)
from bert_theseus.errors import InputError
from bert_theseus.results import replace_folder
from bert_theseus.wobert.segmentation import read_user_dict
from bert_theseus.wobert.tokenizer import SETTINGS, WordTokenizer, tokenizer_of
from bert_theseus.wobert.vocabulary import build_word_vocab, read_vocab

log = logging.getLogger(__name__)
TABLES = re.compile(r"(^|/)(word_embeddings|predictions/output_bias)$")
FURTHER = SETTINGS, "checkpoint"  # files a word model's folder may hold beside a model's own
_OPTIMIZER = re.compile(r"(adam_[mv]|lamb_[mv]|Adam(_1)?|beta[12]_power|global_step)$")


def convert_checkpoint(bert_dir: str | os.PathLike, output_dir: str | os.PathLike,
                       num_words: int = 20000, extra_words: Iterable[str] = (),
                       user_dict: str | os.PathLike | None = None) -> Path:
    """Writes ``output_dir`` as a published word model with its tokenizer; returns its path.

    bert_dir:    bert_config.json, vocab.txt, bert_model.ckpt.* of BERT, RoBERTa-wwm, NEZHA or
                 RoFormer.
    num_words:   words of jieba's dictionary to add, most frequent first.
    extra_words: own words, added to vocabulary and segmentation.
    user_dict:   a file of own words in jieba's format, the same with frequencies.

    Optimizer states are left out. An existing ``output_dir`` is replaced when the new one is
    complete. Raises InputError for a vocabulary that is none, and for a checkpoint or config of
    another size than the vocabulary.

    >>> from bert_theseus.checkpoint import random_bert
    >>> folder = random_bert("chars", "[PAD] [UNK] [CLS] [SEP] [MASK] 天 气".split(), 1, 8, heads=2)
    >>> _ = convert_checkpoint("chars", "words", num_words=0, extra_words=["天气"])
    >>> WordTokenizer.load("words").tokenize("天气")
    ['[CLS]', '天气', '[SEP]']
    """
    paths, output = bert_folder(bert_dir), Path(output_dir)
    if paths.dict_path is None:
        raise InputError("vocab.txt is missing", str(bert_dir), "put the vocabulary there")
    own = {**dict.fromkeys(extra_words), **(read_user_dict(user_dict) if user_dict else {})}
    vocab = build_word_vocab(paths.dict_path, num_words, own)
    config = _config(paths, len(read_vocab(paths.dict_path)))
    values = _convert(read_checkpoint(paths.checkpoint_path), vocab, config["vocab_size"],
                      paths.checkpoint_path)
    tokenizer = WordTokenizer(vocab.token_dict, words=own)
    _write(output, {**config, "vocab_size": len(vocab.token_dict)}, values, tokenizer)
    return output


def _convert(values: dict[str, np.ndarray], vocab, old_size: int, where: str) -> dict:
    tables = [name for name in values if TABLES.search(name)]
    if not tables:
        raise InputError("no table of word embeddings", where, "give a checkpoint of a BERT")
    for name in tables:
        if len(values[name]) != old_size:
            raise InputError(f"variable {name} has {len(values[name])} rows, the vocabulary "
                             f"{old_size} tokens", where,
                             "use the vocab.txt that belongs to the checkpoint")
    return {name: _widen(value, vocab) if name in tables else value
            for name, value in values.items() if not _OPTIMIZER.search(name)}


def _widen(table: np.ndarray, vocab) -> np.ndarray:
    """[old tokens, …] → [new tokens, …]."""
    kept = table[vocab.keep_tokens]
    if not vocab.compound_tokens:
        return kept
    means = [kept[pieces].mean(axis=0, dtype="float64") for pieces in vocab.compound_tokens]
    return np.concatenate([kept, np.asarray(means, table.dtype)])


def _config(paths, vocab_size: int) -> dict:
    config = json.loads(Path(paths.config_path).read_text(encoding="utf-8"))
    if config.get("vocab_size") != vocab_size:
        raise InputError(f"the config says vocab_size {config.get('vocab_size')}, the vocabulary "
                         f"has {vocab_size} tokens", paths.config_path,
                         "use the files that belong together")
    return config


def _write(output: Path, config: dict, values: dict, tokenizer: WordTokenizer) -> None:
    def write(beside: Path) -> None:
        write_checkpoint(beside / CHECKPOINT, values)
        tokenizer.save(beside)
        (beside / CONFIG).write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n",
                                     encoding="utf-8")

    refuse_strangers(output, FURTHER)
    replace_folder(output, write)


def save_model(transformer, folder: str | os.PathLike, tokenizer) -> Path:
    """Writes a bert4keras transformer as published, with its word tokenizer if it has one."""
    folder, write_bert = Path(folder), bert_writer(transformer, tokenizer)

    def write(beside: Path) -> None:
        write_bert(beside)
        if isinstance(tokenizer, WordTokenizer):
            tokenizer.save(beside)

    refuse_strangers(folder, FURTHER)
    replace_folder(folder, write)
    return folder


def read_checkpoint(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All variables of a checkpoint, name → value."""
    try:
        reader = tf.train.load_checkpoint(str(path))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
                if not name.startswith("_CHECKPOINTABLE")}
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(f"cannot read the checkpoint ({str(error).splitlines()[0]})", str(path),
                         "it needs its .index and all its .data-* files") from None


def write_checkpoint(path: str | os.PathLike, values: dict[str, np.ndarray]) -> None:
    """Writes arrays under their names, as ``tf.train.Saver`` would."""
    names = sorted(values)
    tf.raw_ops.SaveV2(prefix=str(path), tensor_names=names, shape_and_slices=[""] * len(names),
                      tensors=[tf.constant(values[name]) for name in names])


@dataclass(frozen=True)
class Coverage:
    """What a tokenizer makes of a corpus: tokens per 100 characters and share of [UNK]."""

    tokens: int
    unknown: int
    characters: int
    vocab_size: int

    @property
    def tokens_per_100(self) -> float:
        """Average tokens per 100 characters, spaces not counted."""
        return 100 * self.tokens / max(self.characters, 1)

    @property
    def unknown_rate(self) -> float:
        """Share of the tokens that are [UNK]."""
        return self.unknown / max(self.tokens, 1)


def coverage(folder: str | os.PathLike, texts: Iterable[str]) -> Coverage:
    """Tokenises texts with the tokenizer of a model folder and counts."""
    tokenizer = tokenizer_of(folder)
    tokens = unknown = characters = 0
    for text in texts:
        ids = tokenizer.ids(text)
        tokens += len(ids)
        unknown += ids.count(tokenizer._token_unk_id)
        characters += len("".join(text.split()))
    return Coverage(tokens, unknown, characters, tokenizer._vocab_size)

"""A BERT as Google publishes it: a folder with bert_config.json, vocab.txt, bert_model.ckpt.*

    folder = save_bert(transformer, "my_bert", vocab="vocab.txt")
    transformer = load_bert("my_bert")                  # or plain build_transformer_model(...)

The checkpoint holds plain names (``bert/embeddings/word_embeddings``) and values, so whatever
reads Google's BERT reads it. Other than in bert4keras a variable that is missing or of another
shape is named together with its file, what the model did not use is reported, frozen layers
take part, and a folder appears whole or not at all.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import bert4keras.models
import numpy as np
import tensorflow as tf

from bert_theseus.backend import K, set_seed
from bert_theseus.backend._models import all_trainable, mapped_layers
from bert_theseus.errors import InputError
from bert_theseus.results import replace_folder

log = logging.getLogger(__name__)

CONFIG, VOCAB, CHECKPOINT = "bert_config.json", "vocab.txt", "bert_model.ckpt"
_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
             "intermediate_size", "hidden_act")
_OPTIMIZER = re.compile(r"(^|/)(adam_[mv]|lamb_[mv]|Adam(_1)?|beta[12]_power|global_step)$")
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class BertFolder:
    """The three paths bert4keras asks for; ``dict_path`` is None where there is no vocabulary."""

    config_path: str
    checkpoint_path: str
    dict_path: str | None


@dataclass(frozen=True)
class Loaded:
    """What did not match: nothing, in the best case.

    unused:   variables of the checkpoint the model has no place for (optimizer states aside).
    unfilled: weights of the model the checkpoint's form has no name for; they stay as they were.
    """

    unused: tuple[str, ...]
    unfilled: tuple[str, ...]


def bert_folder(folder: str | os.PathLike) -> BertFolder:
    """Finds config, checkpoint and vocabulary of a published model.

    Takes ``bert_config.json`` or the only ``*config*.json``; ``bert_model.ckpt``, else the only
    checkpoint, else the one with the highest step (``model.ckpt-100000``); ``vocab.txt`` or the
    only ``vocab*.txt``. Raises InputError naming the file that is missing or ambiguous.

    >>> folder = random_bert("tiny", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], 1, 8, heads=2)
    >>> bert_folder("tiny").checkpoint_path
    'tiny/bert_model.ckpt'
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("no such folder", str(folder),
                         f"it should hold {CONFIG}, {VOCAB}, {CHECKPOINT}.*")
    config = _only(folder, CONFIG, "*config*.json")
    vocab = _only(folder, VOCAB, "vocab*.txt", optional=True)
    checkpoint = _checkpoint_of(folder)
    return BertFolder(str(config), checkpoint, None if vocab is None else str(vocab))


def load_bert(folder: str | os.PathLike, model="bert", return_keras_model: bool = False, **kwargs):
    """``build_transformer_model`` on a published folder, with everything checked.

    model, kwargs: as for bert4keras (``application``, ``keep_tokens``, ``with_mlm``, …).
    Returns the bert4keras transformer (its Keras model is ``.model``), or the Keras model. What
    was left unused is logged, its first three names; ``load_checked`` returns it all. Raises
    InputError for a missing file, a broken config, a variable that is missing or of another shape.

    >>> folder = random_bert("small", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], 1, 8, heads=2)
    >>> load_bert("small").model.output_shape
    (None, None, 8)
    """
    paths = bert_folder(folder)
    read_config(paths)
    transformer = bert4keras.models.build_transformer_model(
        paths.config_path, model=model, return_keras_model=False, **kwargs)
    loaded = load_checked(transformer, paths.checkpoint_path)
    if loaded.unused:
        log.info("%s: %d variables left unused: %s", paths.checkpoint_path, len(loaded.unused),
                 ", ".join(loaded.unused[:3]) + (", …" if len(loaded.unused) > 3 else ""))
    if loaded.unfilled:
        log.warning("%s: %d weights of the model are not in it: %s", paths.checkpoint_path,
                    len(loaded.unfilled), ", ".join(loaded.unfilled))
    return transformer.model if return_keras_model else transformer


def load_checked(transformer, checkpoint_path: str | os.PathLike) -> Loaded:
    """Fills a bert4keras transformer from a checkpoint, all of it or nothing.

    With ``ignore_invalid_weights`` or ``autoresize_weights`` bert4keras' own rules decide about
    missing variables and other shapes. Raises InputError naming variable, file, both shapes.
    """
    values = _Variables(checkpoint_path)
    lenient = transformer.ignore_invalid_weights or transformer.autoresize_weights
    pairs, unfilled = [], []
    for layer, names in mapped_layers(transformer):
        with all_trainable(layer):
            weights = list(layer.trainable_weights)
        if not lenient:
            pairs += [(w, _value_for(transformer, w, values, n)) for w, n in zip(weights, names)]
        unfilled += [weight.name for weight in weights[len(names):]]
    if lenient:
        transformer.load_weights_from_checkpoint(values)
    else:
        K.batch_set_value(pairs)
    return Loaded(values.unused(), tuple(unfilled + _unmapped(transformer)))


def save_bert(transformer, folder: str | os.PathLike, vocab, config: Mapping | None = None) -> Path:
    """Writes a bert4keras transformer of the BERT family as a published folder; returns its path.

    vocab:  path of a vocabulary, tokens in the order of their ids, token → id, or a tokenizer.
    config: further keys for bert_config.json; what describes the weights is always the model's.
    The folder is written beside and renamed; a model folder of that name is replaced, a folder
    with other files in it is refused. An ALBERT_Unshared is written as the BERT it is, since
    ALBERT's names have room for one layer only. Raises InputError for a vocabulary that does not
    fit and for weights the published form has no name for.

    >>> bert = load_bert(random_bert("a", [f"t{i}" for i in range(9)], 1, 8, heads=2))
    >>> folder = save_bert(bert, "b", vocab="a/vocab.txt")
    >>> sorted(path.suffix for path in folder.iterdir())
    ['.data-00000-of-00001', '.index', '.json', '.txt']
    """
    folder = Path(folder)
    refuse_strangers(folder)
    replace_folder(folder, bert_writer(transformer, vocab, config))
    return folder


def bert_writer(transformer, vocab, config: Mapping | None = None) -> Callable[[Path], None]:
    """The checks of :func:`save_bert`, and a function that writes its files into a folder."""
    settings = {**(config or {}), **published_config(transformer)}
    vocabulary = _vocabulary_bytes(vocab, transformer.vocab_size)
    mapping = _mapping(transformer)
    _refuse_unnamed_weights(transformer, mapping)

    def write(folder: Path) -> None:
        """Configuration, vocabulary and weights, under their published names."""
        text = json.dumps(settings, ensure_ascii=False, indent=2) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        (folder / VOCAB).write_bytes(vocabulary)
        transformer.save_weights_as_checkpoint(str(folder / CHECKPOINT), mapping)

    return write


def published_config(transformer) -> dict:
    """The bert_config.json of a transformer of the BERT family.

    Keys beyond Google's appear only where the value is not bert4keras' default.
    """
    if not isinstance(transformer, bert4keras.models.BERT):
        raise InputError(f"{type(transformer).__name__} is not of the BERT family",
                         "transformer", "use its save_weights_as_checkpoint")
    t = transformer
    if not isinstance(t.hidden_act, str):
        raise InputError("hidden_act is no name, so a config cannot carry it", "transformer",
                         "register the activation and give its name")
    config = {
        "attention_probs_dropout_prob": t.attention_dropout_rate, "hidden_act": t.hidden_act,
        "hidden_dropout_prob": t.dropout_rate, "hidden_size": t.hidden_size,
        "initializer_range": 0.02, "intermediate_size": t.intermediate_size,
        "max_position_embeddings": t.max_position, "num_attention_heads": t.num_attention_heads,
        "num_hidden_layers": t.num_hidden_layers, "type_vocab_size": t.segment_vocab_size,
        "vocab_size": t.vocab_size}
    head_size = t.hidden_size // t.num_attention_heads
    defaults = {"embedding_size": t.hidden_size, "attention_head_size": head_size,
                "attention_key_size": t.attention_head_size, "hierarchical_position": None,
                "shared_segment_embeddings": False, "residual_attention_scores": False}
    return config | {key: getattr(t, key) for key, default in defaults.items()
                     if getattr(t, key) != default}


def random_bert(folder: str | os.PathLike, vocab, layers: int = 12, hidden: int = 768,
                heads: int | None = None, intermediate: int | None = None,
                max_position: int = 512, seed: int = 42, model="bert") -> Path:
    """Writes a randomly initialised BERT as a published folder, pooler and both heads included.

    heads: default one for every 64 hidden units; intermediate: default 4 × hidden; weights are
    drawn from bert4keras' truncated normal (0.02), reproducibly from ``seed``. Returns the path.
    """
    heads = max(1, hidden // 64) if heads is None else heads
    intermediate = 4 * hidden if intermediate is None else intermediate
    sizes = dict(layers=layers, hidden=hidden, heads=heads, intermediate=intermediate,
                 max_position=max_position)
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} is {size}", name, "give a number of at least 1")
    if hidden % heads:
        raise InputError(f"{hidden} hidden units do not divide into {heads} heads", "heads")
    tokens = _vocabulary_bytes(vocab).decode("utf-8").splitlines()
    set_seed(seed)
    heads_on_top = {} if model in ("electra", "roformer_v2") else {
        "with_mlm": "linear", "with_nsp": True}
    transformer = bert4keras.models.build_transformer_model(
        model=model, return_keras_model=False, vocab_size=len(tokens), hidden_size=hidden,
        num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=intermediate,
        hidden_act="gelu", max_position_embeddings=max_position, type_vocab_size=2,
        hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, **heads_on_top)
    return save_bert(transformer, folder, vocab)


class _Variables(dict):
    """name → value of a checkpoint, read when asked for; what bert4keras takes for a dict."""

    def __init__(self, path: str | os.PathLike):
        super().__init__()
        self.path, self.asked = str(path), set()
        try:
            self._reader = tf.train.load_checkpoint(self.path)
            self.names = self._reader.get_variable_to_shape_map()
        except (tf.errors.OpError, ValueError) as error:
            raise InputError(f"cannot read the checkpoint ({_first_line(error)})", self.path,
                             "it needs its .index and all its .data-* files") from None

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        self.asked.add(name)
        try:
            return self._reader.get_tensor(name)
        except (tf.errors.OpError, IndexError) as error:    # IndexError: the file is too short
            raise InputError(f"cannot read variable {name} ({_first_line(error)})", self.path,
                             "copy the checkpoint again") from None

    def unused(self) -> tuple[str, ...]:
        """Names nobody asked for, sorted; what optimizers and Keras keep is left out."""
        return tuple(sorted(name for name in self.names if name not in self.asked
                            and not _OPTIMIZER.search(name) and name != _OBJECT_GRAPH))


def _value_for(transformer, weight, values: _Variables, name: str) -> np.ndarray:
    try:
        value = transformer.load_variable(values, name)
    except KeyError:
        raise InputError(f"variable {name} is missing", values.path,
                         _hint(values, name)) from None
    except IndexError:
        raise InputError(f"variable {name} has only {values.names[name][0]} rows", values.path,
                         "keep_tokens or compound_tokens name a higher token id") from None
    expected, found = tuple(weight.shape), tuple(np.shape(value))
    if expected != found:
        raise InputError(f"variable {name} has another shape: the model expects "
                         f"{list(expected)}, the checkpoint holds {list(found)}", values.path,
                         "use the config that belongs to this checkpoint")
    return value


def _hint(values: _Variables, name: str) -> str:
    """What the names that are there tell about the right ``model=``."""
    if _OBJECT_GRAPH in values.names:
        return "these are Keras weights (model.save_weights), load them with model.load_weights"
    if any(n.startswith("electra/") for n in values.names) and not name.startswith("electra/"):
        return "this looks like an ELECTRA: use model='electra'"
    if any("/group_0/inner_group_0/" in n for n in values.names) and "/group_0/" not in name:
        return "this looks like an ALBERT: use model='albert'"
    if name == "bert/embeddings/position_embeddings":
        return "if this is a RoFormer or NEZHA, use model='roformer' or model='nezha'"
    return "check model= and the config; ignore_invalid_weights=True goes on without it"


def _unmapped(transformer) -> list[str]:
    """Trainable weights of layers the checkpoint's form knows nothing of."""
    known = {id(layer) for layer, _ in mapped_layers(transformer)}
    return [weight.name for layer in transformer.layers.values() if id(layer) not in known
            for weight in getattr(layer, "trainable_weights", [])]


def _mapping(transformer) -> dict:
    if isinstance(transformer, bert4keras.models.ALBERT_Unshared):
        return bert4keras.models.BERT.variable_mapping(transformer)
    return transformer.variable_mapping()


def _refuse_unnamed_weights(transformer, mapping: dict) -> None:
    unnamed = _unmapped(transformer)
    for layer, names in mapped_layers(transformer, mapping):
        with all_trainable(layer):
            unnamed += [weight.name for weight in layer.trainable_weights[len(names):]]
    if unnamed:
        raise InputError(f"the published form has no name for {', '.join(unnamed)}",
                         "transformer", "save these weights with model.save_weights")


def read_config(paths: BertFolder) -> dict:
    """The config of a published model; InputError if it is broken or does not fit vocab.txt."""
    try:
        config = json.loads(Path(paths.config_path).read_text(encoding="utf-8"))
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise InputError("broken JSON", f"{paths.config_path}:{line}", str(error)) from None
    missing = [key for key in _REQUIRED if not isinstance(config, dict) or key not in config]
    if missing:
        raise InputError(f"{', '.join(missing)} missing in the config", paths.config_path)
    if paths.dict_path is not None:
        _vocabulary_bytes(paths.dict_path, config["vocab_size"])
    return config


def _vocabulary_bytes(vocab, vocab_size: int | None = None) -> bytes:
    """vocab.txt of a path, of tokens in order, of token → id, or of a tokenizer."""
    if isinstance(vocab, str | os.PathLike):
        where, content = str(vocab), _read(vocab)
    else:
        where, content = "vocab", "".join(f"{token}\n" for token in _in_order(vocab)).encode()
    try:
        count = len(content.decode("utf-8").split("\n")) - content.endswith(b"\n")
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        raise InputError("not UTF-8", f"{where}:{line}", "save the vocabulary as UTF-8") from None
    if not content.strip():
        raise InputError("the vocabulary is empty", where, "one token a line")
    if vocab_size is not None and count > vocab_size:
        raise InputError(f"the vocabulary has {count} tokens, the model {vocab_size}", where,
                         "use the vocabulary that belongs to the model")
    return content


def _in_order(vocab) -> Iterable[str]:
    vocab = getattr(vocab, "_token_dict", vocab)
    if not isinstance(vocab, Mapping):
        return vocab
    tokens = sorted(vocab, key=vocab.get)
    if [vocab[token] for token in tokens] != list(range(len(tokens))):
        raise InputError("the token ids are not 0, 1, 2, … without a gap", "vocab")
    return tokens


def _read(path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the vocabulary ({error.strerror})", str(path)) from None


def _only(folder: Path, name: str, pattern: str, optional: bool = False) -> Path | None:
    if (folder / name).is_file():
        return folder / name
    found = sorted(folder.glob(pattern))
    if len(found) == 1 or (optional and not found):
        return found[0] if found else None
    what = f"{name} is missing" if not found else (
        f"{name} is missing and {', '.join(path.name for path in found)} are several")
    raise InputError(what, str(folder), f"put the file there as {name}")


def _checkpoint_of(folder: Path) -> str:
    found = {path.name.removesuffix(".index"): path for path in sorted(folder.glob("*.index"))}
    steps = {int(match[1]): name for name in found if (match := re.search(r"-(\d+)$", name))}
    if CHECKPOINT in found:
        name = CHECKPOINT
    elif len(found) == 1:
        name = next(iter(found))
    elif found and len(steps) == len(found):
        name = steps[max(steps)]
    else:
        what = f"{', '.join(found)} are several checkpoints" if found else "no *.index"
        raise InputError(what, str(folder), f"name the checkpoint {CHECKPOINT}.*")
    if not list(folder.glob(f"{name}.data-*")):
        raise InputError(f"{name}.data-00000-of-00001 is missing", str(folder),
                         "copy all files of the checkpoint")
    return str(folder / name)


def refuse_strangers(folder: Path, also: Iterable[str] = ()) -> None:
    """InputError for a folder that holds other files than a model's (and those named)."""
    strangers = [path.name for path in folder.iterdir()
                 if path.name not in (CONFIG, VOCAB, *also)
                 and not path.name.startswith(CHECKPOINT)] if folder.is_dir() else []
    if strangers:
        raise InputError(f"the folder holds other files ({', '.join(sorted(strangers)[:3])})",
                         str(folder), "give the model a folder of its own")


def _first_line(error: Exception) -> str:
    return str(getattr(error, "message", error)).strip().split("\n")[0]

"""KgCLUE: questions and their triples, training batches, metric, calibration (kexue.fm 8802).

A training example is  [CLS] question [SEP] S [SEP] P [SEP] M [SEP]  under a UniLM mask with the
loss on the answer alone. The metric is KgCLUE's: texts in lower case, white space collapsed; exact
match, and F1 = 2·LCS / (len a + len b) in characters, for subject, predicate, object, and all;
score = (EM + F1) / 2 of the object. The article's table swaps the heads of its first two columns.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.clue import NumpyBatches, find_file, read_rows
from bert_theseus.clue.unilm import unilm_batches
from bert_theseus.errors import InputError
from bert_theseus.prefix_tree import split_subject
from bert_theseus.results import replace_file
from bert_theseus.seq2seq import Answer, ConstrainedDecoder, lookahead

_FORM = 'give {"question": …, "answer": "subject ||| relation ||| object"}'


@dataclass(frozen=True)
class Question:
    """A question and its triple; the three are "" in a file without answers, id is None where the
    file gives none."""

    text: str
    subject: str = ""
    predicate: str = ""
    object: str = ""
    id: int | str | None = None


def load_questions(path: str | os.PathLike) -> list[Question]:
    """Questions of a file in KgCLUE's form, ``.gz`` also. InputError with file and line.

    >>> line = '{"question": "龙晶的繁体？", "answer": "龙晶（游戏） ||| 繁体 ||| 龍晶"}'
    >>> _ = Path("dev.json").write_text(line, encoding="utf-8")
    >>> load_questions("dev.json")[0].subject
    '龙晶（游戏）'
    """
    questions = []
    for line, row in read_rows(path):
        where = f"{path}:{line}"
        if not isinstance(row.get("question"), str) or not row["question"].strip():
            raise InputError("no question", where, _FORM)
        parts = [part.strip() for part in str(row.get("answer", "||||||")).split("|||")]
        if len(parts) != 3:
            raise InputError(f"an answer of {len(parts)} parts", where, _FORM)
        questions.append(Question(row["question"], *parts, row.get("id")))
    if not questions:
        raise InputError("no question in the file", path, _FORM)
    return questions


def load_sets(folder: str | os.PathLike, names: Sequence[str],
              dev_examples: int = 2000) -> dict[str, list[Question]]:
    """The sets ``names`` of a folder; of dev (or valid) the first ``dev_examples`` questions.

    Where there is no dev file, the last ``dev_examples`` questions of train are dev instead.
    """
    def load(*stems):
        return load_questions(find_file(folder, stems))

    if any(path.name.split(".")[0] in ("dev", "valid") for path in Path(folder).iterdir()):
        sets = {"dev": load("dev", "valid")[:dev_examples]}
    else:
        rest = load("train")
        if len(rest) <= dev_examples:
            raise InputError(f"no dev file, and train has no {dev_examples} questions to spare",
                             folder, "add dev.json or lower --dev_examples")
        sets = {"train": rest[:-dev_examples], "dev": rest[-dev_examples:]}
    return {name: sets[name] if name in sets else load(name) for name in names}


def training_batches(questions: Sequence[Question], tokenizer, maxlen: int = 128,
                     batch_size: int = 32, seed: int = 0) -> NumpyBatches:
    """Batches ([token ids, segment ids], targets), all [batch, length].

    targets[:, t] is the token after position t where that is part of the answer, 0 elsewhere.
    Questions are cut to half of ``maxlen`` as in the article.
    """
    rows = [_encode(question, tokenizer, maxlen) for question in questions]
    identity = repr([(q.text, q.subject, q.predicate) for q in questions]).encode()
    return unilm_batches(rows, batch_size, seed, identity)


def _encode(question: Question, tokenizer, maxlen: int) -> tuple[list[int], int]:
    """Token ids of an example, and where its answer begins."""
    subject, meaning = split_subject(question.subject)
    asked = tokenizer.encode(question.text, maxlen=maxlen // 2 + 1)[0]
    answer = tokenizer.encode(subject, question.predicate)[0][1:] + tokenizer.encode(meaning)[0][1:]
    return (asked + answer)[:maxlen], len(asked)


def answer_model(model: keras.Model) -> keras.Model:
    """The same layers with logits for the answer's tokens alone [answer tokens, vocabulary].

    model: ``build_transformer_model(..., with_mlm="linear", application="unilm")``. Most of a
    batch is question and padding, whose predictions nobody asks for; they would take a third of
    a small model's time, and of a large vocabulary most of the memory. The rows are those where
    ``training_batches`` has a target, in its order.
    """
    position = keras.layers.Lambda(_before_answer_tokens, name="Before-Answer-Tokens")
    x = position([model.get_layer("MLM-Dense").input, model.inputs[1]])  # [answer tokens, hidden]
    x = model.get_layer("MLM-Norm")(model.get_layer("MLM-Dense")(x))
    x = model.get_layer("Embedding-Token")(x, mode="dense")
    return keras.models.Model(model.inputs, model.get_layer("MLM-Bias")(x))


def _before_answer_tokens(inputs: list[tf.Tensor]) -> tf.Tensor:
    states, segments = inputs  # [batch, length, hidden], [batch, length]
    return tf.boolean_mask(states[:, :-1], segments[:, 1:] > 0)


def answer_token_crossentropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy over the answer tokens of a batch.

    targets: [batch, length], 0 where nothing is to be predicted. logits: [answer tokens,
    vocabulary], of an ``answer_model``. Scalar.
    """
    targets = tf.cast(targets, tf.int32)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.boolean_mask(targets, targets > 0), logits))


# ---- metric ----------------------------------------------------------------------------------

def normalize(text: str) -> str:
    """Lower case, white space collapsed."""
    return " ".join(text.lower().split())


def f1_similarity(one: str, two: str) -> float:
    """2·LCS / (len one + len two) in characters; 0 if both are empty.

    >>> round(f1_similarity("刘德华", "刘华"), 2), f1_similarity("", "")
    (0.8, 0.0)
    """
    if not one or not two:
        return 0.0
    codes = np.array([ord(c) for c in two])
    row = lookahead.first_row(codes)
    for character in one:
        row = lookahead.next_row(row[None], np.array([ord(character)]), codes)[0]
    return 2 * int(row[-1]) / (len(one) + len(two))


def kgclue_metric(predicted: Sequence[Sequence[str]],
                  expected: Sequence[Sequence[str]]) -> dict[str, float]:
    """KgCLUE's numbers for triples (subject, predicate, object) against the right ones.

    >>> kgclue_metric([("龙晶", "繁体", "龍")], [("龙晶", "繁体", "龍晶")])["F1-O"]
    0.6666666666666666
    """
    if len(predicted) != len(expected):
        raise ValueError(f"{len(predicted)} predictions for {len(expected)} questions")
    totals = {f"{kind}-{part}": 0.0 for kind in ("EM", "F1") for part in ("S", "P", "O", "All")}
    for one, two in zip(predicted, expected):
        one, two = [[normalize(text) for text in triple] for triple in (one, two)]
        for part, a, b in zip(("S", "P", "O", "All"), [*one, "".join(one)], [*two, "".join(two)]):
            totals[f"EM-{part}"] += one == two if part == "All" else a == b
            totals[f"F1-{part}"] += f1_similarity(a, b)
    means = {name: total / len(expected) for name, total in totals.items()}
    return {"score": (means["EM-O"] + means["F1-O"]) / 2, **means}


def triple(answers: Sequence[Answer]) -> tuple[str, str, str]:
    """The first answer as a triple, of several objects the first as in the article."""
    if not answers:
        return "", "", ""
    return answers[0].subject, answers[0].predicate, answers[0].objects[0]


def write_leaderboard(path: str | os.PathLike, questions: Sequence[Question],
                      triples: Sequence[Sequence[str]]) -> None:
    """The predictions as KgCLUE's leaderboard takes them: a line per question, in order, under
    the question's own id (its number where it has none)."""
    lines = [json.dumps({"id": i if question.id is None else question.id,
                         "question": question.text, "answer": " ||| ".join(one)},
                        ensure_ascii=False)
             for i, (question, one) in enumerate(zip(questions, triples))]
    replace_file(path, lambda beside: beside.write_text("\n".join(lines) + "\n", encoding="utf-8"))


# ---- knowledge -------------------------------------------------------------------------------

def join_knowledge(paths: Iterable[str | os.PathLike], target: str | os.PathLike,
                   further: int = 0, seed: int = 0) -> Path:
    """Several knowledge files as one; with ``further`` a harder one.

    Every subject then gets about so many further relations, drawn (by ``seed``) as often as they
    occur, each with an object that it has somewhere: choosing the relation becomes a real step.
    """
    from bert_theseus.prefix_tree import fields
    lines: dict[bytes, None] = {}
    for path in paths:
        for first, chunk in fields.read_chunks(path):
            lines.update(dict.fromkeys(fields.parse(chunk, first, path).data.split(b"\n")))
    lines.pop(b"", None)
    rows = list(lines)
    if further:
        rows += _distractors(rows, further, seed)
    target = Path(target)
    replace_file(target, lambda beside: beside.write_bytes(b"\n".join(rows) + b"\n"))
    return target


def _distractors(rows: list[bytes], further: int, seed: int) -> list[bytes]:
    """Triples of known subjects with relations and objects of other triples."""
    random, triples = np.random.default_rng(seed), [row.split(b"\t") for row in rows]
    has: dict[bytes, set[bytes]] = {}
    for subject, predicate, _ in triples:
        has.setdefault(subject, set()).add(predicate)
    drawn = random.integers(0, len(triples), (len(has), further))
    new = []
    for (subject, own), others in zip(has.items(), drawn.tolist()):
        for other in others:
            _, predicate, text = triples[other]
            if predicate not in own:
                own.add(predicate)
                new.append(b"\t".join((subject, predicate, text)))
    return new


# ---- confidence ------------------------------------------------------------------------------

@dataclass(frozen=True)
class Calibration:
    """P(right) = sigmoid(slope · logit(p) + offset) for the search's probability p.

    >>> Calibration.fit(np.array([0.9, 0.8, 0.6, 0.3]), np.array([1, 1, 0, 0])).slope > 0
    True
    """

    slope: float = 1.0
    offset: float = 0.0

    @classmethod
    def fit(cls, probabilities: np.ndarray, right: np.ndarray, penalty: float = 1.0):
        """Logistic regression (Platt) by Newton's method, halving steps that do not help.

        probabilities: [n] of the answers given. right: [n] whether each was right. penalty pulls
        towards leaving the probabilities as they are.
        """
        x, start = np.stack([_logit(probabilities), np.ones(len(right))], 1), np.array([1.0, 0.0])

        def loss(weights):
            """Negative log-likelihood of (slope, offset), and the penalty."""
            scores = x @ weights
            return np.sum(np.logaddexp(0, scores) - right * scores) + penalty / 2 * np.sum(
                (weights - start) ** 2)

        weights = start
        for _ in range(50):
            p = _sigmoid(x @ weights)
            gradient = x.T @ (p - right) + penalty * (weights - start)
            hessian = (x * (p * (1 - p))[:, None]).T @ x + penalty * np.eye(2)
            step = np.linalg.solve(hessian, gradient)
            while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
                step = step / 2
            weights = weights - step
        return cls(*weights.tolist())

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities."""
        return _sigmoid(self.slope * _logit(np.asarray(probabilities)) + self.offset)


class Answerer:
    """A decoder with calibrated probabilities that abstains below a threshold."""

    def __init__(self, decoder: ConstrainedDecoder, calibration: Calibration = Calibration(),
                 abstain: float = 0.0):
        self.decoder, self.calibration, self.abstain = decoder, calibration, abstain

    def answer(self, questions: Sequence[str], n_best: int = 1) -> list[list[Answer]]:
        """As the decoder's, with the first answer's probability calibrated; the others keep
        their ratio to what is left. Nothing where the first is below the threshold."""
        return [self._weighed(found) for found in self.decoder.answer(questions, n_best)]

    def _weighed(self, found: list[Answer]) -> list[Answer]:
        if not found or found[0].overridden:
            return found
        first = float(self.calibration(np.array([found[0].probability]))[0])
        if first < self.abstain:
            return []
        others = max(1 - found[0].probability, 1e-12)
        return [replace(answer, probability=first if i == 0 else min(
            answer.probability / others * (1 - first), first)) for i, answer in enumerate(found)]

    def as_text(self, found: list[Answer]) -> str:
        """For the prompt: path, objects, probability."""
        return "\n".join(f"{a.probability:6.1%}  {a.subject} → {a.predicate} → "
                         f"{'、'.join(a.objects)}" for a in found) or "（不确定，不作答）"


def _logit(probabilities: np.ndarray) -> np.ndarray:
    p = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(scores, -40, 40)))


def coverage_accuracy(probabilities: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, ...]:
    """If only the surest answers are given: share answered, share of these right; both [n].

    >>> coverage_accuracy(np.array([0.2, 0.9]), np.array([0, 1]))
    (array([0.5, 1. ]), array([1. , 0.5]))
    """
    order = np.argsort(-np.asarray(probabilities), kind="stable")
    count = np.arange(1, len(order) + 1)
    return count / len(order), np.cumsum(np.asarray(right)[order]) / count


def calibration_error(probabilities: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error over bins of equal width."""
    place = np.minimum((np.asarray(probabilities) * bins).astype(int), bins - 1)
    gaps = np.bincount(place, np.asarray(right) - probabilities, bins)
    return float(np.abs(gaps).sum() / len(place))

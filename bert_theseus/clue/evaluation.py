"""A model's answers to a task: prediction, metric, leaderboard file."""

import json
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from bert_theseus.clue.batches import Batches
from bert_theseus.clue.tagging import decode_tags, entities_of, entity_f1, label_of
from bert_theseus.clue.tasks import Example, Task, get_task  # noqa: F401  (get_task: the snippet)
from bert_theseus.errors import InputError
from bert_theseus.results import replace_file

_calls: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _inference(model):
    """model(inputs, training=False) as one tf.function for all lengths, traced once a model."""
    if model not in _calls:
        reference = weakref.ref(model)
        spec = [tf.TensorSpec([None] * len(x.shape), tf.int32) for x in model.inputs]
        _calls[model] = tf.function(lambda *x: reference()(list(x), training=False),
                                    input_signature=spec)
    return _calls[model]


def predict_outputs(model, batches: Batches) -> list[np.ndarray]:
    """The model's output for each example, in the examples' order.

    Rows are [labels] for classification and [length, tags] for tagging, where ``length`` is the
    example's own. Batches are made by length, whatever the order of ``batches``.
    """
    call, outputs = _inference(model), [None] * batches.size
    for rows in batches.by_length():
        inputs = batches.inputs(rows)[:len(model.inputs)]
        for row, output in zip(rows, np.asarray(call(*inputs))):
            outputs[row] = output[:batches.lengths[row]] if output.ndim > 1 else output
    return outputs


def predict(task: Task, model, batches: Batches) -> list:
    """A label for each example, in the examples' order; spans (type, start, end) in tagging."""
    best = [output.argmax(-1) for output in predict_outputs(model, batches)]
    if task.kind != "tagging":
        return [task.labels[i] for i in best]
    return [decode_tags(ids, mapping, task.tags) for ids, mapping in zip(best, batches.mappings)]


def evaluate(task: Task, model, batches: Batches) -> dict[str, float]:
    """{"accuracy": …}, or {"entity F1", "precision", "recall"} in tagging.

    Entities beyond ``maxlen`` count as missed. Raises InputError if the examples have no labels.
    """
    if not batches.labelled:
        raise InputError("no labels to compare with", task.name, "evaluate on a labelled file")
    predicted = predict(task, model, batches)
    true = [example.label for example in batches.examples]
    if task.kind == "tagging":
        return entity_f1(predicted, [entities_of(label) for label in true])
    return {"accuracy": float(np.mean([p == t for p, t in zip(predicted, true)]))}


def write_predictions(task: Task, examples: Sequence[Example], predictions: Sequence,
                      path: str | os.PathLike) -> Path:
    """Writes predictions as CLUE's leaderboard wants them and returns the path.

    path: a file, or a folder, in which the file gets the leaderboard's name.

    >>> task = get_task("tnews")
    >>> path = write_predictions(task, [Example("股市")], ["104"], ".")
    >>> path.name, path.read_text(encoding="utf-8")
    ('tnews11_predict.json', '{"id": 0, "label": "104", "label_desc": "news_finance"}\\n')
    """
    if len(examples) != len(predictions):
        raise ValueError(f"{len(examples)} examples but {len(predictions)} predictions")
    path = Path(path)
    if path.is_dir():
        path = path / (task.submission or f"{task.name}_predict.json")
    lines = [json.dumps(_answer(task, *pair), ensure_ascii=False) + "\n"
             for pair in zip(examples, predictions)]
    replace_file(path, lambda beside: beside.write_text("".join(lines), encoding="utf-8",
                                                        newline="\n"))
    return path


def _answer(task: Task, example: Example, prediction) -> dict:
    if task.kind == "tagging":
        return {"id": example.id, "text": example.text,
                "label": label_of(example.text, prediction)}
    answer = {"id": example.id, "label": prediction}
    if task.description_field and prediction in task.descriptions:
        answer[task.description_field] = task.descriptions[prediction]
    return answer

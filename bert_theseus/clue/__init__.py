"""CLUE tasks: files → examples → batches → metric → leaderboard file.

The eight tasks (https://www.cluebenchmarks.com) are :class:`Task` objects which know their
fields, labels and metric. Own data in the same layout — ``NAME/train.json`` with one JSON object
a line, ``NAME/labels.json`` — is a task as well.

    task = get_task("tnews", data_dir)
    train = Batches(task, task.load(data_dir, "train"), tokenizer, maxlen=128, batch_size=32)
    dev = Batches(task, task.load(data_dir, "dev"), tokenizer, maxlen=128, shuffle=False)
    evaluate(task, model, dev)                                    # {"accuracy": 0.56…}

Different from bert4keras' ``DataGenerator``: every text is tokenised once instead of every epoch,
rows of similar length share a batch, and a batch's order depends on (seed, epoch) alone, so that
training can go on at any step.
"""

from bert_theseus.clue.batches import Batches, NumpyBatches
from bert_theseus.clue.evaluation import evaluate, predict, predict_outputs, write_predictions
from bert_theseus.clue.files import find_file, read_rows
from bert_theseus.clue.floor import BagOfWords
from bert_theseus.clue.tagging import decode_tags, encode_tags, entity_f1, entities_of
from bert_theseus.clue.tasks import TASKS, Example, Task, get_task

__all__ = ["TASKS", "BagOfWords", "Batches", "Example", "NumpyBatches", "Task", "decode_tags",
           "encode_tags", "entities_of", "entity_f1", "evaluate", "find_file", "get_task",
           "predict", "predict_outputs", "read_rows", "write_predictions"]

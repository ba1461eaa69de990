"""What the stages of a run share: data, pre-trained layers, training, and the rows of the table."""

import time
from pathlib import Path

import numpy as np
from bert4keras.models import build_transformer_model
from bert4keras.optimizers import Adam
from bert4keras.tokenizers import Tokenizer

from bert_theseus.backend import keras, set_seed
from bert_theseus.checkpoint import bert_folder, load_bert, read_config
from bert_theseus.clue import BagOfWords, Batches, evaluate, get_task, predict, write_predictions
from bert_theseus.export import export_bert
from bert_theseus.theseus.model import classification_head, tagging_head
from bert_theseus.training import History, fit


class Study:
    """Trains and measures models of one task; call :meth:`begin` for each seed.

    data_dir, task: as for ``get_task``. bert_dir: published folder.
    model:    kind of transformer, as in ``build_transformer_model``.
    folder:   every stage keeps its state in ``folder/seed-N/NAME/STAGE``; ``resume`` goes on there.
    train_examples: use only so many, drawn by the seed.

    ``rows``: (name, metric) → one value per seed.
    """

    def __init__(self, folder: Path, task: str, data_dir: str, bert_dir, model: str = "bert",
                 maxlen: int = 128, batch_size: int = 32, learning_rate: float = 2e-5,
                 train_examples: int | None = None, resume: bool = False):
        self.folder, self.data_dir, self.model, self.seed, self.rows = (
            folder, data_dir, model, 0, {})
        self.bert_dir = bert_dir
        self.maxlen, self.batch_size, self.learning_rate = maxlen, batch_size, learning_rate
        self.train_examples, self.resume = train_examples, resume
        paths = bert_folder(bert_dir)
        self.vocab, self.config_path = paths.dict_path, paths.config_path
        self.num_layers = read_config(paths)["num_hidden_layers"]
        self.task = get_task(task, data_dir)
        self.dev, self.test, self.floor = self.batches("dev"), self.batches("test"), None

    def begin(self, seed: int) -> None:
        """The next seed: its training data, and no layer left of the one before."""
        keras.backend.clear_session()
        self.seed, self.train = seed, self.batches("train")

    def batches(self, split: str) -> Batches:
        """The task's examples of a split as batches."""
        examples, train = self.task.load(self.data_dir, split), split == "train"
        if train and self.train_examples:
            chosen = np.random.default_rng(self.seed).permutation(len(examples))
            examples = [examples[i] for i in chosen[:self.train_examples]]
        return Batches(self.task, examples, Tokenizer(self.vocab, do_lower_case=True), self.maxlen,
                       self.batch_size, shuffle=train, seed=self.seed)

    def transformer(self, prefix: str, layers: int | None = None, trained: bool = True):
        """The first layers (None: all) of the pre-trained model, or random ones like them."""
        set_seed(self.seed)
        chosen = {} if layers is None else {"num_hidden_layers": layers}
        if trained:
            return load_bert(self.bert_dir, self.model, prefix=prefix, **chosen)
        return build_transformer_model(self.config_path, model=self.model, prefix=prefix,
                                       return_keras_model=False, **chosen)

    def head(self, transformer) -> keras.Model:
        """A new output layer for the task."""
        make = tagging_head if self.task.kind == "tagging" else classification_head
        return make(transformer.hidden_size, self.task.num_outputs)

    def fit(self, model, name: str, stage: str, epochs: int, callbacks=()) -> History:
        """One stage; afterwards the model has the weights that were best on dev."""
        model.compile(Adam(self.learning_rate), "sparse_categorical_crossentropy")
        history = fit(model, self.train, epochs, self.place(name) / stage,
                      evaluate=lambda model: evaluate(self.task, model, self.dev),
                      monitor=self.task.metric, resume=self.resume, callbacks=callbacks,
                      name=f"seed {self.seed}, {name}, {stage}")
        if stage != "successor":                    # its steps cost what the direct way's cost
            steps = len(self.train) * len(history.epochs)
            self.note(name, "ms a step", 1000 * history.step_seconds / steps)
        return history

    def report(self, model, name: str, best: float) -> None:
        """Dev, test, size and speed of a finished model; its test predictions as a file."""
        self.note(name, self.task.metric, best)
        if self.test.labelled:
            score = evaluate(self.task, model, self.test)[self.task.metric]
            self.note(name, f"test {self.task.metric}", score)
        start = time.perf_counter()
        answers = predict(self.task, model, self.test)
        seconds = time.perf_counter() - start
        self.note(name, "parameters", model.count_params())
        self.note(name, "inference ms an example", 1000 * seconds / len(answers))
        write_predictions(self.task, self.test.examples, answers,
                          self.place(name) / "test_predict.json")

    def bag_of_words(self) -> None:
        """The floor: logistic regression on characters, the same for every seed."""
        if self.task.kind == "tagging":
            return
        if self.floor is None or self.train_examples:
            self.floor = BagOfWords(self.task, self.train.examples)
        name = "bag of characters, logistic regression"
        self.note(name, self.task.metric, self.floor.accuracy(self.dev.examples))
        if self.test.labelled:
            self.note(name, f"test {self.task.metric}", self.floor.accuracy(self.test.examples))

    def export(self, transformer, head, name: str) -> None:
        """Leaves the model as a stand-alone folder."""
        export_bert(transformer, head, self.place(name) / "model", self.vocab,
                    self.task.tags or self.task.labels)

    def note(self, name: str, metric: str, value: float) -> None:
        """One more value of a row."""
        self.rows.setdefault((name, metric), []).append(value)

    def place(self, name: str) -> Path:
        """The folder of a model of this seed."""
        return self.folder / f"seed-{self.seed}" / name.replace(",", "").replace(" ", "-")

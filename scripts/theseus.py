"""BERT-of-Theseus (https://kexue.fm/archives/7575): the article's table, measured.

    python scripts/theseus.py                                                      # demo
    python scripts/theseus.py --task iflytek --data_dir CLUE --bert_dir chinese_L-12_H-768_A-12

For every seed: the predecessor is fine-tuned; for each number of successor layers k, the first k
layers are fine-tuned directly, and by module replacing followed by fine-tuning of the successor.
"""

import time
from pathlib import Path

import numpy as np

from bert_theseus import demo, script
from bert_theseus.backend import keras, set_seed
from bert_theseus.checkpoint import bert_folder, load_bert
from bert_theseus.clue import Batches, evaluate, get_task, predict, write_predictions
from bert_theseus.errors import InputError
from bert_theseus.export import export_bert
from bert_theseus.published import bar_plot, measured_row, table
from bert_theseus.published.theseus import NUMBERS
from bert_theseus.results import write_results
from bert_theseus.theseus import (ConstantRate, LinearRate, ReplacingRateScheduler,
                                  bert_of_theseus, check_schedule, classification_head,
                                  distillation_model, tagging_head)
from bert_theseus.training import fit
from bert4keras.optimizers import Adam
from bert4keras.tokenizers import Tokenizer

# ---- settings --------------------------------------------------------------------------------

parser = script.argument_parser(__doc__.splitlines()[0], "output/theseus", seeds=(1, 2, 3))
parser.add_argument("--task", help="tnews, iflytek, afqmc, ocnli, cmnli, csl, cluewsc, cluener or "
                    "a folder of your own in --data_dir; default: iflytek, or the demo's")
parser.add_argument("--model", default="bert", help="as in build_transformer_model")
parser.add_argument("--successor_layers", type=int, nargs="+", help="default: 6 3; demo: 3")
parser.add_argument("--method", nargs="+", default=["theseus"],
                    choices=["theseus", "linear", "distillation"],
                    help="module replacing at a constant rate (article), at a linear one (paper), "
                    "plain knowledge distillation")
parser.add_argument("--replacing_rate", type=float, default=0.5)
parser.add_argument("--linear_b", type=float, default=0.3, help="where the linear rate starts; it "
                    "reaches 1 after two thirds of its steps")
parser.add_argument("--embeddings", default="replace", choices=["replace", "share"])
parser.add_argument("--draw", default="batch", choices=["batch", "sample"])
parser.add_argument("--maxlen", type=int, default=128)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--learning_rate", type=float, default=2e-5)
parser.add_argument("--epochs", type=int, nargs=3, default=[5, 10, 5],
                    metavar=("PREDECESSOR", "REPLACING", "SUCCESSOR"))
parser.add_argument("--train_examples", type=int, help="use only so many, drawn by the seed")


def main() -> None:
    args = demo_settings(parser.parse_args())
    start, folder = time.time(), script.output_folder(args.output_dir)
    study = Study(args, folder)
    for seed in args.seed:
        study.run(seed)
    rows = [measured_row(NUMBERS, name, metric, values, args.seed, setting=study.task.name)
            for (name, metric), values in study.rows.items()]
    write_results(folder, 7575, script.settings(args), rows, time.time() - start)
    bar_plot(rows, folder / "theseus.png", f"BERT-of-Theseus, {study.task.name} (dev)",
             study.task.metric)
    print(table(rows))


def demo_settings(args):
    """Fills in what the demo sets where no data was given, and refuses what cannot work."""
    if args.data_dir is None:
        args.data_dir, args.task = demo.demo_task("output/demo"), demo.TASK
        for name, value in demo.SETTINGS.items():
            if getattr(args, name) == parser.get_default(name):
                setattr(args, name, value)
    elif args.bert_dir is None:
        raise InputError("no model to start from", "--bert_dir", "give a published BERT, or make a "
                         "random one with python -m bert_theseus init --help")
    args.task = args.task or "iflytek"
    args.successor_layers = args.successor_layers or [6, 3]
    check_schedule(ConstantRate(args.replacing_rate))
    check_schedule(LinearRate(1, args.linear_b))
    return args


# ---- data and models -------------------------------------------------------------------------

class Study:
    """The data of a run, and the stages that every seed goes through."""

    def __init__(self, args, folder: Path):
        self.args, self.folder, self.seed, self.rows = args, folder, None, {}
        self.bert_dir = args.bert_dir or demo.demo_bert("output/demo/bert")
        self.vocab = bert_folder(self.bert_dir).dict_path
        self.task = get_task(args.task, args.data_dir)
        self.dev, self.test = self.batches("dev"), self.batches("test")

    def batches(self, split: str):
        args, train = self.args, split == "train"
        examples = self.task.load(args.data_dir, split)
        if train and args.train_examples:
            chosen = np.random.default_rng(self.seed).permutation(len(examples))
            examples = [examples[i] for i in chosen[:args.train_examples]]
        return Batches(self.task, examples, Tokenizer(self.vocab, do_lower_case=True), args.maxlen,
                       args.batch_size, shuffle=train, seed=self.seed or 0)

    def transformer(self, prefix: str, layers: int | None = None):
        """The first layers (None: all) of the pre-trained model."""
        set_seed(self.seed)
        chosen = {} if layers is None else {"num_hidden_layers": layers}
        return load_bert(self.bert_dir, self.args.model, prefix=prefix, **chosen)

    def head(self, transformer):
        make = tagging_head if self.task.kind == "tagging" else classification_head
        return make(transformer.hidden_size, self.task.num_outputs)

# ---- training and evaluation -----------------------------------------------------------------

    def fit(self, model, name: str, stage: str, epochs: int, callbacks=()):
        """One stage; afterwards the model has the weights that were best on dev."""
        model.compile(Adam(self.args.learning_rate), "sparse_categorical_crossentropy")
        history = fit(model, self.train, epochs, self.stage_folder(name) / stage,
                      evaluate=lambda model: evaluate(self.task, model, self.dev),
                      monitor=self.task.metric, resume=self.args.resume, callbacks=callbacks,
                      name=f"seed {self.seed}, {name}, {stage}")
        steps = len(self.train) * len(history.epochs)
        self.note(name, f"ms a {stage} step", 1000 * history.step_seconds / steps)
        return history

    def report(self, model, name: str, best: float) -> None:
        """What the table says of a finished model."""
        self.note(name, self.task.metric, best)
        if self.test.labelled:
            score = evaluate(self.task, model, self.test)[self.task.metric]
            self.note(name, f"test {self.task.metric}", score)
        start = time.perf_counter()
        answers = predict(self.task, model, self.test)
        seconds = time.perf_counter() - start
        self.note(name, "parameters", model.count_params())
        self.note(name, "inference ms", 1000 * seconds / len(answers))
        write_predictions(self.task, self.test.examples, answers,
                          self.stage_folder(name) / "test_predict.json")

    def note(self, name: str, metric: str, value: float) -> None:
        self.rows.setdefault((name, metric), []).append(value)

    def stage_folder(self, name: str) -> Path:
        return self.folder / f"seed-{self.seed}" / name.replace(",", "").replace(" ", "-")

# ---- the stages ------------------------------------------------------------------------------

    def run(self, seed: int) -> None:
        """All stages of one seed."""
        self.seed, self.train = seed, self.batches("train")
        old = self.transformer("Predecessor-")
        head = self.head(old)
        predecessor = self.fine_tune(old, head, f"fine-tuned, all {old.num_hidden_layers} layers")
        trained = predecessor.get_weights()
        for layers in self.args.successor_layers:
            first = self.transformer("Direct-", layers)
            self.fine_tune(first, self.head(first), f"fine-tuned, first {layers} layers")
            for method in self.args.method:
                new = self.transformer("Successor-", layers)
                predecessor.set_weights(trained)        # the classifier goes through all methods
                getattr(self, method)(old, new, head, layers)
        keras.backend.clear_session()

    def fine_tune(self, transformer, head, name: str, stage: str = "training", epochs=None):
        model = keras.Model(transformer.inputs, head(transformer.output))
        history = self.fit(model, name, stage, epochs or self.args.epochs[0])
        self.report(model, name, history.best)
        return model

    def theseus(self, old, new, head, layers: int) -> None:
        """Replacing at a constant rate, then the successor alone goes on."""
        name = f"Theseus, {layers} layers"
        self.replace(old, new, head, name, ConstantRate(self.args.replacing_rate),
                     self.args.epochs[1])
        self.fine_tune(new, head, name, "successor", self.args.epochs[2])
        export_bert(new, head, self.stage_folder(name) / "model", self.vocab,
                    self.task.tags or self.task.labels)

    def linear(self, old, new, head, layers: int) -> None:
        """The paper's curriculum: both stages in one, the rate rises to 1."""
        name, epochs = f"Theseus (linear rate), {layers} layers", sum(self.args.epochs[1:])
        k = (1 - self.args.linear_b) / (2 / 3 * epochs * len(self.train))
        best = self.replace(old, new, head, name, LinearRate(k, self.args.linear_b), epochs)
        self.report(keras.Model(new.inputs, head(new.output)), name, best)

    def replace(self, old, new, head, name: str, schedule, epochs: int) -> float:
        model = bert_of_theseus(old, new, head, schedule, embeddings=self.args.embeddings,
                                draw=self.args.draw, seed=self.seed)
        return self.fit(model, name, "replacing", epochs,
                        [ReplacingRateScheduler(schedule)]).best

    def distillation(self, old, new, head, layers: int) -> None:
        """The first layers learn from labels and predecessor, as long as both other stages."""
        own, name = self.head(new), f"distilled, {layers} layers"
        teacher, student = (keras.Model(t.inputs, h(t.output)) for t, h in ((old, head),
                                                                           (new, own)))
        history = self.fit(distillation_model(teacher, student), name, "distillation",
                           sum(self.args.epochs[1:]))
        self.report(student, name, history.best)


if __name__ == "__main__":
    script.run(main)

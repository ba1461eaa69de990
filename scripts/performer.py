"""Performer (https://kexue.fm/archives/7921): what the article claims, measured.

    python scripts/performer.py                                                    # demo
    python scripts/performer.py --data_dir CLUE --bert_dir chinese_L-12_H-768_A-12

Four parts: the error of the approximation against the number of features; accuracy after attention
is exchanged in a fine-tuned model, and how soon training brings it back; training from the same
start with each kernel; and the length from which linear attention pays.
"""

import time

import numpy as np

from bert_theseus import demo, script
from bert_theseus.backend import keras, set_seed
from bert_theseus.checkpoint import bert_folder, load_bert
from bert_theseus.clue import Batches, evaluate, get_task
from bert_theseus.errors import InputError
from bert_theseus.performer import KERNELS, build_performer_model, check_token_ids, cost, study
from bert_theseus.performer.plots import error_plot, length_plot, recovery_plot
from bert_theseus.published import bar_plot, measured_row, table
from bert_theseus.published.performer import NUMBERS
from bert_theseus.results import write_results
from bert_theseus.theseus import classification_head
from bert_theseus.training import fit
from bert4keras.optimizers import Adam
from bert4keras.tokenizers import Tokenizer

# ---- settings --------------------------------------------------------------------------------

PARTS = ("error", "exchange", "training", "length")
parser = script.argument_parser(__doc__.splitlines()[0], "output/performer", seeds=(1, 2, 3))
parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
parser.add_argument("--task", help="the short task (default tnews, or the demo's)")
parser.add_argument("--long_task", help="a second task for training, or none (default iflytek; "
                    "demo: none)")
parser.add_argument("--maxlen", type=int, nargs=2, default=[64, 512], metavar=("SHORT", "LONG"))
parser.add_argument("--layers", type=int, help="use only the model's first layers")
parser.add_argument("--train_examples", type=int, nargs=2, default=[10000, 3000])
parser.add_argument("--dev_examples", type=int, default=2000)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--learning_rate", type=float, default=5e-5)
parser.add_argument("--features", type=int, nargs="+", default=[64, 256, 1024],
                    help="ω per head in part exchange")
parser.add_argument("--error_features", type=int, nargs="+",
                    default=[16, 32, 64, 128, 256, 512, 1024, 2048], help="the same in part error")
parser.add_argument("--kernel", nargs="+", default=["exact", "favor", "relu", "elu",
                    "one_plus_cos"], choices=["exact", *KERNELS])
parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])


def main() -> None:
    args = demo_settings(parser.parse_args())
    start, folder = time.time(), script.output_folder(args.output_dir)
    study_ = Study(args, folder)
    for part in args.part:
        getattr(study_, part)()
    rows = [measured_row(NUMBERS, *name, values, args.seed[:len(values)])
            for name, values in study_.rows.items()]
    write_results(folder, 7921, script.settings(args), rows, time.time() - start)
    study_.plots(rows)
    print(table(rows))


def demo_settings(args):
    """Fills in what the demo sets where no data was given, and refuses what cannot work."""
    if args.data_dir is None:
        args.data_dir, args.task = demo.demo_task("output/demo"), demo.TASK
        small = {"seed": [1], "maxlen": [32, 32], "learning_rate": 1e-3, "epochs": 4,
                 "batch_size": 64, "train_examples": [8000, 0], "dev_examples": 500,
                 "features": [8, 32, 128], "error_features": [4, 16, 64, 256],
                 "lengths": [256, 512, 1024], "layers": 4}
        for name, value in small.items():
            if getattr(args, name) == parser.get_default(name):
                setattr(args, name, value)
    elif args.bert_dir is None:
        raise InputError("no model to start from", "--bert_dir", "give a published BERT, or make a "
                         "random one with python -m bert_theseus init --help")
    else:
        args.task, args.long_task = args.task or "tnews", args.long_task or "iflytek"
    args.long_task = None if args.long_task == "none" else args.long_task
    if min(args.features + args.error_features) < 1:
        raise InputError("less than one feature", "--features", "give at least 1")
    return args


# ---- data and models -------------------------------------------------------------------------

class Study:
    """Data and model of a run, and the four parts. Finished cells are kept, for --resume."""

    def __init__(self, args, folder):
        self.args, self.folder, self.rows = args, folder, {}
        self.bert = bert_folder(args.bert_dir or demo.demo_bert("output/demo/bert"))
        self.tokenizer = Tokenizer(self.bert.dict_path, do_lower_case=True)
        kept = {k: v for k, v in script.settings(args).items()
                if k not in ("part", "resume", "output_dir", "seed", "kernel", "lengths",
                             "error_features")}      # what a cell's name says, or none needs
        self.journal = study.Journal(folder / "journal.json", args.resume, kept)

    def batches(self, name: str, split: str, long: bool, seed: int = 0) -> Batches:
        """A task's examples, as many as the settings say, drawn by the seed."""
        args, task = self.args, get_task(name, self.args.data_dir)
        examples = task.load(args.data_dir, split)
        count = args.train_examples[long] if split == "train" else args.dev_examples
        chosen = np.random.default_rng(seed).permutation(len(examples))[:count]
        batches = Batches(task, [examples[i] for i in chosen], self.tokenizer, args.maxlen[long],
                          args.batch_size, shuffle=split == "train", seed=seed)
        check_token_ids(batches._tokens, self.tokenizer._vocab_size, name)
        return batches

    def model(self, kernel: str, outputs: int, seed: int, features: int | None = None):
        """A compiled classifier on the pre-trained weights, its head drawn by the seed."""
        set_seed(seed)
        chosen = {} if self.args.layers is None else {"num_hidden_layers": self.args.layers}
        if kernel == "exact":
            bert = load_bert(self.args.bert_dir or "output/demo/bert", **chosen)
        else:
            bert = build_performer_model(
                self.bert.config_path, self.bert.checkpoint_path, num_features=features,
                kernel=kernel, projection_seed=1000 * seed, return_keras_model=False, **chosen)
        head = classification_head(bert.hidden_size, outputs)
        model = keras.Model(bert.inputs, head(bert.output))
        model.compile(Adam(self.args.learning_rate), "sparse_categorical_crossentropy")
        return bert, model

# ---- training and evaluation -----------------------------------------------------------------

    def error(self) -> None:
        """Part 1: random input, and what the first and the last block of the model see."""
        bert, args = load_bert(self.args.bert_dir or "output/demo/bert"), self.args
        dev = self.batches(args.task, "dev", False)
        inputs = dev.inputs(np.arange(min(16, dev.size)))
        random = np.random.default_rng(0).normal(size=(3, 4, 64, 2, 64)).astype("float32")
        sources = {f"Gaussian × {s}": (s * random[0], s * random[1], random[2], None)
                   for s in (0.25, 0.5, 1)}
        for layer in (0, bert.num_hidden_layers - 1):
            sources[f"block {layer + 1}"] = study.queries_and_keys(bert, inputs, layer)
        for name, (query, key, value, mask) in sources.items():
            self.note(f"{name}: largest attention weight", "share",
                      study.concentration(query, key, mask))
            for way in study.WAYS:
                self._errors(f"{name}, {way}", way, query, key, value, mask)

    def _errors(self, name, way, query, key, value, mask) -> None:
        for seed in self.args.seed:
            errors = [self.journal.cell(f"error {name} {m} {seed}", lambda m=m: (
                study.approximation_error(query, key, value, mask, way, m, seed)))
                for m in self.args.error_features]
            for m, error in zip(self.args.error_features, errors):
                self.note(f"{name}, m = {m}", "relative error", error)
            if len(errors) > 3:
                slope = cost.growth(self.args.error_features[-4:], errors[-4:])
                self.note(name, "slope of log error, last four m", slope)

    def exchange(self) -> None:
        """Part 2: fine-tune with exact attention, exchange it, train on for a few steps."""
        for seed in self.args.seed:
            cells = self.journal.cell(f"exchange {seed}", lambda: self._exchange(seed))
            for name, metric, value in cells:
                self.note(name, metric, value)

    def _exchange(self, seed: int) -> list:
        args, train = self.args, self.batches(self.args.task, "train", False, seed)
        dev = self.batches(args.task, "dev", False)
        score = lambda model: evaluate(train.task, model, dev)["accuracy"]      # noqa: E731
        _, exact = self.model("exact", train.task.num_outputs, seed)
        fit(exact, train, args.epochs, name=f"seed {seed}, fine-tuning")
        cells = [["fine-tuned, exact", "accuracy", score(exact)]]
        steps = args.epochs * len(train)
        for m in args.features:
            _, linear = self.model("favor", train.task.num_outputs, seed, m)
            study.copy_weights(exact, linear)
            shares = (0, 1, 2, 5, 10)
            values = study.recover(linear, train, [round(steps * s / 100) for s in shares], score)
            cells += [[f"exchanged, m = {m}, after {s} % of the steps", "accuracy", value]
                      for s, value in zip(shares, values)]
        keras.backend.clear_session()
        return cells

    def training(self) -> None:
        """Part 3: the same start, data and steps for each kernel."""
        for long, task in enumerate((self.args.task, self.args.long_task)):
            for kernel in self.args.kernel if task else ():
                for seed in self.args.seed:
                    accuracy, seconds = self.journal.cell(
                        f"training {task} {kernel} {seed}",
                        lambda: self._train(task, long, kernel, seed))
                    self.note(f"{task}, {kernel}", "accuracy", accuracy)
                    self.note(f"{task}, {kernel}", "ms a step", 1000 * seconds)

    def _train(self, task: str, long: int, kernel: str, seed: int) -> tuple[float, float]:
        train = self.batches(task, "train", bool(long), seed)
        dev = self.batches(task, "dev", bool(long))
        _, model = self.model(kernel, train.task.num_outputs, seed)
        history = fit(model, train, self.args.epochs, name=f"{task}, {kernel}, seed {seed}")
        accuracy = evaluate(train.task, model, dev)["accuracy"]
        keras.backend.clear_session()
        return accuracy, history.step_seconds / (self.args.epochs * len(train))

    def length(self) -> None:
        """Part 4: a block of hidden size 256, forward and backward, by length."""
        steps = [cost.step(cost.encoder_block(256, m), 256) for m in (256, None)]
        times = [self.journal.cell(f"length {n}", lambda n=n: (
            cost.seconds([step(n) for step in steps], limit=1.0))) for n in self.args.lengths]
        for n, (linear, exact) in zip(self.args.lengths, times):
            self.note(f"linear block, length {n}", "ms", 1000 * linear)
            self.note(f"exact block, length {n}", "ms", 1000 * exact)
        found = cost.crossover(self.args.lengths, *zip(*times))
        if found is not None:
            self.note("linear attention pays", "from length", found)

    def note(self, name: str, metric: str, value: float) -> None:
        self.rows.setdefault((name, metric), []).append(value)

    def plots(self, rows) -> None:
        """One picture a part; a part that was left out has none."""
        for make in (error_plot, recovery_plot, length_plot):
            make(rows, self.folder)
        for task in filter(None, (self.args.task, self.args.long_task)):
            found = [r for r in rows if r.metric == "accuracy" and r.name.startswith(f"{task}, ")]
            if found:
                bar_plot(found, self.folder / f"training-{task}.png", f"Same start, {task} (dev)")


if __name__ == "__main__":
    script.run(main)

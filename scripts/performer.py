"""Performer (https://kexue.fm/archives/7921): what the article claims, measured.

    python scripts/performer.py                                                    # demo
    python scripts/performer.py --data_dir CLUE                     # the shipped model
    python scripts/performer.py --data_dir CLUE --bert_dir chinese_L-12_H-768_A-12

Four parts: the error of the approximation against the number of features; accuracy after attention
is exchanged in a fine-tuned model, and how soon training brings it back; training from the same
start with each kernel; and the length from which linear attention pays.
"""

import time

from bert_theseus import demo, script
from bert_theseus.backend import keras, set_seed
from bert_theseus.checkpoint import bert_folder, load_bert
from bert_theseus.clue import get_task
from bert_theseus.errors import InputError
from bert_theseus.performer import KERNELS, build_performer_model, data, parts
from bert_theseus.performer.journal import Journal
from bert_theseus.performer.plots import draw
from bert_theseus.published import measured_row, wide_table
from bert_theseus.published.performer import NUMBERS
from bert_theseus.results import write_results
from bert_theseus.theseus import classification_head
from bert4keras.optimizers import Adam

# ---- settings --------------------------------------------------------------------------------

PARTS = ("error", "exchange", "training", "length")
parser = script.argument_parser(__doc__.splitlines()[0], "output/performer", seeds=(1, 2, 3))
parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
parser.add_argument("--task", help="the short task (default tnews, or the demo's)")
parser.add_argument("--long_task", help="a second task for training, or none (default iflytek; "
                    "demo: none)")
parser.add_argument("--join", type=int, metavar="CHARACTERS", help="the long task's documents are "
                    "its texts joined to so many characters, labelled by their majority")
parser.add_argument("--maxlen", type=int, nargs=2, default=[64, 512], metavar=("SHORT", "LONG"))
parser.add_argument("--layers", type=int, help="use only the model's first layers")
parser.add_argument("--train_examples", type=int, nargs=2, default=[10000, 3000])
parser.add_argument("--dev_examples", type=int, default=2000)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--batch_size", type=int, nargs=2, default=[32, 16], metavar=("SHORT", "LONG"))
parser.add_argument("--learning_rate", type=float, default=5e-5)
parser.add_argument("--features", type=int, nargs="+", default=[64, 256, 1024],
                    help="ω per head in part exchange")
parser.add_argument("--error_features", type=int, nargs="+",
                    default=[16, 32, 64, 128, 256, 512, 1024, 2048], help="the same in part error")
parser.add_argument("--kernel", nargs="+", default=["exact", "favor", "relu", "elu",
                    "one_plus_cos"], choices=["exact", *KERNELS])
parser.add_argument("--lengths", type=int, nargs="+", default=[128, 256, 512, 1024, 2048])
DEMO = {"seed": [1], "maxlen": [32, 32], "learning_rate": 1e-3, "epochs": 4,
        "batch_size": [64, 64], "train_examples": [8000, 0], "dev_examples": 500,
        "features": [8, 32, 128], "error_features": [4, 16, 64, 256],
        "lengths": [256, 512, 1024]}


def prepare(args):
    """Fills in what the demo sets where no data was given, and refuses what cannot work."""
    if args.data_dir is None:
        if {args.task, args.long_task} - {None, "none", demo.TASK}:
            raise InputError("a task without data", "--task, --long_task", "give --data_dir")
        args.data_dir, args.task = demo.demo_task("output/demo"), demo.TASK
        args.long_task = args.long_task or "none"
        for name, value in DEMO.items():
            if getattr(args, name) == parser.get_default(name):
                setattr(args, name, value)
        args.bert_dir = args.bert_dir or demo.demo_bert("output/demo/bert-4", num_layers=4)
    args.bert_dir = args.bert_dir or str(demo.shipped_model("tiny_zh"))
    args.task, args.long_task = args.task or "tnews", args.long_task or "iflytek"
    for name in ("features", "error_features", "lengths"):
        if min(getattr(args, name)) < 1:
            raise InputError(f"{name} of {min(getattr(args, name))}", f"--{name}", "give 1 or more")
    return args


# ---- data ------------------------------------------------------------------------------------

def batches(args, name: str, split: str, long: bool = False, seed: int = 0):
    """A task's examples, as many as the settings say, drawn by the seed."""
    task = get_task(name, args.data_dir)
    examples = task.load(args.data_dir, split)
    count = args.train_examples[long] if split == "train" else args.dev_examples
    chosen = (data.joined(examples, count, args.join, seed) if long and args.join
              else data.drawn(examples, count, seed))
    return data.checked_batches(task, chosen, bert_folder(args.bert_dir), args.maxlen[long],
                                args.batch_size[long], split == "train", seed)


# ---- model -----------------------------------------------------------------------------------

def classifier(args, outputs: int, seed: int, kernel: str, features: int | None = None):
    """A compiled classifier on the pre-trained weights, its head drawn by the seed."""
    set_seed(seed)
    paths = bert_folder(args.bert_dir)
    chosen = {} if args.layers is None else {"num_hidden_layers": args.layers}
    if kernel == "exact":
        bert = load_bert(args.bert_dir, **chosen)
    else:
        bert = build_performer_model(
            paths.config_path, paths.checkpoint_path, num_features=features, kernel=kernel,
            projection_seed=1000 * seed, return_keras_model=False, **chosen)
    model = keras.Model(bert.inputs, classification_head(bert.hidden_size, outputs)(bert.output))
    model.compile(Adam(args.learning_rate), "sparse_categorical_crossentropy")
    return model


# ---- evaluator -------------------------------------------------------------------------------

def error(args, journal: Journal) -> None:
    """Part 1: random input, and what the first and the last block of the model see."""
    sources = parts.sources(load_bert(args.bert_dir), batches(args, args.task, "dev"))
    for name, *tensors in sources:
        for seed in args.seed:
            journal.measure(f"error {name} {args.error_features} {seed}", lambda: parts.errors(
                name, *tensors, args.error_features, seed))


def exchange(args, journal: Journal) -> None:
    """Part 2: fine-tune with exact attention, exchange it, train on for a few steps."""
    dev = batches(args, args.task, "dev")
    for seed in args.seed:
        train = batches(args, args.task, "train", seed=seed)
        journal.measure(f"exchange {seed}", lambda: parts.exchange(
            lambda *way: classifier(args, dev.task.num_outputs, seed, *way),
            train, dev, args.epochs, args.features, seed))


def training(args, journal: Journal) -> None:
    """Part 3: the same start, data and steps for each kernel."""
    tasks = [args.task] + [args.long_task] * (args.long_task != "none")
    for long, task in enumerate(tasks):
        dev = batches(args, task, "dev", long)
        for seed in args.seed:
            train = batches(args, task, "train", long, seed)
            for kernel in args.kernel:
                journal.measure(f"training {task} {kernel} {seed}", lambda: parts.training(
                    classifier(args, dev.task.num_outputs, seed, kernel), f"{task}, {kernel}",
                    train, dev, args.epochs))


def length(args, journal: Journal) -> None:
    """Part 4: a block of hidden size 256, forward and backward, by length."""
    journal.measure(f"lengths {args.lengths}", lambda: parts.length(args.lengths, journal.cell))


# ---- run -------------------------------------------------------------------------------------

def main() -> None:
    args = prepare(parser.parse_args())
    start, folder = time.time(), script.output_folder(args.output_dir)
    named = ("part", "resume", "output_dir", "seed", "kernel", "lengths", "error_features")
    journal = Journal(folder / "journal.json", args.resume, {    # a cell's name says the others
        key: value for key, value in script.settings(args).items() if key not in named})
    functions, rows = {f.__name__: f for f in (error, exchange, training, length)}, []
    for part in args.part:
        functions[part](args, journal)
        found = [measured_row(NUMBERS, *name, values, args.seed[:len(values)])
                 for name, values in journal.take().items()]
        print(f"\n{wide_table(found)}", flush=True)
        rows += found
    write_results(folder, 7921, script.settings(args), rows, time.time() - start)
    draw(rows, folder)


if __name__ == "__main__":
    script.run(main)

"""SGD ≈ kernel machine (https://kexue.fm/archives/8009): a trained model as a sum over its data.

    python scripts/path_kernel.py                                               # demo: digits, text
    python scripts/path_kernel.py --task tnews --data_dir CLUE --bert_dir tiny_zh

The article has no experiment; here each of its statements is put to a measurement. The demo takes
scikit-learn's digits and sentences of its own; tnews shows the training titles that argue for and
against a held-out title's label.
"""

import time

import numpy as np

from bert_theseus import script
from bert_theseus.backend import keras, set_seed
from bert_theseus.checkpoint import bert_folder, load_bert
from bert_theseus.clue import get_task
from bert_theseus.demo import shipped_model
from bert_theseus.errors import InputError
from bert_theseus.path_kernel import (PathKernelMachine, SGD, experiments, plots, report, sentences,
                                      statements, titles)
from bert_theseus.path_kernel.data import take
from bert_theseus.results import write_results
from bert4keras.tokenizers import Tokenizer

# ---- settings --------------------------------------------------------------------------------

parser = script.argument_parser(__doc__.splitlines()[0], "output/path_kernel", seeds=(1, 2))
parser.add_argument("--task", default="demo", choices=["demo", "digits", "sentences", "tnews"])
parser.add_argument("--steps", type=int, default=100,
                    help="full-batch steps of the demo; sentences three times as many")
parser.add_argument("--learning_rate", type=float, help="of SGD; default: digits 0.2, sentences "
                    "0.7, a last layer 0.1, all parameters 0.01")
parser.add_argument("--train_examples", type=int,
                    help="default: 300 in the demo, 10000 titles, 200 with --all_parameters")
parser.add_argument("--queries", type=int, default=10, help="tnews: held-out titles explained")
parser.add_argument("--all_parameters", action="store_true",
                    help="tnews: train all of BERT, not a last layer on its pooled features")
parser.add_argument("--maxlen", type=int, default=32, help="tnews: tokens of a title")
parser.add_argument("--epochs", type=int, default=3, help="tnews")
parser.add_argument("--batch_size", type=int, default=64, help="tnews")
parser.add_argument("--top", type=int, default=3, help="examples shown for and against")


def given(value, default):
    """An option's value, or the default of the task at hand."""
    return default if value is None else value


# ---- demo: data and models ---------------------------------------------------------------------

def digits(args, seed: int) -> experiments.Problem:
    """8 × 8 pictures, two layers, 10 classes."""
    from sklearn.datasets import load_digits
    x, y = load_digits(return_X_y=True)
    order, n = np.random.default_rng(seed).permutation(len(x)), given(args.train_examples, 300)
    x, y = (x[order] / 8 - 1).astype("float32"), y[order]
    set_seed(seed)
    model = keras.Sequential([keras.layers.Dense(64, "tanh", input_shape=(64,)),
                              keras.layers.Dense(10)])
    return experiments.Problem("digits", model, x[:n], y[:n], x[n:n + 200], y[n:n + 200],
                               given(args.learning_rate, 0.2), args.steps, pictures=(8, 8))


def short_texts(args, seed: int) -> experiments.Problem:
    """Characters → mean of their embeddings → a hidden layer → 2 classes."""
    n, layers = given(args.train_examples, 300), keras.layers
    texts, y = sentences.sentences(n + 50, seed)
    x = sentences.encode(texts)
    set_seed(seed)
    words, normal = len(sentences.vocabulary()) + 1, keras.initializers.RandomNormal(0, 2, seed)
    model = keras.Sequential([
        layers.Embedding(words, 16, normal, mask_zero=True, input_length=x.shape[1]),
        layers.GlobalAveragePooling1D(), layers.Dense(32, "tanh"), layers.Dense(2)])
    return experiments.Problem("sentences", model, x[:n], y[:n], x[n:], y[n:],
                               given(args.learning_rate, 0.7), 3 * args.steps,
                               texts=[*zip(texts, map(str, y))])


# ---- tnews: data, model, table of arguments ------------------------------------------------------

def explain_titles(args, seed: int, task, folder: str, picture) -> dict:
    """One training: its numbers, and the titles for and against held-out ones."""
    set_seed(seed)
    tokenizer = Tokenizer(bert_folder(folder).dict_path)
    bert, rng = load_bert(folder, return_keras_model=True), np.random.default_rng(seed)
    count = given(args.train_examples, 200 if args.all_parameters else 10_000)
    parts, inputs = [], []
    for split, size in (("train", count), ("dev", 200 if args.all_parameters else 2000)):
        examples = task.load(args.data_dir, split)
        parts.append([examples[i] for i in rng.permutation(len(examples))[:size]])
        inputs.append(titles.tokenised([e.text for e in parts[-1]], tokenizer, args.maxlen))
    y, answers = (np.array([task.label_id(e.label) for e in part]) for part in parts)
    if args.all_parameters:
        model, rate, kernel = titles.with_head(bert, len(task.labels)), 0.01, None
    else:
        inputs = titles.standardised(bert, *inputs, progress("features"))
        model, rate, kernel = titles.last_layer(inputs[0], len(task.labels)), 0.1, "mean"
    result = PathKernelMachine(model, experiments.LOGITS).fit(
        inputs[0], y, take(inputs[1], slice(0, args.queries)),
        SGD(given(args.learning_rate, rate)), args.epochs, args.batch_size, "simpson", kernel,
        seed=seed, on_step=progress("training"))
    plots.plot_reconstruction({"simpson": result}, picture)
    right = model.predict(inputs[1], 256, verbose=0).argmax(1) == answers
    what = "all parameters" if args.all_parameters else "last layer"
    name = lambda label: task.descriptions.get(label, label)  # noqa: E731
    train, held = ([(e.text, name(e.label)) for e in part] for part in parts)
    return {"numbers": titles.numbers_of(result, y, right.mean(), what, args.top),
            "table": titles.argument_table(result, held[:args.queries], train,
                                           [*map(name, task.labels)], args.top)}


def progress(name: str):
    """An ``on_step`` that draws Keras' bar."""
    bars = {}
    return lambda done, of: bars.setdefault(of, keras.utils.Progbar(of, unit_name=name)).update(
        done)


# ---- run -----------------------------------------------------------------------------------------

def main() -> None:
    args, start = parser.parse_args(), time.time()
    if args.task != "tnews" and (args.data_dir or args.bert_dir):
        raise InputError("the demo reads neither data nor a model", "--data_dir, --bert_dir",
                         "add --task tnews")
    folder = script.output_folder(args.output_dir)
    found, finished = report.Report(), report.Finished(folder, script.settings(args))
    for name, make in (("digits", digits), ("sentences", short_texts)):
        if args.task in ("demo", name):
            experiments.study(name, lambda seed: make(args, seed), args.seed, folder, found,
                              finished, args.top)
    if args.task == "tnews":
        if not args.data_dir:
            raise InputError("no data", "--data_dir", "name a folder that holds tnews/train.json")
        task, bert = get_task("tnews", args.data_dir), args.bert_dir or shipped_model("tiny_zh")
        parts = [finished(f"tnews, seed {seed}", lambda: explain_titles(
            args, seed, task, bert, folder / f"tnews_reconstruction_seed{seed}.png"))
            for seed in args.seed]
        found.add("tnews", [part["numbers"] for part in parts], args.seed)
        found.tables["titles"] = parts[0]["table"]
        if not args.all_parameters:
            statements.add_convex(found, "tnews")
    print(found.text())
    found.write_tables(folder)
    path = write_results(folder, 8009, script.settings(args), found.rows, time.time() - start,
                         claims=found.claims)
    print(f"\n{path}, tables and plots beside it; {time.time() - start:.0f} s")


if __name__ == "__main__":
    script.run(main)

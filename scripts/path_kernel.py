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
from bert_theseus.path_kernel import PathKernelMachine, SGD, experiments, sentences, titles
from bert_theseus.path_kernel.data import take
from bert_theseus.published import format_table, table
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


def main() -> None:
    args, start = parser.parse_args(), time.time()
    folder = script.output_folder(args.output_dir)
    report = experiments.Report()
    finished = experiments.Finished(folder, script.settings(args))
    if args.task == "tnews":
        explain_titles(args, report, finished)
    for name in ("digits", "sentences"):
        if args.task in ("demo", name):
            run_demo(name, args, folder, report, finished)
    show(report)
    path = write_results(folder, 8009, script.settings(args), report.rows, time.time() - start,
                         claims=report.claims, **report.tables)
    print(f"\n{path}, plots beside it; {time.time() - start:.0f} s")


# ---- data and models -------------------------------------------------------------------------

def digits(args, seed: int) -> experiments.Problem:
    """8 × 8 pictures, two layers, 10 classes."""
    from sklearn.datasets import load_digits
    x, y = load_digits(return_X_y=True)
    order, n = np.random.default_rng(seed).permutation(len(x)), args.train_examples or 300
    x, y = (x[order] / 8 - 1).astype("float32"), y[order]
    set_seed(seed)
    model = keras.Sequential([keras.layers.Dense(64, "tanh", input_shape=(64,)),
                              keras.layers.Dense(10)])
    return experiments.Problem("digits", model, x[:n], y[:n], x[n:n + 200], y[n:n + 200],
                               args.learning_rate or 0.2, args.steps, pictures=(8, 8))


def short_texts(args, seed: int) -> experiments.Problem:
    """Characters → mean of their embeddings → a hidden layer → 2 classes."""
    n, layers = args.train_examples or 300, keras.layers
    texts, y = sentences.sentences(n + 50, seed)
    x = sentences.encode(texts)
    set_seed(seed)
    words, normal = len(sentences.vocabulary()) + 1, keras.initializers.RandomNormal(0, 2, seed)
    model = keras.Sequential([
        layers.Embedding(words, 16, normal, mask_zero=True, input_length=x.shape[1]),
        layers.GlobalAveragePooling1D(), layers.Dense(32, "tanh"), layers.Dense(2)])
    return experiments.Problem("sentences", model, x[:n], y[:n], x[n:], y[n:],
                               args.learning_rate or 0.7, 3 * args.steps,
                               texts=[*zip(texts, map(str, y))])


# ---- demo: the article's statements ------------------------------------------------------------

def run_demo(name: str, args, folder, report, finished) -> None:
    """All measurements of one problem over the seeds, plots of the first seed."""
    make, made = {"digits": digits, "sentences": short_texts}[name], []

    def one(seed):
        problem = make(args, seed)
        made.append(problem.sharing(made[0]) if made else problem)
        plots = folder if seed == args.seed[0] else None
        return experiments.measure(made[-1], seed, plots, args.top)
    parts = [finished(f"{name}, seed {seed}", lambda: one(seed)) for seed in args.seed]
    report.add(name, [part["numbers"] for part in parts], args.seed)
    report.tables.update(parts[0]["tables"])
    experiments.claims(report, name, parts[0]["slopes"])


# ---- tnews -------------------------------------------------------------------------------------

def explain_titles(args, report: experiments.Report, finished) -> None:
    """Trains on titles and lists, for held-out ones, the titles that argue for and against."""
    if not args.data_dir:
        raise InputError("no data", "--data_dir", "name a folder that holds tnews/train.json")
    folder = args.bert_dir or shipped_model("tiny_zh")
    task, tokenizer = get_task("tnews", args.data_dir), Tokenizer(bert_folder(folder).dict_path)
    bert = load_bert(folder, return_keras_model=True)
    parts = [finished(f"tnews, seed {seed}",
                      lambda: explain_once(args, seed, task, tokenizer, bert))
             for seed in args.seed]
    report.add("tnews", [part["numbers"] for part in parts], args.seed)
    report.tables["titles"] = parts[0]["titles"]


def explain_once(args, seed, task, tokenizer, bert):
    """One training: numbers, and the table of the held-out titles."""
    set_seed(seed)
    count, rows = args.train_examples or (200 if args.all_parameters else 10_000), args.queries
    rng, parts = np.random.default_rng(seed), []
    for split, size in (("train", count), ("dev", 200 if args.all_parameters else 2000)):
        examples = task.load(args.data_dir, split)
        parts.append([examples[i] for i in rng.permutation(len(examples))[:size]])
    x, held = (titles.tokenised([e.text for e in part], tokenizer, args.maxlen) for part in parts)
    y, answers = (np.array([task.label_id(e.label) for e in part]) for part in parts)
    if args.all_parameters:
        model, rate = titles.with_head(bert, len(task.labels)), args.learning_rate or 0.01
    else:
        x, held = titles.standardised(bert, x, held, progress("features"))
        model = keras.Sequential([keras.layers.Dense(len(task.labels), input_shape=x.shape[1:])])
        rate = args.learning_rate or 0.1
    start, machine = model.get_weights(), PathKernelMachine(model, experiments.LOGITS)
    result = machine.fit(x, y, take(held, slice(0, rows)), SGD(rate), args.epochs, args.batch_size,
                         seed=seed, quadrature="simpson", on_step=progress("training"))
    accuracy = np.mean(model.predict(held, 256, verbose=0).argmax(1) == answers)
    model.set_weights(start)
    name = lambda label: task.descriptions.get(label, label)  # noqa: E731
    pairs = [[(e.text, name(e.label)) for e in part] for part in parts]
    numbers = {f"accuracy | {count} titles": accuracy,
               "residual / change | simpson": experiments.share(result),
               "examples | carry 90 % of a query": result.support().mean()}
    return {"numbers": numbers, "titles": titles.argument_table(
        result, pairs[1][:rows], pairs[0], [*map(name, task.labels)], args.top)}


# ---- output ----------------------------------------------------------------------------------

def progress(name: str):
    """An ``on_step`` that draws Keras' bar."""
    bars = {}
    bar = lambda of: bars.setdefault(of, keras.utils.Progbar(of, unit_name=name))  # noqa: E731
    return lambda done, of: bar(of).update(done)


def show(report: experiments.Report) -> None:
    """Tables on the screen: what was measured, the article's statements, top examples."""
    print("\n" + table(report.rows))
    if report.claims:
        print("\n" + format_table([("the article says", "verdict", "measured")] + [
            (c["statement"], c["verdict"], c["numbers"]) for c in report.claims]))
    for name, cells in report.tables.items():
        print(f"\n{name}\n" + format_table(cells))


if __name__ == "__main__":
    script.run(main)

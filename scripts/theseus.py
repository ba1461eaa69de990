"""BERT-of-Theseus (https://kexue.fm/archives/7575): the article's table, measured.

    python scripts/theseus.py                                                      # demo
    python scripts/theseus.py --task tnews --data_dir CLUE                   # the shipped model
    python scripts/theseus.py --task iflytek --data_dir CLUE --bert_dir chinese_L-12_H-768_A-12

For every seed: the predecessor is fine-tuned; for each number of successor layers k, the first k
layers are fine-tuned directly, and by module replacing followed by fine-tuning of the successor.
With --baselines, as in the demo, also from random weights: what pre-training gives.
"""

import time

from bert_theseus import demo, script
from bert_theseus.backend import keras
from bert_theseus.published import bar_plot, measured_row, wide_table
from bert_theseus.published.theseus import NUMBERS
from bert_theseus.results import write_results
from bert_theseus.theseus import (ConstantRate, LinearRate, ReplacingRateScheduler,
                                  bert_of_theseus, check_schedule, distillation_model,
                                  module_groups)
from bert_theseus.theseus.study import Study

# ---- settings --------------------------------------------------------------------------------

parser = script.argument_parser(__doc__.splitlines()[0], "output/theseus", seeds=(1, 2, 3))
parser.add_argument("--task", help="tnews, iflytek, afqmc, ocnli, cmnli, csl, cluewsc, cluener or "
                    "a folder of your own in --data_dir; default: iflytek, or the demo's")
parser.add_argument("--model", default="bert", help="as in build_transformer_model")
parser.add_argument("--successor_layers", type=int, nargs="*", help="default: 6 3, of a model of 6 "
                    "layers or fewer 3; without a number nothing is compressed")
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
parser.add_argument("--baselines", action="store_true", help="also fine-tune all layers from "
                    "random weights, and logistic regression on bags of characters; the demo does")

# ---- data and initial model ------------------------------------------------------------------

def prepare(args):
    """Fills in what was not given: data, task and settings of the demo, the shipped model."""
    if args.data_dir is None:
        args.data_dir, args.task = demo.kinds_task("output/demo"), demo.KINDS
        args.baselines = True
        for name, value in demo.SETTINGS.items():
            if getattr(args, name) == parser.get_default(name):
                setattr(args, name, value)
    bert_dir = args.bert_dir or demo.shipped_model("tiny_zh")
    args.task = args.task or "iflytek"
    check_schedule(ConstantRate(args.replacing_rate))
    check_schedule(LinearRate(1, args.linear_b))
    study = Study(script.output_folder(args.output_dir), args.task, args.data_dir, bert_dir,
                  args.model, args.maxlen, args.batch_size, args.learning_rate,
                  args.train_examples, args.resume)
    if args.successor_layers is None:
        args.successor_layers = [6, 3] if study.num_layers > 6 else [3]
    return study


# ---- stages ----------------------------------------------------------------------------------

def run_seed(args, study: Study, seed: int) -> None:
    """Predecessor; then for each depth the direct way and the methods asked for."""
    study.begin(seed)
    predecessor = study.transformer("Predecessor-")
    for layers in args.successor_layers:
        module_groups(predecessor.num_hidden_layers, layers)    # refused before anything is trained
    classifier = study.head(predecessor)
    name = f"fine-tuned, all {predecessor.num_hidden_layers} layers"
    if args.baselines:
        study.bag_of_words()
        blank = study.transformer("Random-", trained=False)
        fine_tune(study, blank, study.head(blank), f"{name}, from random weights", "training",
                  args.epochs[0])
    model = fine_tune(study, predecessor, classifier, name, "training", args.epochs[0])
    trained = model.get_weights()
    for layers in args.successor_layers:
        first = study.transformer("Direct-", layers)
        fine_tune(study, first, study.head(first), f"fine-tuned, first {layers} layers",
                  "training", args.epochs[0])
        for method in args.method:
            successor = study.transformer("Successor-", layers)
            model.set_weights(trained)          # a successor stage trains the classifier on
            METHODS[method](args, study, predecessor, successor, classifier, layers)


def fine_tune(study, transformer, classifier, name, stage, epochs):
    """Trains and reports a transformer under a classifier; the model at its best epoch."""
    model = keras.Model(transformer.inputs, classifier(transformer.output))
    history = study.fit(model, name, stage, epochs)
    study.report(model, name, history.best)
    return model


def replace(args, study, predecessor, successor, classifier, name, schedule, epochs):
    """The replacing stage, whose weights are the successor's; its history."""
    model = bert_of_theseus(predecessor, successor, classifier, schedule, seed=study.seed,
                            embeddings=args.embeddings, draw=args.draw)
    return study.fit(model, name, "replacing", epochs, [ReplacingRateScheduler(schedule)])


def theseus(args, study, predecessor, successor, classifier, layers):
    """The article: replacing at a constant rate, then the successor alone."""
    name = f"Theseus, {layers} layers"
    replace(args, study, predecessor, successor, classifier, name,
            ConstantRate(args.replacing_rate), args.epochs[1])
    fine_tune(study, successor, classifier, name, "successor", args.epochs[2])
    study.export(successor, classifier, name)


def linear(args, study, predecessor, successor, classifier, layers):
    """The paper's curriculum: both stages in one, the rate reaches 1 at two thirds."""
    name, epochs = f"Theseus (linear rate), {layers} layers", sum(args.epochs[1:])
    k = (1 - args.linear_b) / (2 / 3 * epochs * len(study.train))
    history = replace(args, study, predecessor, successor, classifier, name,
                      LinearRate(k, args.linear_b), epochs)
    study.report(keras.Model(successor.inputs, classifier(successor.output)), name, history.best)


def distillation(args, study, predecessor, successor, classifier, layers):
    """The first layers learn from labels and predecessor, for as long as both other stages."""
    name, own = f"distilled, {layers} layers", study.head(successor)
    teacher = keras.Model(predecessor.inputs, classifier(predecessor.output))
    student = keras.Model(successor.inputs, own(successor.output))
    history = study.fit(distillation_model(teacher, student), name, "distillation",
                        sum(args.epochs[1:]))
    study.report(student, name, history.best)


METHODS = {"theseus": theseus, "linear": linear, "distillation": distillation}


# ---- run -------------------------------------------------------------------------------------

def main() -> None:
    args = parser.parse_args()
    start, study = time.time(), prepare(args)
    for seed in args.seed:
        run_seed(args, study, seed)
    rows = [measured_row(NUMBERS, name, metric, values, args.seed, setting=study.task.name)
            for (name, metric), values in sorted(study.rows.items(),
                                                 key=lambda row: "ms" in row[0][1])]
    write_results(study.folder, 7575, script.settings(args), rows, time.time() - start)
    bar_plot(rows, study.folder / "theseus.png", f"BERT-of-Theseus, {study.task.name} (dev)",
             study.task.metric)
    print(wide_table(rows))
    print(order(rows, study.task.metric))


def order(rows, metric: str) -> str:
    """Whether the article's order, full > Theseus > first layers, was seen."""
    values = {row.name: row.value for row in rows if row.metric == metric}
    full = next(value for name, value in values.items()
                if "all" in name and "random" not in name)
    lines = [f"{name}: full {full:.4f}, Theseus {value:.4f}, fine-tuned {direct:.4f}: the order "
             f"full > Theseus > fine-tuned {'holds' if full > value > direct else 'does not hold'}"
             for name, value in values.items() if name.startswith("Theseus, ")
             for direct in [values[f"fine-tuned, first {name.removeprefix('Theseus, ')}"]]]
    return "\n".join(lines)


if __name__ == "__main__":
    script.run(main)

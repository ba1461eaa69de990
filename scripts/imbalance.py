"""Losses for class imbalance (kexue.fm 7708, 4733, 7359, 7615): the table the articles leave out.

    python scripts/imbalance.py                                 demo: Gaussians, no download
    python scripts/imbalance.py --data_dir CLUE --everything    all that docs/imbalance.md shows
    python scripts/imbalance.py --data_dir CLUE --task tnews --imbalance 100 --fine_tune \
        --bert_dir BERT                                         the whole model, a few losses

Long-tailed training sets are cut from the real ones with the seed, dev and test are balanced. Every
loss is tried with several settings and numbers of steps; dev chooses, test is shown.
"""

import time
from dataclasses import replace
from functools import cache

from tqdm import tqdm

from bert_theseus import script
from bert_theseus.demo import shipped_model
from bert_theseus.errors import InputError
from bert_theseus.imbalance import study
from bert_theseus.imbalance.study import fine_tuning, kept, plots, report
from bert_theseus.results import write_results

# ---------------------------------------------------------------- settings
parser = script.argument_parser(__doc__.split("\n")[0], "output/imbalance", (1, 2, 3, 4, 5))
parser.add_argument("--task", action="append", help="repeatable: tnews, iflytek, thucnews, binary, "
                    "cluener (several labels; the default: all five), or a folder of --data_dir")
parser.add_argument("--imbalance", action="append", type=float,
                    help="repeatable: largest over smallest class; default 1, 10, 100, 1000 "
                    "(demo: 1, 10, 100), at most what a task's largest class has")
parser.add_argument("--features", choices=("ngrams", "bert"), default="ngrams",
                    help="fixed features: character n-grams, or hidden states of --bert_dir")
parser.add_argument("--steps", type=int, help="of training each head; default 400 (several labels: "
                    "1600, demo: 200)")
parser.add_argument("--loss", action="append", help="repeatable: train these losses alone (and "
                    "cross-entropy and logit adjusted), by the names the table shows")
parser.add_argument("--batch_size", type=int, default=128, help="of the heads")
parser.add_argument("--learning_rate", type=float, default=0.003, help="of the heads")
parser.add_argument("--fine_tune", action="store_true", help="train the whole model of --bert_dir")
parser.add_argument("--everything", action="store_true", help="after the tasks on n-grams, tnews "
                    "on hidden states, and at 1:10, 1:100 the whole model, 3 seeds, a few losses")
parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
parser.add_argument("--bert_batch_size", type=int, default=16, help="of fine-tuning")
parser.add_argument("--bert_learning_rate", type=float, default=0.0005, help="of fine-tuning")
args = parser.parse_args()
TASKS = ["tnews", "binary", "thucnews", "iflytek", "cluener"]
IMBALANCES = args.imbalance or ([1, 10, 100, 1000] if args.data_dir else [1, 10, 100])
STEPS = {"cluener": 1600, "gaussians": 200}
BERT = str(args.bert_dir or shipped_model("tiny_zh"))
SUFFIX = {"bert": ", hidden states", "fine-tuned": ", fine-tuned"}


def plan():
    """(kind, task, imbalances, seeds, losses) of each part."""
    kind = "fine-tuned" if args.fine_tune else args.features
    if not args.data_dir:
        return [("demo", "gaussians", IMBALANCES, args.seed, args.loss)]
    tasks = args.task or TASKS[:5 - args.fine_tune]      # several labels have fixed features only
    parts = [(kind, task, IMBALANCES, args.seed, args.loss) for task in tasks]
    if args.everything:
        parts += [("bert", "tnews", IMBALANCES, args.seed, args.loss),
                  ("fine-tuned", "tnews", [10, 100], args.seed[:3], args.loss or ["class weights"])]
    return parts


# ---------------------------------------------------------------- data
@cache
def load(task):
    """The texts and labels of a task; None for several labels, which :func:`run` loads."""
    if task == "gaussians":
        return study.gaussian_corpus()
    return None if task == "cluener" else study.load_corpus(args.data_dir, task)


@cache
def features(task, kind, folder):
    """Fixed features of a task's texts, kept in a file."""
    settings = {"kind": kind, "bert": args.bert_dir if kind == "bert" else None}
    return kept.kept_arrays(folder / "features" / f"{task}_{kind}.npz", settings, args.resume,
                            lambda: study.text_features(load(task).texts, kind, bert_dir=BERT))


# ---------------------------------------------------------------- model
def run(kind, task, imbalance, seeds, losses, folder):
    """One group: all losses, settings and seeds of a task at one imbalance, kept in a file."""
    corpus, tuned, steps = load(task), kind == "fine-tuned", args.steps or STEPS.get(task, 400)
    model = {"bert": args.bert_dir} if kind in SUFFIX else {}
    settings = {"kind": kind, "seeds": seeds, "losses": losses, **model, **(
        {"epochs": args.epochs, "batch_size": args.bert_batch_size,
         "learning_rate": args.bert_learning_rate} if tuned else
        {"steps": steps, "batch_size": args.batch_size, "learning_rate": args.learning_rate})}

    def make():
        """Trains the group; called where no file holds it."""
        if tuned:
            return fine_tuning.run_fine_tuned(
                corpus, imbalance, seeds, fine_tuning.Training(
                    BERT, args.epochs, args.bert_learning_rate, args.bert_batch_size),
                losses, folder / "fine_tuned", args.resume)
        if corpus is None:
            data = study.load_entity_types(args.data_dir, kind, BERT)
            return study.run_several_labels(*data, seeds, steps, args.batch_size,
                                            args.learning_rate, losses)
        data = corpus if corpus.features else replace(corpus, features=features(task, kind, folder))
        return study.run_group(
            data, imbalance, seeds, steps, args.batch_size, args.learning_rate, losses,
            progress=lambda s: tqdm(s, f"{task} 1:{imbalance:g}", unit="seed"))
    path = folder / "groups" / f"{task}_{imbalance:g}_{kind}.npz"
    return kept.kept_group(path, settings, args.resume, make)


# ---------------------------------------------------------------- evaluator
def evaluate(groups, panels, costs, folder):
    """Tables, statements, plots; returns what results.json holds besides the rows."""
    for name, group in groups.items():
        print(f"\n{name}: test, in %; settings chosen on dev by {report.criterion_of(group)}")
        print(report.group_table(group, costs.get(name)))
    judged = [study.judge(claim, groups) for claim in study.CLAIMS] + [study.steps_claim(groups)]
    judged = [claim for claim in judged if claim]
    if judged:
        print("\nthe articles' statements\n" + report.claims_table(judged))
    report.write_tables(folder / "tables.md", groups, panels, costs, judged)
    plots.plot_gradients(folder / "gradients.png")
    if panels:
        found = {panel: {r: study.chosen(groups[name], "balanced accuracy")
                         for r, name in each.items()} for panel, each in panels.items()}
        plots.plot_over_imbalance(found, folder / "balanced_accuracy.png")
        for panel, each in found.items():
            plots.plot_thirds(each, folder, panel)
    return {"tests": {n: report.tests_of(g) for n, g in groups.items()},
            "settings_chosen": {n: report.settings_of(g) for n, g in groups.items()},
            "microseconds_a_step": costs, "statements": judged}


# ---------------------------------------------------------------- run
def main():
    """All groups, then tables, plots and results.json."""
    if (args.features == "bert" or args.fine_tune or args.everything) and not args.data_dir:
        raise InputError("no texts to train on", "--data_dir", "name a folder in CLUE's layout, or "
                         "leave --features, --fine_tune and --everything out")
    if args.bert_dir and args.features != "bert" and not (args.fine_tune or args.everything):
        raise InputError("n-grams need no model", "--bert_dir",
                         "add --features bert, --fine_tune or --everything")
    start, folder = time.time(), script.output_folder(args.output_dir)
    groups, panels, costs, rows = {}, {}, {}, []
    for kind, task, imbalances, seeds, losses in plan():
        corpus, suffix = load(task), SUFFIX.get(kind, "")
        cost = study.step_costs(corpus, args.batch_size, losses)
        for imbalance in study.possible(imbalances, corpus):
            name = (f"{task} 1:{imbalance:g}" if corpus else "cluener, several labels") + suffix
            groups[name] = run(kind, task, imbalance, seeds, losses, folder)
            costs[name] = cost
            rows += report.rows_of(name, groups[name], seeds)
            if corpus:
                panels.setdefault(task + suffix, {})[imbalance] = name
            if task == "gaussians":
                rows += report.bayes_rows(name, corpus, imbalance, seeds)
    more = evaluate(groups, panels, costs, folder)
    write_results(folder, 7708, script.settings(args), rows, time.time() - start, **more)
    print(f"\nwritten: {folder}/results.json, tables.md and plots")


if __name__ == "__main__":
    script.run(main)

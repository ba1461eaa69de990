"""Losses for class imbalance (kexue.fm 7708, 4733, 7359, 7615): the table the articles leave out.

    python scripts/imbalance.py                                 demo: Gaussians, no download
    python scripts/imbalance.py --data_dir CLUE                 all tasks, fixed features
    python scripts/imbalance.py --data_dir CLUE --task tnews --imbalance 100 --fine_tune \
        --bert_dir BERT                                         the whole model, a few losses

Long-tailed training sets are cut from the real ones with the seed, dev and test are balanced. Every
loss is tried with several settings and numbers of steps; dev chooses, test is shown.
"""

import time

import numpy as np
from tqdm import tqdm

from bert_theseus import script
from bert_theseus.errors import InputError
from bert_theseus.imbalance import study
from bert_theseus.imbalance.study import fine_tuning, plots, report
from bert_theseus.results import Row, write_results

# ---------------------------------------------------------------- settings
parser = script.argument_parser(__doc__.split("\n")[0], "output/imbalance", (1, 2, 3, 4, 5))
parser.add_argument("--task", action="append", help="repeatable: tnews, iflytek, thucnews, binary, "
                    "cluener (several labels), or a folder of --data_dir with sentence and label; "
                    "default: the first five")
parser.add_argument("--imbalance", action="append", type=float,
                    help="repeatable: largest over smallest class; default 1, 10, 100, 1000 "
                    "(demo: 1, 10, 100), as far as a task has the examples")
parser.add_argument("--features", choices=("ngrams", "bert"), default="ngrams",
                    help="fixed features: character n-grams, or hidden states of --bert_dir")
parser.add_argument("--steps", type=int, help="of training each head; default 400 (demo: 200)")
parser.add_argument("--loss", action="append", help="repeatable: train these losses alone (and "
                    "cross-entropy and logit adjusted), by the names the table shows")
parser.add_argument("--batch_size", type=int, default=128)
parser.add_argument("--fine_tune", action="store_true", help="train the whole model of --bert_dir")
parser.add_argument("--epochs", type=int, default=3, help="of fine-tuning")
parser.add_argument("--learning_rate", type=float, help="default 0.003, fine-tuning 0.0002")
args = parser.parse_args()
TASKS = args.task or ["tnews", "binary", "thucnews", "iflytek", "cluener"]
IMBALANCES = args.imbalance or ([1, 10, 100, 1000] if args.data_dir else [1, 10, 100])
STEPS = args.steps or (400 if args.data_dir else 200)
RATE = args.learning_rate or (2e-4 if args.fine_tune else 3e-3)


# ---------------------------------------------------------------- data
def corpora():
    """(task, corpus or None for several labels)."""
    if not args.data_dir:
        yield "gaussians", study.gaussian_corpus()
        return
    for task in TASKS:
        yield task, None if task == "cluener" else study.load_corpus(args.data_dir, task)


# ---------------------------------------------------------------- model
def run(task, corpus, imbalance, folder):
    """One group: all losses, settings and seeds of a task at one imbalance, kept in a file."""
    kind = "fine_tuned" if args.fine_tune else args.features if args.data_dir else "demo"
    settings = {"seeds": args.seed, "steps": STEPS, "batch_size": args.batch_size, "kind": kind,
                "bert_dir": args.bert_dir, "epochs": args.epochs * args.fine_tune,
                "learning_rate": RATE, "losses": args.loss}

    def make():
        if args.fine_tune:
            return fine_tuning.run_fine_tuned(
                corpus, imbalance, args.seed, args.bert_dir, args.epochs, RATE,
                args.batch_size, only=args.loss, folder=folder / "fine_tuned", resume=args.resume)
        if corpus is None:
            data = study.load_entity_types(args.data_dir, args.features, args.bert_dir)
            return study.run_several_labels(*data, args.seed, STEPS, args.batch_size, RATE)
        if not corpus.features:
            corpus.features = report.kept_features(
                folder / "features" / f"{task}.npz", {"kind": args.features, "of": args.bert_dir},
                args.resume, lambda: study.text_features(corpus.texts, args.features,
                                                         bert_dir=args.bert_dir))
        return study.run_group(
            corpus, imbalance, args.seed, STEPS, args.batch_size, RATE, args.loss,
            progress=lambda s: tqdm(s, f"{task} 1:{imbalance:g}", unit="seed"))
    path = folder / "groups" / f"{task}_{imbalance:g}.npz"
    return report.kept_group(path, settings, args.resume, make)


# ---------------------------------------------------------------- evaluator
def evaluate(groups, rows, folder):
    """Tables, statements, plots; returns what results.json holds besides the rows."""
    tables = report.tables_of(groups)
    for name, found in tables.items():
        print(f"\n{name}: test, in %; settings chosen on dev by balanced accuracy")
        print(report.group_table(found))
    for name, found in report.tables_of(groups, "macro F1").items():
        if name not in tables:
            rows += report.rows_of(name, found, args.seed)
            print(f"\n{name}: macro F1 in %", {f: report.mean_and_deviation(v["test"]["macro F1"])
                                              for f, v in found.items()})
    judged = [study.judge(claim, groups) for claim in study.CLAIMS] + [study.steps_claim(groups)]
    judged = [claim for claim in judged if claim]
    if judged:
        print("\nthe articles' statements\n" + report.claims_table(judged))
    plots.plot_gradients(folder / "gradients.png")
    by_task = {}
    for name, found in tables.items():
        task, ratio = name.split(" 1:")
        by_task.setdefault(task, {})[float(ratio)] = found
    if by_task:
        plots.plot_over_imbalance(by_task, folder / "balanced_accuracy.png")
    for task, each in by_task.items():
        found = each[100.0 if 100.0 in each else max(each)]
        if np.isfinite(found["cross-entropy"]["thirds"]).all() and task != "binary":
            shown = {f: found[f]["thirds"] for f in (
                "cross-entropy", "focal", "class weights", "logit adjusted") if f in found}
            plots.plot_thirds(shown, folder / f"thirds_{task}.png",
                              f"{task}, share of true classes (rows) predicted (%)")
    return {"tests": {n: report.against_cross_entropy(f) for n, f in tables.items()},
            "settings_chosen": {n: {f: [v["setting"], v["steps"]] for f, v in found.items()}
                                for n, found in tables.items()}, "statements": judged}


# ---------------------------------------------------------------- run
def main():
    """All groups, then tables, plots and results.json."""
    if (args.features == "bert" or args.fine_tune) and not (args.bert_dir and args.data_dir):
        raise InputError("no model or no data to fine-tune or take features from", "--bert_dir",
                         "name --data_dir and --bert_dir, or leave --features bert and "
                         "--fine_tune out")
    start, folder = time.time(), script.output_folder(args.output_dir)
    groups, rows = {}, []
    for task, corpus in corpora():
        for imbalance in IMBALANCES if corpus else [1]:
            if corpus and imbalance > corpus.head / 0.9:
                print(f"{task}: no imbalance of {imbalance:g}, its largest class has {corpus.head}")
                continue
            name = f"{task} 1:{imbalance:g}" if corpus else "cluener, several labels"
            groups[name] = run(task, corpus, imbalance, folder)
        if task == "gaussians":
            for rule in ("balanced", "overall"):
                for imbalance in IMBALANCES:
                    found = study.bayes_measures(corpus, imbalance, args.seed, rule)
                    rows += [Row(f"gaussians 1:{imbalance:g}, Bayes' rule, {rule}", m, found[m],
                                 seeds=args.seed) for m in report.TABLE[:3]]
    more = evaluate(groups, rows, folder)
    for name, found in report.tables_of(groups).items():
        rows += report.rows_of(name, found, args.seed)
    write_results(folder, 7708, script.settings(args), rows, time.time() - start, **more)
    print(f"\nwritten: {folder}/results.json and plots")


script.run(main)

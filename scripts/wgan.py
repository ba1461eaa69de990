"""WGAN and the true Wasserstein distance, kexue.fm/archives/8244, as measurements.

    python scripts/wgan.py                        # eight Gaussians in two dimensions, < 5 minutes
    python scripts/wgan.py --study digits         # 8×8 digits (in scikit-learn), < 40 minutes
    python scripts/wgan.py --study static         # critics between fixed sets, dimension 2 … 128
    python scripts/wgan.py --study batch          # two batches against a batch and the mean
    python scripts/wgan.py --study images --data_dir FOLDER_OR_NPZ --method gradient_penalty

Prints estimates beside exact distances, and every statement of the article as holds, does not
hold, or not testable here. The article itself gives pictures only, no number.
"""

import time

import bert_theseus  # noqa: F401  (before TensorFlow)
from bert_theseus import wgan
from bert_theseus.errors import InputError
from bert_theseus.published import format_table, table
from bert_theseus.results import write_results
from bert_theseus.script import argument_parser, output_folder, run, settings
from bert_theseus.wgan import plots, statements, studies

# 1. Settings

STUDIES = ("two_dimensions", "digits", "static", "batch", "images")
STEPS = {"two_dimensions": 1000, "digits": 1000, "images": 5000}
STATIC_SIZES = [(2, 64), (8, 64), (32, 64), (128, 64), (8, 16), (8, 256)]
SHOWN = ("estimate / exact, batch", "estimate / exact, large sets", "large exact",
         "1-NN accuracy", "mode coverage", "on a mode", "confidence", "diversity")


def arguments():
    """The arguments, with the defaults of the study they name."""
    parser = argument_parser(__doc__.split("\n")[0], "output/wgan", seeds=tuple(range(10)))
    parser.add_argument("--study", choices=STUDIES, default="two_dimensions")
    parser.add_argument("--method", action="append", help="repeatable; without it every method")
    parser.add_argument("--steps", type=int, help="generator steps; without it those of the study")
    parser.add_argument("--critic_training", type=int, default=600,
                        help="critic steps between fixed sets")
    parser.add_argument("--learning_rate", type=float,
                        help="without it 1e-3 in two dimensions, 5e-4 for digits and images")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--penalty_weight", type=float, help="of the penalties centred at 1; "
                        "without it 10, and 1 in two dimensions, where 10 keeps the critic flat")
    args = parser.parse_args()
    args.method = args.method or list(wgan.METHODS)
    if args.steps is None:
        args.steps = STEPS.get(args.study)
    plane = args.study == "two_dimensions"
    if args.penalty_weight is None:
        args.penalty_weight = 1. if plane else 10.
    if args.learning_rate is None:
        args.learning_rate = 1e-3 if plane else 5e-4
    check(args)
    return args


def check(args):
    """InputError for what the study cannot use."""
    if args.bert_dir:
        raise InputError("there is no BERT in this article", "--bert_dir", "leave it out")
    if (args.study == "images") != bool(args.data_dir):
        raise InputError(f"--study {args.study} {'with' if args.data_dir else 'without'} data",
                         "--data_dir", "give a folder of images or an .npz to --study images only")
    for method in args.method:
        wgan.get_method(method)
    for name in ("steps", "critic_training", "learning_rate", "penalty_weight"):
        if getattr(args, name) is not None and not getattr(args, name) > 0:
            raise InputError(f"{getattr(args, name)}", f"--{name}", "use a positive number")


# 2. Data, models and what is measured: the studies

def trained(args, world, folder):
    """The training study of a world; when a run diverges its plot is drawn before it ends."""
    parts = studies.Parts(folder, args.resume)
    try:
        return studies.training_study(world, args.method, args.seed, args.steps,
                                      args.learning_rate, parts, args.batch_size,
                                      args.penalty_weight)
    except wgan.Diverged as error:
        if error.records:
            plots.training_plot({error.method: {"records": error.records}},
                                folder / "diverged.png", str(error))
        raise InputError(str(error), folder, "see diverged.png; lower --learning_rate") from None


def two_dimensions(args, folder):
    """Eight Gaussians: training, critics between fixed sets, batches."""
    world, parts = wgan.ring_world(), studies.Parts(folder, args.resume)
    study = trained(args, world, folder)
    plots.points_plot(world.held_out, study.samples, folder / "samples.png", world.name)
    study.add(studies.static_study([(2, 128)], args.seed, parts, steps=args.critic_training))
    return study.add(studies.batch_study([2, 64], [16, 64, 256], args.seed, parts))


def digits(args, folder):
    """8×8 digits: training, centres of the data, pixel distances."""
    world = wgan.digits_world()
    study = trained(args, world, folder)
    study.add(studies.centers_study(world, study.samples, args.seed)).add(studies.pixel_study())
    plots.images_plot({"real digits": world.held_out[None], **study.samples}, (8, 8),
                      folder / "samples.png", "Samples, and centres of the data")
    return study


def static(args, folder):
    """Critics between fixed sets, over dimension and size."""
    methods = [name for name in args.method if wgan.get_method(name).objective != "gan"]
    parts = studies.Parts(folder, args.resume)
    study = studies.static_study(STATIC_SIZES, args.seed, parts, methods, args.critic_training)
    plots.static_plot(study.records["static"], folder / "static.png")
    return study


def batch(args, folder):
    """Two batches against a batch and the mean, over dimension and size."""
    return studies.batch_study([2, 8, 32, 128], [16, 32, 64, 128, 256, 512], args.seed,
                               studies.Parts(folder, args.resume))


def images(args, folder):
    """Training on images of the user's."""
    world = wgan.images_world(wgan.load_images(args.data_dir))
    study = trained(args, world, folder)
    plots.images_plot({"real": world.held_out[None], **study.samples}, world.train.shape[1:],
                      folder / "samples.png", "Samples")
    return study


# 3. Evaluator: tables, figures and the record

def report(args, study, folder, seconds):
    """Tables and verdicts on the screen; figures and results.json in the folder."""
    training, effects = study.records.get("training"), study.records.get("batch_effect")
    if training:
        plots.training_plot(training, folder / "training.png", args.study.replace("_", " "))
        if any(not name.startswith("gan") for name in training):
            plots.quality_plot(training, folder / "quality.png", args.study.replace("_", " "))
        studies.write_steps(training, folder / "steps.csv")
    if effects:
        plots.batch_plot(effects, folder / "batch_effect.png")
    shown = [row for row in study.rows if not training or row.metric in SHOWN
             or "/" in row.name + row.metric and row.name not in training]
    print(table(shown))
    parts = sorted(study.verdicts, key=lambda verdict: verdict.statement)
    whole = statements.summary(parts)
    for head, verdicts in (("part", parts), ("statement", whole)):
        print("\n" + format_table([("", head, "verdict", "measured [95 % interval]")] + [
            (v.statement, v.claim, v.verdict, v.numbers) for v in verdicts]))
    path = write_results(folder, 8244, settings(args), study.rows, seconds,
                         verdicts=[vars(v) for v in parts], statements=[vars(v) for v in whole],
                         **study.records)
    print(f"\n{seconds:.0f} s; {path}, figures beside it")


# 4. Run

def main():
    args = arguments()
    folder, start = output_folder(args.output_dir), time.time()
    study = globals()[args.study](args, folder)
    report(args, study, folder, time.time() - start)


if __name__ == "__main__":
    run(main)

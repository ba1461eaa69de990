"""WoBERT (https://kexue.fm/archives/7758): the article's tables, characters beside words.

    python scripts/wobert.py                                          demo, the shipped models
    python scripts/wobert.py --data_dir CLUE --task tnews iflytek     classification
    python scripts/wobert.py --data_dir CLUE --task cluener           entities, with char fallback
    python scripts/wobert.py --data_dir CLUE --task csl               keywords or titles, written
    python scripts/wobert.py --data_dir CLUE --bert_dir BERT --word_dir WOBERT --task tnews

--bert_dir is a character model, --word_dir a word model as published; with --bert_dir alone the
words are added to it as it is, which the article then pre-trains (scripts/pretrain.py). The speed
table is measured on the texts of the first task, tokenisation included.
"""

import time

from bert_theseus import demo, script
from bert_theseus.backend import keras, set_seed
from bert_theseus.checkpoint import load_bert
from bert_theseus.clue import Batches, Example, evaluate, get_task, predict_outputs
from bert_theseus.published import bar_plot, measured_row, table
from bert_theseus.published.wobert import NUMBERS
from bert_theseus.results import write_results
from bert_theseus.training import fit
from bert_theseus.wobert import WordTokenizer, convert_checkpoint, generation, tokenizer_of
from bert_theseus.wobert.speed import speed_ups

# ---------------------------------------------------------------- settings
parser = script.argument_parser(__doc__.split("\n")[0], "output/wobert", (1, 2, 3))
parser.add_argument("--word_dir", help="a word model as published; default: the shipped one, or "
                    "--bert_dir with --num_words words added")
parser.add_argument("--task", nargs="+", help="default tnews iflytek; demo: the demo's")
parser.add_argument("--write", nargs="*", default=["csl"], metavar="TASK", help="tasks whose "
                    "titles or keywords are to be written: rows of title and content, or CSL's")
parser.add_argument("--model", default="bert", help="as in build_transformer_model")
parser.add_argument("--num_words", type=int, default=20000)
parser.add_argument("--user_dict", help="own words, in jieba's format")
parser.add_argument("--char_fallback", type=float, nargs="*", default=[float("inf")],
                    metavar="FREQUENCY", help="entities: words that jieba counts less often become "
                    "characters; inf all")
parser.add_argument("--maxlen", type=int, default=128)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--learning_rate", type=float, default=2e-5)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--beams", type=int, nargs="+", default=[1, 2, 3], help="of --write tasks")
parser.add_argument("--train_examples", type=int, help="use only so many, the first")
parser.add_argument("--speed_texts", type=int, default=128, help="texts a length; 0 leaves it out")
args = parser.parse_args()


# ---------------------------------------------------------------- data
def prepare(output):
    """Task names and the two model folders; in the demo its data and the shipped models."""
    if args.data_dir is None:
        args.data_dir, args.task = demo.kinds_task("output/demo"), [demo.KINDS]
        args.epochs, args.learning_rate = min(args.epochs, 5), 3e-4
    chars, words = args.bert_dir or demo.shipped_model("tiny_zh"), args.word_dir
    if words is None:
        words = convert_checkpoint(chars, output / "words", args.num_words, user_dict=args.user_dict
                                   ) if args.bert_dir else demo.shipped_model("tiny_wo")
    return args.task or ["tnews", "iflytek"], {"BERT": chars, "WoBERT": words}


def tokenizers(folders, task):
    """name → (model folder, tokenizer); entities also with words turned back into characters."""
    found = {name: (folder, tokenizer_of(folder)) for name, folder in folders.items()}
    if task.kind == "tagging" and isinstance(found["WoBERT"][1], WordTokenizer):
        folder, words = found["WoBERT"]
        for limit in args.char_fallback:
            found[f"WoBERT, words under {limit:g} as characters"] = folder, WordTokenizer(
                words._token_dict, words=words.segmenter.words, min_frequency=limit)
    return found


# ---------------------------------------------------------------- model
def build(task, folder):
    """[CLS] → classes, or every token → tags; Adam, as in the article's test scripts."""
    bert = load_bert(folder, args.model)
    x = bert.output if task.kind == "tagging" else keras.layers.Lambda(lambda x: x[:, 0])(
        bert.output)
    model = keras.Model(bert.model.inputs, keras.layers.Dense(task.num_outputs, "softmax")(x))
    model.compile(keras.optimizers.Adam(args.learning_rate), "sparse_categorical_crossentropy",
                  weighted_metrics=[])
    return model


# ---------------------------------------------------------------- evaluator
def measure_task(name, folders, output):
    """Rows of a task: dev metric of the best epoch, and seconds of training, over the seeds."""
    task = get_task(name, args.data_dir)
    train, dev = (task.load(args.data_dir, split) for split in ("train", "dev"))
    rows = []
    for unit, (folder, tokenizer) in tokenizers(folders, task).items():
        histories = []
        for seed in args.seed:
            set_seed(seed)
            batches = Batches(task, train[:args.train_examples], tokenizer, args.maxlen,
                              args.batch_size, seed=seed)
            held = Batches(task, dev, tokenizer, args.maxlen, args.batch_size, shuffle=False)
            histories.append(fit(build(task, folder), batches, args.epochs,
                                 output / f"{name}-{unit}-{seed}",
                                 lambda model: evaluate(task, model, held), task.metric,
                                 resume=args.resume, name=f"{unit} {name} seed {seed}"))
        for metric, values in ((task.metric, [history.best for history in histories]),
                               ("seconds", [history.seconds for history in histories])):
            rows.append(measured_row(NUMBERS, f"{unit}, {name}", metric, values, args.seed))
    return rows


def measure_writing(name, folders, output):
    """Rows of titles or keywords: Rouge and BLEU by beam size, of the epoch whose BLEU is best."""
    train, dev = (generation.load_pairs(args.data_dir, name, split) for split in ("train", "dev"))
    scores = {}
    for unit, folder in folders.items():
        for seed in args.seed:
            set_seed(seed)
            model = generation.build_generator(folder, args.model, args.learning_rate)
            tokenizer = tokenizer_of(folder)
            writer = generation.Writer(model, tokenizer)
            fit(model, generation.pair_batches(train[:args.train_examples], tokenizer,
                                               args.batch_size, seed), args.epochs,
                output / f"{name}-{unit}-{seed}", lambda model: generation.measure(writer, dev),
                "BLEU", resume=args.resume, name=f"{unit} {name} seed {seed}")
            for beam in args.beams:
                for metric, value in generation.measure(writer, dev, beam).items():
                    scores.setdefault((f"{unit}, {name}, beam {beam}", metric), []).append(value)
    return [measured_row(NUMBERS, label, metric, values, args.seed)
            for (label, metric), values in scores.items()]


def measure_speed(name, folders):
    """Rows of the speed table: the models of a task read its dev texts, cut to length."""
    def reader(folder):
        """A model and its tokenizer as one function of the texts."""
        model, tokenizer = build(task, folder), tokenizer_of(folder)
        return lambda texts: predict_outputs(model, Batches(
            task, [Example(text) for text in texts], tokenizer, 512, args.batch_size,
            shuffle=False))

    task = get_task(name, args.data_dir)
    ratios = speed_ups(*map(reader, folders.values()),
                       [example.text for example in task.load(args.data_dir, "dev")],
                       args.speed_texts)
    return [measured_row(NUMBERS, f"WoBERT, {length} characters", "speed-up", values)
            for length, values in ratios.items()]


# ---------------------------------------------------------------- run
def main():
    began, output = time.time(), script.output_folder(args.output_dir)
    names, folders = prepare(output)
    texts = [name for name in names if name not in args.write]
    rows = measure_speed(texts[0], folders) if args.speed_texts and texts else []
    for name in names:
        rows += (measure_task if name in texts else measure_writing)(name, folders, output)
        print(table(rows))
    scored = [row.metric for row in rows if row.metric not in ("speed-up", "seconds")]
    bar_plot(rows, output / "quality.png", " / ".join(names), scored[0])
    write_results(output, 7758, script.settings(args), rows, time.time() - began)


if __name__ == "__main__":
    script.run(main)

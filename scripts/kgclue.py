"""Seq2Seq + prefix tree for KgCLUE (https://kexue.fm/archives/8802).

    python scripts/kgclue.py                                                       # demo
    python scripts/kgclue.py build --knowledge Knowledge.txt --bert_dir BERT
    python scripts/kgclue.py train --data_dir CLUE --bert_dir BERT     # CLUE/kgclue/train.json …
    python scripts/kgclue.py evaluate --data_dir CLUE --bert_dir BERT
    python scripts/kgclue.py ask --bert_dir BERT                       # a prompt
    python scripts/kgclue.py serve --bert_dir BERT --port 8802         # HTTP and a web page

All of them use --output_dir: the tree, the weights of each seed, the results.
"""

import time
from itertools import product
from pathlib import Path

from bert_theseus import kgclue, kgclue_demo, script
from bert_theseus.backend import set_seed
from bert_theseus.checkpoint import bert_folder, load_bert
from bert_theseus.clue.files import find_folder
from bert_theseus.errors import InputError
from bert_theseus.kgclue_report import Chosen, Evaluation, report
from bert_theseus.prefix_tree import PrefixTree
from bert_theseus.published.kgclue import NUMBERS
from bert_theseus.seq2seq import RULES, CachedUniLM, ConstrainedDecoder
from bert_theseus.training import fit, load_weights
from bert4keras.optimizers import Adam
from bert4keras.tokenizers import Tokenizer
from tqdm import tqdm

# ---- settings --------------------------------------------------------------------------------

parser = script.argument_parser(__doc__.splitlines()[0], "output/kgclue", seeds=(1,))
parser.add_argument("command", nargs="?", default="demo",
                    choices=["demo", "build", "train", "evaluate", "ask", "serve"])
parser.add_argument("--knowledge", nargs="+", help="file(s) of tab-separated triples, .gz also")
parser.add_argument("--further_relations", type=int, default=0, help="a harder tree: so many "
                    "further relations for every subject, drawn as often as they occur")
parser.add_argument("--task", default="kgclue", help="folder in --data_dir")
parser.add_argument("--model", default="roformer", choices=["bert", "roformer", "nezha"])
parser.add_argument("--maxlen", type=int, default=128)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--learning_rate", type=float, default=5e-6)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--dev_examples", type=int, default=2000, help="questions of dev that choose "
                    "epoch, rule, beam, and calibrate; the first so many")
parser.add_argument("--beam", type=int, nargs="+", default=[1, 3, 5])
parser.add_argument("--rule", nargs="+", default=list(RULES), choices=RULES)
parser.add_argument("--abstain", type=float, default=0.0, help="give no answer below this "
                    "calibrated probability (ask, serve, evaluate)")
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=8802)


def main() -> None:
    args = parser.parse_args()
    if args.command == "demo":
        kgclue_demo.prepare(args, parser)
    if args.bert_dir is None:
        raise InputError("no model", "--bert_dir", "give a published BERT or RoFormer folder")
    run = Run(args, script.output_folder(args.output_dir))
    {"build": run.build, "train": run.train, "evaluate": run.evaluate, "ask": run.ask,
     "serve": run.serve, "demo": run.everything}[args.command]()


class Run:
    """The commands; tree and weights lie in the output folder."""

    def __init__(self, args, folder: Path):
        self.args, self.folder = args, folder
        self.tokenizer = Tokenizer(bert_folder(args.bert_dir).dict_path, do_lower_case=True)
        self.tree_path = folder / f"knowledge{args.further_relations or ''}.tree"

    # ---- data --------------------------------------------------------------------------------
    def build(self) -> PrefixTree:
        """The tree of --knowledge, kept in the output folder."""
        args = self.args
        if not args.knowledge:
            raise InputError("no knowledge", "--knowledge", "name a file of triples")
        source, joined = args.knowledge[0], None
        if len(args.knowledge) > 1 or args.further_relations:
            joined = source = kgclue.join_knowledge(
                args.knowledge, self.folder / "knowledge.txt", args.further_relations)
        with tqdm(unit=" strings and lines", mininterval=1) as bar:
            def report_step(what, count):
                bar.set_description(what, refresh=False)
                bar.update(count)
            tree = PrefixTree.build(source, self.tokenizer, self.tree_path, report=report_step)
        if joined:
            joined.unlink()
        print(", ".join(f"{count:,} {what}" for what, count in tree.info["counts"].items()))
        return tree

    def questions(self, *names: str) -> dict[str, list[kgclue.Question]]:
        """Name of a set → its questions; of dev the first --dev_examples."""
        if self.args.data_dir is None:
            raise InputError("no questions", "--data_dir", "give the folder that holds kgclue/")
        folder = find_folder(self.args.data_dir, (self.args.task,))
        return kgclue.load_sets(folder, names, self.args.dev_examples)

    # ---- model -------------------------------------------------------------------------------
    def model(self):
        """A UniLM model with the published weights."""
        return load_bert(self.args.bert_dir, self.args.model, return_keras_model=True,
                         application="unilm", with_mlm="linear")

    def trained(self, seed: int) -> CachedUniLM:
        """The same with the weights ``train`` left for a seed, ready to search with."""
        model, weights = self.model(), self.weights(seed)
        if not weights.is_file():
            raise InputError("no trained weights", weights, "run the command train first")
        load_weights(kgclue.answer_model(model), weights)
        return CachedUniLM(model)

    def weights(self, seed: int) -> Path:
        """Where ``train`` leaves the weights of a seed."""
        return self.folder / f"seed{seed}" / "weights.npz"

    # ---- training and evaluation ---------------------------------------------------------------
    def train(self) -> None:
        """One model a seed; the epoch with the best score on dev is kept."""
        args, tree = self.args, PrefixTree.open(self.tree_path, self.tokenizer)
        questions = self.questions("train", "dev")
        for seed in args.seed:
            set_seed(seed)
            whole = self.model()
            model = kgclue.answer_model(whole)
            model.compile(Adam(args.learning_rate), kgclue.answer_token_crossentropy)
            batches = kgclue.training_batches(questions["train"], self.tokenizer, args.maxlen,
                                              args.batch_size, seed)
            decoder = self.decoder(CachedUniLM(whole), tree, 3, "look-ahead")
            fit(model, batches, args.epochs, self.folder / f"seed{seed}",
                lambda model: Evaluation.run(decoder, questions["dev"]).metric, "score",
                resume=args.resume)

    def decoder(self, model, tree, beam: int, rule: str) -> ConstrainedDecoder:
        """A search with this run's tokenizer and lengths."""
        return ConstrainedDecoder(model, self.tokenizer, tree, beam, rule, self.args.maxlen,
                                  batch_size=64)

    def evaluate(self) -> None:
        """Every rule and beam on dev and test; table, plots, leaderboard file, calibration."""
        args, start = self.args, time.time()
        tree = PrefixTree.open(self.tree_path, self.tokenizer)
        sets, found = self.questions("dev", "test"), {}
        for seed in args.seed:
            model = self.trained(seed)
            made_of = (tree.info["id"], self.weights(seed).read_bytes(), args.maxlen)
            for (split, own), rule, beam in product(sets.items(), args.rule, args.beam):
                found[split, rule, beam, seed] = Evaluation.kept(
                    self.folder / "evaluations" / f"{split}, {rule}, beam {beam}, {seed}.json",
                    (*made_of, own), args.resume, lambda: Evaluation.run(
                        self.decoder(model, tree, beam, rule), own, progress=True))
        print(report(self.folder, script.settings(args), found, sets, args.abstain, start,
                     NUMBERS if (args.command, args.task) == ("evaluate", "kgclue") else ()))

    def everything(self) -> None:
        """The demo."""
        self.build()
        self.train()
        self.evaluate()

    # ---- answering -----------------------------------------------------------------------------
    def answerer(self):
        """Rule, beam and seed that were best on dev with their calibration, or those named."""
        args, tree = self.args, PrefixTree.open(self.tree_path, self.tokenizer)
        wanted = {name: getattr(args, name)[-1] for name in ("rule", "beam", "seed")
                  if getattr(args, name) != parser.get_default(name)}
        chosen = Chosen.read(self.folder).but(**wanted)
        decoder = self.decoder(self.trained(chosen.seed), tree, chosen.beam, chosen.rule)
        return kgclue.Answerer(decoder, chosen.calibration, args.abstain)

    def ask(self) -> None:
        """Answers at a prompt."""
        answerer = self.answerer()
        print("question (empty line ends):")
        while question := _read_line():
            print(answerer.as_text(answerer.answer([question], 3)[0]))

    def serve(self) -> None:
        """Answers over HTTP; only here the server's packages are needed."""
        try:
            from bert_theseus.kgclue_server import serve
        except ImportError as error:
            raise InputError(f"the server needs {error.name}", "serve",
                             "pip install starlette uvicorn") from None
        serve(self.answerer(), self.args.host, self.args.port)


def _read_line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


if __name__ == "__main__":
    script.run(main)

"""Three commands:

    python -m bert_theseus run SCRIPT [ARGS…]     an unmodified bert4keras script
    python -m bert_theseus doctor                 versions, devices, a few training steps
    python -m bert_theseus init --vocab VOCAB --output_dir DIR    a random BERT as published

TensorFlow is loaded by the command that needs it, after bad arguments were refused.
"""

import argparse
import importlib.metadata
import os
import platform
import sys
import types
from pathlib import Path

from bert_theseus import _environment
from bert_theseus.errors import InputError
from bert_theseus.script import run as run_main

_PACKAGES = ("tensorflow", "tf_keras", "bert4keras", "keras", "numpy")


def main(argv: list[str] | None = None) -> None:
    """Dispatches to the command; bad input ends with one line and status 2."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["run"] and argv[1:2] not in ([], ["-h"], ["--help"]):
        run_script(argv[1], argv[2:])       # whatever follows belongs to the script
        return
    args = _parser().parse_args(argv)
    run_main(lambda: args.command(args))


def run_script(path: str, arguments: list[str]) -> None:
    """Runs the file as ``python PATH ARGUMENTS…`` would, on a repaired backend.

    As there: ``__name__`` is ``"__main__"``, ``sys.argv`` and ``sys.path[0]`` are the script's,
    SystemExit passes through, and a traceback begins in the script.
    """
    sys.excepthook = _traceback_from(path)
    try:
        if not Path(path).is_file():
            raise InputError("no such script", path, "give the path of a Python file")
        code = compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
        import bert_theseus.backend  # noqa: F401  (before the script imports Keras)
    except (InputError, ImportError) as error:      # no more set-up: logging is the script's own
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    module = types.ModuleType("__main__")
    module.__file__, module.__builtins__ = path, __builtins__
    sys.modules["__main__"] = module
    sys.argv[:] = [path, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    exec(code, module.__dict__)


def _traceback_from(path: str):
    """An excepthook that leaves out the frames above the script's first."""
    def hook(kind, error, trace):
        while trace is not None and trace.tb_frame.f_code.co_filename != path:
            trace = trace.tb_next
        sys.__excepthook__(kind, error.with_traceback(trace), trace)
    return hook


def doctor(args: argparse.Namespace) -> None:
    """Prints versions, devices and a smoke run; status 1 and a line for each fault found."""
    for name, value in _versions():
        print(f"{name:12} {value}")
    faults = _environment.faults()
    if not faults:
        faults = _check_running()
    for fault in faults:
        print(f"fault: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print("all well")


def _versions() -> list[tuple[str, str]]:
    rows = [("python", platform.python_version())]
    for name in _PACKAGES:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "–"))
    return rows


def _check_running() -> list[str]:
    """Devices, threads and a few training steps; returns the faults."""
    from bert_theseus.backend import set_seed
    import tensorflow as tf
    for device in tf.config.list_physical_devices():
        details = tf.config.experimental.get_device_details(device)
        print(f"{device.device_type:12} {details.get('device_name', device.name)}")
    threads = tf.config.threading
    print(f"threads      intra-op {threads.get_intra_op_parallelism_threads() or 'automatic'}, "
          f"inter-op {threads.get_inter_op_parallelism_threads() or 'automatic'}, "
          f"{os.cpu_count()} cores")
    set_seed(42)
    losses = smoke_losses()
    print(f"smoke run    loss {losses[0]:.4f} → {losses[-1]:.4f} in {len(losses)} steps")
    if not losses[-1] < 0.9 * losses[0]:        # also false for NaN
        return [f"training a small BERT does not lower the loss ({losses[0]:.4f} → "
                f"{losses[-1]:.4f}): compare the versions above with requirements.txt"]
    return []


def smoke_losses(steps: int = 12) -> list[float]:
    """The losses of a tiny BERT classifier that learns one batch by heart."""
    import numpy as np
    from bert_theseus.backend import keras
    from bert4keras.models import build_transformer_model
    from bert4keras.optimizers import Adam
    bert = build_transformer_model(
        vocab_size=16, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, hidden_act="gelu", max_position=8)
    output = keras.layers.Dense(2, "softmax")(keras.layers.Lambda(lambda x: x[:, 0])(bert.output))
    model = keras.Model(bert.inputs, output)
    model.compile(Adam(1e-2), "sparse_categorical_crossentropy")
    tokens = np.arange(1, 65).reshape(8, 8) % 16                    # [batch, length]
    labels = np.arange(8) % 2                                       # [batch]
    return [float(model.train_on_batch([tokens, np.zeros_like(tokens)], labels))
            for _ in range(steps)]


def init(args: argparse.Namespace) -> None:
    """Writes a randomly initialised BERT in Google's published form."""
    from bert_theseus.checkpoint import random_bert
    folder = random_bert(args.output_dir, args.vocab, args.layers, args.hidden, args.heads,
                         args.intermediate, args.max_position, args.seed, args.model)
    print(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bert_theseus", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="run | doctor | init")
    script = commands.add_parser("run", help="run an unmodified bert4keras script")
    script.add_argument("script", help="a Python file")
    script.add_argument("args", nargs=argparse.REMAINDER, help="its arguments")
    commands.add_parser("doctor", help="check this environment").set_defaults(command=doctor)
    _add_init(commands)
    return parser


def _add_init(commands) -> None:
    parser = commands.add_parser("init", help="write a randomly initialised BERT",
                                 formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.set_defaults(command=init)
    parser.add_argument("--vocab", required=True, help="vocab.txt, one token a line")
    parser.add_argument("--output_dir", required=True, help="the folder to write")
    parser.add_argument("--model", default="bert",
                        choices=("bert", "roformer", "nezha", "electra", "albert"))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768, help="hidden size")
    parser.add_argument("--heads", type=int, help="default: one for every 64 hidden units")
    parser.add_argument("--intermediate", type=int, help="default: 4 x hidden size")
    parser.add_argument("--max_position", type=int, default=512)
    parser.add_argument("--seed", type=int, default=42)


if __name__ == "__main__":
    main()

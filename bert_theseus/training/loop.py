"""``fit``: the training loop with progress, evaluation, best weights and exact resume."""

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np  # noqa: F401  (the snippet's)
from tqdm import tqdm

from bert_theseus.errors import InputError
from bert_theseus.training.ahead import Ahead
from bert_theseus.training.history import History
from bert_theseus.training.saving import RunFolder, SaveTimer, run_settings
from bert_theseus.training.state import RunState
from bert_theseus.training.step import TrainingStep

logger = logging.getLogger(__name__)


def fit(model, batches, epochs: int, folder: str | Path | None = None,
        evaluate: Callable | None = None, monitor: str | None = None, mode: str = "max",
        resume: bool = False, callbacks: Sequence = (), progress: bool = True, name: str = "",
        seed: int | None = None, save_steps: int | None = None,
        extra: Mapping[str, object] | None = None) -> History:
    """Trains a compiled Keras model; killed at any step, it goes on to the very same weights.

    batches:    :class:`bert_theseus.clue.Batches`, or any object with ``len()`` (steps an epoch),
                ``epoch(number, start)`` (iterates from step ``start`` on, a function of the
                arguments alone) and ``fingerprint()`` (a dictionary that JSON can carry).
    folder:     where the state and weights go; without it nothing is written.
    evaluate:   called as ``evaluate(model)`` after each epoch; a number or a dictionary of them
                (kept as ``val_…``). The best weights are kept, and are the model's in the end.
    monitor:    key of the dictionary that decides (its first), ``mode`` "max" or "min".
    resume:     go on with what ``folder`` holds; where it holds nothing, start. A finished run
                returns at once. InputError if the settings differ from those of the saved run.
    callbacks:  Keras callbacks: ``on_train_*``, ``on_epoch_*``, ``on_train_batch_*``. What they
                put into ``logs`` is shown in the bar and kept in the history.
    seed:       of dropout; the batches' seed if None.
    save_steps: save every so many steps; None saves as often as 5 % of the time allow.
    extra:      name → further state: a ``tf.Variable``, a ``tf.random.Generator`` or an object
                with ``get_state()``/``set_state()``. Variables a step uses are saved anyway.

    Ctrl-C saves and raises KeyboardInterrupt. InputError if the loss is not finite.
    Bit-identical means: same machine, same number of threads, deterministic kernels.

    >>> from bert_theseus.backend import keras
    >>> from bert_theseus.clue import NumpyBatches
    >>> x = np.arange(6, dtype="float32")[:, None]
    >>> model = keras.Sequential([keras.layers.Dense(1, input_shape=(1,))])
    >>> model.compile("adam", "mse")
    >>> history = fit(model, NumpyBatches(6, 2, lambda rows: (x[rows], 3 * x[rows])), epochs=2,
    ...               folder="run", progress=False)
    >>> len(history.epochs)
    2
    """
    if epochs < 1:
        raise InputError(f"{epochs} epochs", "epochs", "use 1 or more")
    if mode not in ("max", "min"):
        raise ValueError(f"unknown mode {mode!r}, use 'max' or 'min'")
    return _Run(model, batches, epochs, folder, evaluate, monitor, mode, resume, callbacks,
                progress, name, seed, save_steps, extra or {}).execute()


class _Run:
    """One call of ``fit``. The truth about the position is the step's own counter."""

    def __init__(self, model, batches, epochs, folder, evaluate, monitor, mode, resume, callbacks,
                 progress, name, seed, save_steps, extra):
        self.model, self.batches, self.epochs, self.evaluate = model, batches, epochs, evaluate
        self.monitor, self.mode, self.resume = monitor, mode, resume
        self.callbacks, self.progress, self.extra = list(callbacks), progress, extra
        self.seed = getattr(batches, "seed", 0) if seed is None else seed
        self.folder = RunFolder(folder) if folder is not None else None
        self.timer = SaveTimer(save_steps)
        self.history, self.logs = History(name=name), {}
        self.best_weights = self.step = self.state = None
        self.mark = time.perf_counter()

    def execute(self) -> History:
        """The whole of ``fit``; a run that had finished gives its history at once."""
        settings = run_settings(self.model, self.batches, self.epochs, self.seed,
                                monitor=self.monitor, mode=self.mode)
        if self.folder:
            finished = self.folder.open(self.resume, settings, self.model)
            if finished is not None:
                return History(**finished)
        self.model.stop_training = False
        self._call("set_model", self.model)
        self._call("set_params", {"epochs": self.epochs, "steps": len(self.batches),
                                  "verbose": int(self.progress)})
        self._call("on_train_begin", {})
        self._prepare(settings)
        try:
            self._train()
        except KeyboardInterrupt:
            self._save()
            raise
        self._finish(settings)
        return self.history

    def _prepare(self, settings: dict) -> None:
        """Compiles the step and, when there is a saved state, restores it."""
        self.step = TrainingStep(self.model, next(iter(self.batches.epoch(0))), self.seed)
        self.mark = time.perf_counter()
        if not self.folder:
            return
        for name in self.step.unrepeatable():
            logger.warning("a resumed run will differ from an uninterrupted one: the state of %s "
                           "cannot be saved", name)
        holders = {f"callback {i} {type(callback).__name__}": callback
                   for i, callback in enumerate(self.callbacks)}
        self.state = RunState(self.step.variables(), {**holders, **self.extra}, settings)
        if self.resume and self.folder.state.is_file():
            saved = self.state.restore(self.folder.state)
            self.logs, self.model.stop_training = saved.pop("logs"), saved.pop("stopped")
            self.history = History(**saved)
            logger.info("%s goes on after step %d", self.history.name or "training",
                        int(self.step.number))

    def _train(self) -> None:
        while len(self.history.epochs) < self.epochs and not self.model.stop_training:
            epoch = len(self.history.epochs)
            self._epoch(epoch)
            values = self._evaluate()
            self._tick()
            before = sum(record["seconds"] for record in self.history.epochs)
            record = {"epoch": epoch + 1, **self.logs,
                      **{"val_" + key: value for key, value in values.items()},
                      "seconds": round(self.history.seconds - before, 3)}
            self._keep_best(record)
            self._call("on_epoch_end", epoch, record)
            self.history.epochs.append(_plain(record))
            self.logs = {}
            self._save()

    def _epoch(self, epoch: int) -> None:
        steps = len(self.batches)
        start = int(self.step.number) - epoch * steps
        if start == 0:
            self.model.reset_metrics()
            self._call("on_epoch_begin", epoch, {})
        if start == steps:   # interrupted between the last step and the end of the epoch
            self.logs.update({m.name: float(m.result()) for m in self.model.metrics})
        source = Ahead(self.batches.epoch(epoch, start)) if start < steps else None
        bar = tqdm(total=steps, initial=start, disable=not self.progress, desc=self._title(epoch),
                   mininterval=0.5 if sys.stderr.isatty() else 20, dynamic_ncols=True)
        try:
            for number in range(start, steps):
                self._one_step(number, source)
                bar.update()
                self._show(bar, number + 1 == steps)
        finally:
            bar.close()
            if source:
                source.close()

    def _one_step(self, number: int, source: Ahead) -> None:
        began = time.perf_counter()
        batch = source.next()
        self.history.data_wait += time.perf_counter() - began
        self._call("on_train_batch_begin", number, {})
        logs = {key: float(value) for key, value in self.step(batch).items()}
        self.history.step_seconds += time.perf_counter() - began
        self._refuse_infinite(logs, number)
        self.logs = logs
        self._call("on_train_batch_end", number, logs)
        self.logs = _plain(logs)
        if self.folder and self.timer.due():
            self._save()

    def _refuse_infinite(self, logs: dict, number: int) -> None:
        if not math.isfinite(logs.get("loss", 0.0)):
            raise InputError(f"the loss became {logs['loss']}", f"epoch {self._number()}, step "
                             f"{number + 1}", "lower the learning rate or look at the data there")

    def _number(self) -> int:
        return len(self.history.epochs) + 1

    def _title(self, epoch: int) -> str:
        return f"{self.history.name} epoch {epoch + 1}/{self.epochs}".strip()

    def _show(self, bar: tqdm, last: bool) -> None:
        if last or time.perf_counter() - getattr(bar, "shown", 0) > 0.5:
            bar.set_postfix({key: f"{value:.4g}" for key, value in self.logs.items()
                             if isinstance(value, (int, float))}, refresh=last)
            bar.shown = time.perf_counter()

    def _evaluate(self) -> dict:
        """The evaluation's values; a bare number goes under the monitor's name."""
        if self.evaluate is None:
            return {}
        values = self.evaluate(self.model)
        if not isinstance(values, Mapping):
            values = {self.monitor or "score": values}
        values = {key: float(value) for key, value in values.items()}
        if self.monitor is not None and self.monitor not in values:
            raise ValueError(f"monitor {self.monitor!r} is not among {', '.join(values)}")
        self.history.monitor = self.monitor or next(iter(values))
        return values

    def _keep_best(self, record: dict) -> None:
        """Keeps the weights if the monitored value is better than all before."""
        if self.evaluate is None:
            return
        value, best = record["val_" + self.history.monitor], self.history.best
        better = best is None or (value > best if self.mode == "max" else value < best)
        if better:
            self.history.best, self.history.best_epoch = value, record["epoch"]
            if self.folder:
                self.folder.save_weights(self.model, record)
            else:
                self.best_weights = self.model.get_weights()
        if self.progress:
            tqdm.write(f"{self._title(record['epoch'] - 1)}: {self.history.monitor} {value:.4f}, "
                       f"best {self.history.best:.4f} (epoch {self.history.best_epoch})",
                       file=sys.stderr)

    def _finish(self, settings: dict) -> None:
        """Leaves the best weights (the last ones without evaluation) in model and folder."""
        self._call("on_train_end", {})
        self._tick()
        if self.folder:
            if self.evaluate is None:
                self.folder.save_weights(self.model, {})
            self.folder.finish(self.model, settings, asdict(self.history))
        elif self.best_weights is not None:
            self.model.set_weights(self.best_weights)

    def _save(self) -> None:
        if self.state is not None:
            self._tick()
            with self.timer.saving():
                self.state.save(self.folder.state, {
                    **asdict(self.history), "logs": self.logs,
                    "stopped": bool(self.model.stop_training)})

    def _tick(self) -> None:
        now = time.perf_counter()
        self.history.seconds += now - self.mark
        self.mark = now

    def _call(self, hook: str, *args) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(*args)


def _plain(logs: dict) -> dict:
    """Numbers as JSON can carry them: callbacks put numpy's and TensorFlow's into the logs."""
    return {key: value if isinstance(value, (int, float, str)) else float(value)
            for key, value in logs.items()}

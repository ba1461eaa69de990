"""The pre-training loop: masked language model over TFRecord shards, resumable to the bit.

Step n is a function of the weights, the optimizer's state and (seed, n): the data order, the
masks and the learning rate are computed from the step number, and there is no dropout. So what
has to be saved is small, and an interrupted run ends at the weights of an uninterrupted one.

Metrics count masked positions only (kexue.fm 7758).
"""

import json
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from bert_theseus.errors import InputError
from bert_theseus.results import replace_file
from bert_theseus.wobert.masking import mask_tokens
from bert_theseus.wobert.mlm import MaskedLanguageModel, masked_metrics
from bert_theseus.wobert.optimizer import Accumulator, AdamW, LearningRate
from bert_theseus.wobert.records import batches, unseen_batches

log = logging.getLogger(__name__)
_SCALAR = tf.compat.v1.SummaryMetadata(  # what tf.summary.scalar writes, without TensorBoard
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"))


@dataclass(frozen=True)
class Recipe:
    """The settings of a run.

    steps:       optimizer updates in all.
    batch_size:  sequences of a micro step; an update sees batch_size · accumulate of them.
    maxlen:      tokens a sequence is padded to.
    learning_rate, warmup, decay: see :class:`LearningRate`.
    whole_word:  mask words as a whole (the records must have been written with words).
    rate:        share of tokens predicted.
    causal_steps: so many steps at the beginning predict the next token instead, at half of the
                 positions: three times as many predictions for the same work, which takes a
                 model from scratch over its first plateau.
    seed:        of order and masks.
    """

    steps: int
    batch_size: int = 32
    accumulate: int = 1
    maxlen: int = 128
    learning_rate: float = 1e-3
    warmup: int = 100
    decay: int | None = None
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    whole_word: bool = False
    rate: float = 0.15
    causal_steps: int = 0
    seed: int = 42


class Pretrainer:
    """Trains a :class:`MaskedLanguageModel` on the records of a folder.

    mlm:          the model, its weights drawn or loaded.
    records:      folder written by ``write_records``.
    recipe:       the settings.
    mask_id, ordinary_ids: see ``mask_tokens``.
    output_dir:   gets ``state.npz`` (to resume), ``metrics.jsonl`` and TensorBoard's files.

    After ``run`` the model holds the trained weights; ``metrics`` is the list that stands in
    ``metrics.jsonl``: dictionaries with step, loss, accuracy, tokens_per_second, seconds, and
    unseen_loss, unseen_accuracy where the held-out text was measured.
    """

    def __init__(self, mlm: MaskedLanguageModel, records, recipe: Recipe, mask_id: int,
                 ordinary_ids, output_dir):
        self.mlm, self.records, self.recipe = mlm, Path(records), recipe
        self.mask_id, self.ordinary_ids = mask_id, tf.constant(ordinary_ids, tf.int32)
        self.output_dir = Path(output_dir)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.optimizer = AdamW(mlm.weights, recipe.weight_decay, beta_2=0.98,
                               clip_norm=recipe.clip_norm)
        self.accumulator = Accumulator(mlm.weights) if recipe.accumulate > 1 else None
        self.rate = LearningRate(recipe.learning_rate, recipe.steps, recipe.warmup, recipe.decay)
        self.step, self.seconds, self.metrics = 0, 0.0, []
        shape = tf.TensorSpec([None, recipe.maxlen], tf.int32)
        seed, scalar = tf.TensorSpec([2], tf.int32), tf.TensorSpec([], tf.float32)
        self._micro = {causal: tf.function(
            lambda batch, seed, rate, causal=causal: self._micro_step(batch, seed, rate, causal),
            input_signature=[shape, seed, scalar]) for causal in (False, True)}
        self._update = tf.function(self._apply_sums, input_signature=[scalar, scalar])
        self._measure = tf.function(self._measure_batch, input_signature=[shape, seed])

    def run(self, save_seconds: float = 120.0, report_steps: int = 50, unseen_steps: int = 1000,
            on_save: Callable[["Pretrainer"], object] | None = None) -> list[dict]:
        """Trains from ``self.step`` to the end; saves every ``save_seconds`` and on a signal.

        SIGTERM and Ctrl-C save the state and then end the run with KeyboardInterrupt.
        """
        report, saved = _Report(self), time.monotonic()
        micro = self.recipe.accumulate
        data = batches(self.records, self.recipe.batch_size, self.recipe.maxlen,
                       self.recipe.seed, self.step * micro)
        with _Signals() as stopped:
            while self.step < self.recipe.steps:
                report.add(self._train_on([next(data) for _ in range(micro)]))
                self.step += 1
                last = self.step == self.recipe.steps
                measure = last or (unseen_steps and self.step % unseen_steps == 0)
                if self.step % report_steps == 0 or measure:
                    report.write(self.unseen() if measure else {})
                if last or stopped() or time.monotonic() - saved > save_seconds:
                    self.save()
                    saved = time.monotonic()
                    if on_save is not None:
                        on_save(self)
                if stopped():
                    raise KeyboardInterrupt
        return self.metrics

    def unseen(self) -> dict:
        """Loss and accuracy over the masked positions of the held-out text, same masks always."""
        total, hits, count = 0.0, 0.0, 0
        for index, batch in enumerate(unseen_batches(self.records, 64, self.recipe.maxlen)):
            loss, hit, masked = self._measure(batch, tf.constant([0, index], tf.int32))
            total, hits, count = total + float(loss), hits + float(hit), count + int(masked)
        if not count:
            return {}
        return {"unseen_loss": total / count, "unseen_accuracy": hits / count,
                "unseen_masked": count}

    def save(self) -> None:
        """Writes ``state.npz``, whole or not at all."""
        variables = [*self.mlm.weights, *self.optimizer.state()]
        arrays = {f"v{i}": variable.numpy() for i, variable in enumerate(variables)}
        record = json.dumps({"step": self.step, "seconds": self.seconds,
                             "metrics": self.metrics, "fixed": self._fixed()})
        replace_file(self.output_dir / "state.npz",
                     lambda beside: np.savez(beside, record=np.array(record), **arrays))

    def restore(self) -> bool:
        """Goes back to the saved state; False where there is none.

        The number of steps and the decay may differ from the saved run's, nothing else.
        """
        path = self.output_dir / "state.npz"
        if not path.is_file():
            return False
        with np.load(path) as state:
            record = json.loads(str(state["record"]))
            for name, value in record["fixed"].items():
                if self._fixed().get(name) != value:
                    raise InputError(f"the run was started with {name}={value}", str(path),
                                     "resume with the same settings, or use a new --output_dir")
            for i, variable in enumerate([*self.mlm.weights, *self.optimizer.state()]):
                variable.assign(state[f"v{i}"])
        self.step, self.seconds = record["step"], record["seconds"]
        self.metrics = record["metrics"]
        return True

    def _fixed(self) -> dict:
        kept = {k: v for k, v in vars(self.recipe).items() if k not in ("steps", "decay")}
        index = json.loads((self.records / "index.json").read_text(encoding="utf-8"))
        return {**kept, "records": index["fingerprint"]}

    def _train_on(self, micro_batches) -> tf.Tensor:
        """One update; returns loss, hits, masked positions and tokens, summed."""
        rate, micro = self.rate(self.step), self._micro[self.step < self.recipe.causal_steps]
        sums = tf.zeros([4])
        for index, batch in enumerate(micro_batches):
            seed = tf.constant([self.recipe.seed, self.step * len(micro_batches) + index + 1])
            sums += micro(batch, seed, tf.constant(rate, tf.float32))
        if self.accumulator is not None:
            self._update(sums[2], tf.constant(rate, tf.float32))
        return sums

    def _micro_step(self, batch, seed, rate, causal):
        forward = self._forward_causal if causal else self._forward
        with tf.GradientTape() as tape:
            loss, hits, masked = forward(batch, seed, training=True)
            mean = loss / tf.maximum(masked, 1.0)
        if self.accumulator is None:
            self.optimizer.apply(tape.gradient(mean, self.mlm.weights), rate)
        else:
            self.accumulator.add(tape.gradient(loss, self.mlm.weights))
        tokens = tf.math.count_nonzero(batch, dtype=tf.float32)
        return tf.stack([loss, hits, masked, tokens])

    def _apply_sums(self, masked, rate) -> None:
        sums = self.accumulator.take()
        self.optimizer.apply([total / tf.maximum(masked, 1.0) for total in sums], rate)

    def _measure_batch(self, batch, seed):
        return tf.stack(self._forward(batch, seed, training=False))

    def _forward(self, batch, seed, training):
        continues = batch < 0 if self.recipe.whole_word else None
        inputs, positions, labels = mask_tokens(
            tf.abs(batch), seed, self.mask_id, self.ordinary_ids, self.recipe.rate, continues)
        logits = self.mlm.logits(inputs, positions, training)
        loss, hits = masked_metrics(logits, labels)
        return loss, hits, tf.cast(tf.size(labels), tf.float32)

    def _forward_causal(self, batch, seed, training):
        ids = tf.abs(batch)
        labels = tf.pad(ids[:, 1:], [[0, 0], [0, 1]])  # the token behind each position
        chosen = (tf.random.stateless_uniform(tf.shape(ids), seed) < 0.5) & (labels > 0)
        positions = tf.cast(tf.where(tf.reshape(chosen, [-1]))[:, 0], tf.int32)
        labels = tf.gather(tf.reshape(labels, [-1]), positions)
        logits = self.mlm.logits(ids, positions, training, causal=True)
        loss, hits = masked_metrics(logits, labels)
        return loss, hits, tf.cast(tf.size(labels), tf.float32)


class _Report:
    """Adds up between two reports; writes a line to log, metrics.jsonl and TensorBoard."""

    def __init__(self, trainer: Pretrainer):
        self.trainer, self.sums = trainer, []
        self.since = time.monotonic()
        self.board = tf.summary.create_file_writer(str(trainer.output_dir / "tensorboard"))
        self.path = trainer.output_dir / "metrics.jsonl"
        text = "".join(json.dumps(line) + "\n" for line in trainer.metrics)
        replace_file(self.path, lambda beside: beside.write_text(text, encoding="utf-8"))

    def add(self, sums: tf.Tensor) -> None:
        self.sums.append(sums)

    def write(self, unseen: dict) -> None:
        trainer = self.trainer
        loss, hits, masked, tokens = (float(x) for x in tf.add_n(self.sums).numpy())
        elapsed = time.monotonic() - self.since
        trainer.seconds += elapsed
        masked = max(masked, 1.0)
        line = {"step": trainer.step, "loss": loss / masked, "accuracy": hits / masked,
                "tokens_per_second": tokens / elapsed, "seconds": trainer.seconds, **unseen}
        trainer.metrics.append(line)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        with self.board.as_default(step=trainer.step):
            for name, value in line.items():
                tf.summary.write(name, tf.constant(float(value)), metadata=_SCALAR)
        self.board.flush()
        log.info(_text(line, trainer.recipe.steps))
        self.sums, self.since = [], time.monotonic()


def _text(line: dict, steps: int) -> str:
    text = (f"step {line['step']}/{steps}  loss {line['loss']:.3f}  masked accuracy "
            f"{line['accuracy']:.3f}  {line['tokens_per_second']:.0f} tokens/s")
    if "unseen_loss" in line:
        text += f"  unseen: {line['unseen_loss']:.3f} {line['unseen_accuracy']:.3f}"
    return text


class _Signals:
    """Within it, SIGTERM and SIGINT are noted; ``stopped()`` says whether one came."""

    def __enter__(self):
        self.came = False
        self.old = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.old[number] = signal.signal(number, self._note)
        except ValueError:  # not in the main thread: signals are the caller's business
            self.old = {}
        return lambda: self.came

    def __exit__(self, *exception):
        for number, handler in self.old.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.came = True

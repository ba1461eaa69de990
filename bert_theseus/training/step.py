"""One training step as one compiled function, for batches of any length."""

import numpy as np
import tensorflow as tf

from bert_theseus.backend import keras
from bert_theseus.training.randomness import draws_by_step, unrepeatable_operations


class TrainingStep:
    """``model.train_step`` compiled once: every axis of the batch may vary.

    model: a compiled Keras model; its own ``train_step`` is honoured.
    batch: an example of what the step will be called with.
    seed:  with the step's number it determines dropout.

    ``number`` counts the steps done. It is raised by the compiled function itself, so that it and
    the weights never disagree, whenever the program is interrupted.
    """

    def __init__(self, model, batch, seed: int):
        self.number = tf.Variable(0, dtype="int64", trainable=False, name="step")
        self.model, self.traces = model, 0
        create_variables(model, batch)
        spec = tf.nest.map_structure(
            lambda x: tf.TensorSpec([None] * np.ndim(x), np.asarray(x).dtype), batch)

        def step(data):
            self.traces += 1
            with draws_by_step(seed, self.number):
                logs = model.train_step(data)
            self.number.assign_add(1)
            return logs

        self._function = tf.function(step, input_signature=[spec])
        self.concrete = self._function.get_concrete_function()

    def __call__(self, batch) -> dict:
        return self._function(batch)

    def variables(self) -> list[tf.Variable]:
        """Everything the step reads or writes, and the model's weights, each once.

        The order is the same in every process: ``graph.variables`` comes out of a set, so the
        order in which the step captured them is taken instead.
        """
        model, owners = self.model, {id(v.handle): v for v in self.concrete.graph.variables}
        captured = [owners[id(x)] for x in self.concrete.captured_inputs if id(x) in owners]
        found = [self.number, *model.weights, *_optimizer_variables(model.optimizer),
                 *(v for metric in model.metrics for v in metric.variables), *captured]
        return list({id(variable): variable for variable in found}.values())

    def unrepeatable(self) -> list[str]:
        """What :meth:`variables` cannot hold: random operations, and resources of other kinds."""
        handles = {id(v.handle) for v in self.variables()}
        resources = [f"a resource {x!r}" for x in self.concrete.captured_inputs
                     if x.dtype == tf.resource and id(x) not in handles]
        return unrepeatable_operations(self.concrete) + resources


def create_variables(model, batch) -> None:
    """Makes optimizer slots and metrics before the step is traced.

    Where a step makes variables at its first run, TensorFlow traces it twice, which for a deep
    model costs seconds. Only models with one output and one target are made ready; others work
    all the same.
    """
    optimizer = model.optimizer
    make = getattr(optimizer, "_create_all_weights", None) or getattr(optimizer, "build", None)
    if make is not None:
        make(model.trainable_variables)
    outputs = model.outputs
    if not outputs or len(outputs) != 1 or len(batch) < 2 or isinstance(batch[1], (list, dict)):
        return
    target = keras.Input(np.shape(batch[1])[1:], dtype=np.asarray(batch[1]).dtype.name)
    for part, arguments in ((model.compiled_loss, (outputs[0],)),
                            (model.compiled_metrics, (outputs[0], target))):
        if part is not None and not part.built:
            part.build(*arguments)


def _optimizer_variables(optimizer) -> list[tf.Variable]:
    variables = optimizer.variables
    return list(variables() if callable(variables) else variables)


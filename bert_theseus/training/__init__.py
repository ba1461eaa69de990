"""Training that can be killed at any step and goes on to the very same weights.

    history = fit(model, train, epochs=5, folder="output/predecessor",
                  evaluate=lambda model: evaluate(task, model, dev), resume=True)

A step is one compiled function of (state, batch), and the batch is a function of (seed, epoch,
step), so

    weights after n steps = f(weights at the start, seed, n)

holds whether or not the program was interrupted in between. For that the state must hold all that
the step remembers: not only weights, but optimizer slots, running metrics, schedules and random
generators; it is read off the compiled function itself. Dropout, whose state TensorFlow hides, is
drawn from (seed, step) instead. Keras' own ``fit`` continues with another data order and other
dropout masks.
"""

from bert_theseus.backend import set_seed
from bert_theseus.training.history import History
from bert_theseus.training.loop import fit
from bert_theseus.training.state import load_weights, save_weights
from bert_theseus.training.step import TrainingStep

__all__ = ["History", "TrainingStep", "fit", "load_weights", "save_weights", "set_seed"]

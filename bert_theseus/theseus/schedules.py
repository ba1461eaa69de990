"""How the replacing rate p moves with the step, and the callback that moves it.

    constant (article):            p = rate
    linear curriculum (paper):     p = min(1, k·step + b)

A schedule is any callable step → rate in [0, 1]; step counts from 0.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from bert_theseus.backend import keras
from bert_theseus.errors import InputError


@dataclass(frozen=True)
class ConstantRate:
    """p = rate at every step.

    >>> ConstantRate(0.5)(1000)
    0.5
    """

    rate: float = 0.5

    def __post_init__(self):
        _in_unit_interval(self.rate, "rate")

    def __call__(self, step: int) -> float:
        return float(self.rate)

    get_config = asdict


@dataclass(frozen=True)
class LinearRate:
    """p = min(1, k·step + b), arXiv 2002.02925 section 3.3: k > 0 the slope per step, b the start.

    >>> LinearRate(k=0.0006, b=0.3)(1000)
    0.9
    """

    k: float
    b: float = 0.3

    def __post_init__(self):
        _in_unit_interval(self.b, "b")
        if not self.k > 0:
            raise InputError(f"the slope k of a linear replacing rate must be positive, not "
                             f"{self.k}", "LinearRate", "use ConstantRate for k = 0")

    def __call__(self, step: int) -> float:
        return float(round(min(1.0, self.k * step + self.b), 12))

    get_config = asdict


def _in_unit_interval(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise InputError(f"a replacing rate lies between 0 and 1, not {value}", name)
    return value


def as_schedule(rate: float | Callable[[int], float]) -> Callable[[int], float]:
    """A number becomes a :class:`ConstantRate`; a callable stays what it is."""
    return rate if callable(rate) else ConstantRate(rate)


def check_schedule(schedule: Callable[[int], float]) -> None:
    """Refuses a schedule that starts at 1: then nothing is ever drawn from the predecessor, and
    the replacing stage would be plain fine-tuning of the successor under another name."""
    if schedule(0) >= 1:
        raise InputError(f"the replacing rate is {schedule(0):g} at the first step",
                         "replacing rate",
                         "start below 1, or fine-tune the successor directly")


class ReplacingRateScheduler(keras.callbacks.Callback):
    """Sets the replacing rate of a Theseus model before every training step.

    The step is the optimizer's own counter, so a resumed run goes on at the right rate. The rate
    is put into the logs as ``replacing_rate``.

    >>> callback = ReplacingRateScheduler(LinearRate(k=1e-3, b=0.1))
    """

    def __init__(self, schedule: float | Callable[[int], float]):
        super().__init__()
        self.schedule = as_schedule(schedule)
        self.rate = None

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the rate of this step; InputError outside of [0, 1]."""
        step = int(self.model.optimizer.iterations)
        self.rate = _in_unit_interval(float(self.schedule(step)), f"the schedule at step {step}")
        self.model.replacing_rate = self.rate

    def on_train_batch_end(self, batch, logs=None):
        """Puts the rate of this step into the logs."""
        if logs is not None:
            logs["replacing_rate"] = self.rate

    def on_epoch_end(self, epoch, logs=None):
        """Puts the rate of the last step into the logs."""
        self.on_train_batch_end(epoch, logs)

"""What a training run leaves: its epochs, its best value, its times."""

from dataclasses import dataclass, field


@dataclass
class History:
    """What a run leaves.

    epochs:  one dictionary an epoch: "epoch" (from 1), "loss" and the model's metrics over the
             training data, "val_…" of the evaluation, "seconds".
    best:    best value of the monitored metric, ``best_epoch`` its epoch; None without evaluation.
    seconds: of the whole run, interruptions left out. data_wait: seconds spent waiting for input.
    """

    name: str = ""
    monitor: str | None = None
    epochs: list[dict] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    step_seconds: float = 0.0
    data_wait: float = 0.0

    @property
    def data_wait_share(self) -> float:
        """Share of the training steps' time that was spent waiting for input."""
        return self.data_wait / self.step_seconds if self.step_seconds else 0.0

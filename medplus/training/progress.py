"""Where a training stands: what is saved, so that it can go on from there."""

from __future__ import annotations

import math
from dataclasses import field

from pydantic.dataclasses import dataclass

from medplus.training.history import EpochRow


@dataclass
class TrainingProgress:
    """The counters of a training.

    Attributes
    ----------
    epoch : int
        Finished epochs.
    step : int
        Finished steps of the epoch under way.
    loss_sum : float
        Sum of the losses of the samples seen in the epoch under way (on this device).
    epoch_seconds, seconds : float
        Time spent on the epoch under way, and on all.
    energy_joules : float or None
        Energy of the devices in this time; None if some of it was not measured.
    best_epoch : int
        The epoch of the best val loss, from 1; 0 before there is one.
    waited : int
        Epochs since then.
    resumed : int
        How often training went on from a saved state.
    history : list of EpochRow
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    energy_joules: float | None = 0.0
    best_epoch: int = 0
    best_loss: float = math.inf
    waited: int = 0
    resumed: int = 0
    history: list[EpochRow] = field(default_factory=list)

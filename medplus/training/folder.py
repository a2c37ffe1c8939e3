"""The folder of a run under way: its best network and its last state, always a matching pair."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from medplus.backbones.finetuned import (
    NETWORK_FILE,
    NetworkDescription,
    read_network,
    write_network,
)
from medplus.errors import MedplusError, RunError, writing
from medplus.run.ledger import PARTIAL
from medplus.training.checkpoint import TrainingState
from medplus.training.history import draw_learning_curve, write_history
from medplus.training.lora import merged_state
from medplus.training.progress import TrainingProgress

STATE_FILE = "last.safetensors"
HISTORY_FILE = "history.csv"
CURVE_FILE = "learning_curve.png"
_SAVE_EVERY_S = 30.0


def partial_folder(folder: Path) -> Path:
    """Return where a run lies until it is finished."""
    return folder.with_name(folder.name + PARTIAL)


class RunFolder:
    """What a training writes as it goes.

    The best network is held in memory and written together with the state that knows of it, so
    that whatever moment the process dies at, the two on the disk belong together. Writing now and
    then instead of after every epoch costs nothing: what is lost is computed again, the same.

    Parameters
    ----------
    path : Path
        The folder; it is made if need be.
    description : NetworkDescription
        What the network file says of itself; epoch and val loss are filled in.
    identity : str
        What the state belongs to: the hash of the run's configuration.
    """

    def __init__(self, path: Path, description: NetworkDescription, identity: str) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._description = description
        self._identity = identity
        self._best: dict[str, torch.Tensor] | None = None
        self._saved = time.monotonic()

    @property
    def subject(self) -> str:
        """What is trained on what, for a person to read."""
        own = self._description
        return f"{own.dataset} {own.size} px · {own.backbone}"

    def keep_best(self, network: nn.Module, epoch: int, val_loss: float) -> None:
        """Remember the weights of a network as the best so far, with its updates merged."""
        self._best = merged_state(network)
        found = {"epoch": epoch, "val_loss": val_loss}
        self._description = self._description.model_copy(update=found)

    def best(self) -> Mapping[str, torch.Tensor]:
        """Return the weights of the best network."""
        return self._best if self._best is not None else read_network(self.path)[1]

    @property
    def is_due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._saved > _SAVE_EVERY_S

    def save(self, state: TrainingState, progress: TrainingProgress) -> None:
        """Write the state, and the best network if there is a new one.

        Raises
        ------
        RunError
            If they cannot be written.
        """
        with self._explained():
            if self._best is not None:
                write_network(self._new_best(progress.best_epoch), self._best, self._description)
            state.save(self.path / STATE_FILE, asdict(progress), self._identity)
            self._adopt_best(progress.best_epoch)
            if progress.history:
                write_history(self.path / HISTORY_FILE, progress.history)
                title = f"{self.subject} · {self._description.run_id}"
                draw_learning_curve(self.path / CURVE_FILE, progress.history, title)
        self._best = None
        self._saved = time.monotonic()

    def keep_only_best(self) -> None:
        """Write the best network and drop the state: training cannot go on from where it is."""
        epoch = self._description.epoch
        if self._best is not None:
            with self._explained():
                write_network(self._new_best(epoch), self._best, self._description)
        (self.path / STATE_FILE).unlink(missing_ok=True)
        self._adopt_best(epoch)

    def restore(self, state: TrainingState) -> TrainingProgress | None:
        """Bring everything to the state that was saved last; None if there is none.

        Raises
        ------
        RunError
            If it is damaged, belongs to another run or network, or its best network is lost.
        """
        if not (self.path / STATE_FILE).exists():
            return None
        progress = TrainingProgress(**state.load(self.path / STATE_FILE, self._identity))
        self._adopt_best(progress.best_epoch)
        if progress.best_epoch:
            self._check_best()
        return progress

    def _check_best(self) -> None:
        """Find out now, not at the end of the training, whether its best network is still there."""
        try:
            read_network(self.path)
        except MedplusError:
            raise RunError(
                f"{self.path / NETWORK_FILE}, the best network of the interrupted run, is missing "
                "or damaged; use --no-resume to start again from the beginning"
            ) from None

    def _explained(self) -> AbstractContextManager[None]:
        return writing(
            f"the run {self.path}",
            "free space there, then run the same command again: it goes on from the last state "
            "saved",
        )

    def _new_best(self, epoch: int) -> Path:
        return self.path / f"best-{epoch}.safetensors"

    def _adopt_best(self, epoch: int) -> None:
        """Let the network that the saved state speaks of become the best, and no other."""
        with suppress(FileNotFoundError):  # adopted already, perhaps by another process
            self._new_best(epoch).replace(self.path / NETWORK_FILE)
        for stray in self.path.glob("best-*.safetensors"):
            stray.unlink(missing_ok=True)

"""Weights & Biases: its server, or files under the root of the runs (``WANDB_MODE=offline``)."""

from __future__ import annotations

import io
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.rank_zero import rank_zero_only

from medplus.errors import RunError, first_line
from medplus.training.tracking.logger import RunLogger
from medplus.training.tracking.run import TrackedRun, finite, flat

_PROJECT = "medplus"


class WandbTracker(RunLogger):
    """Tells Weights & Biases of one run, through its own client.

    ``WANDB_MODE``, ``WANDB_PROJECT`` (else ``medplus``), ``WANDB_DIR`` and the client's other
    variables are honoured.

    Parameters
    ----------
    run : TrackedRun
    """

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self._wandb: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The client's run; the first use starts it, or goes on with it.

        Raises
        ------
        RunError
            If the client is not logged in, or cannot reach its server.
        """
        if self._wandb is None:
            self._wandb = self._open()
        return self._wandb

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Add or change hyperparameters."""
        self.experiment.config.update(flat(params), allow_val_change=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Add the metrics of one step, unless the run has gone beyond it before a resumption."""
        if step is None or step >= self.experiment.step:
            self.experiment.log(finite(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the run, as failed unless it is a success."""
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if status == "success" else 1)
            self._wandb = None

    def _open(self) -> Any:
        import wandb

        identity = self._run.identity()
        try:
            with _nobody_to_ask():
                return wandb.init(
                    project=os.environ.get("WANDB_PROJECT") or _PROJECT,
                    group=os.environ.get("WANDB_RUN_GROUP") or self.name,
                    name=self.version,
                    id=identity,
                    resume="allow",
                    dir=os.environ.get("WANDB_DIR") or self._run.root,
                    config=flat(self._run.config),
                    # Its capture of the terminal would record every frame of the progress bar.
                    settings=wandb.Settings(console="off"),
                )
        except Exception as error:
            raise RunError(
                f"wandb cannot start: {first_line(error).rstrip('.')}; log in with: wandb login, "
                "or keep the data on this machine with: WANDB_MODE=offline"
            ) from error


@contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """Let the client find no terminal to ask for a login at: a training must not wait for that."""
    stdin = sys.stdin
    sys.stdin = io.StringIO()
    try:
        yield
    finally:
        sys.stdin = stdin

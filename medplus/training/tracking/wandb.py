"""Weights & Biases: its server, or files under the root of the runs (``WANDB_MODE=offline``)."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from medplus.errors import RunError, first_line
from medplus.training.tracking.tracker import Status, Tracker

_PROJECT = "medplus"


class WandbTracker(Tracker):
    """Tells Weights & Biases through its own client.

    ``WANDB_MODE``, ``WANDB_PROJECT`` (else ``medplus``), ``WANDB_DIR`` and the client's other
    variables are honoured.
    """

    _wandb: Any

    def start(self) -> None:  # noqa: D102
        import wandb

        try:
            with _nobody_to_ask():
                self._wandb = wandb.init(
                    project=os.environ.get("WANDB_PROJECT") or _PROJECT,
                    group=os.environ.get("WANDB_RUN_GROUP") or self.group,
                    name=self.run_id,
                    id=self.identity(),
                    resume="allow",
                    dir=os.environ.get("WANDB_DIR") or self.root,
                    config=self.parameters,
                    # Its capture of the terminal would record every frame of the progress bar.
                    settings=wandb.Settings(console="off"),
                )
        except Exception as error:
            raise RunError(
                f"wandb cannot start: {first_line(error).rstrip('.')}; log in with: wandb login, "
                "or keep the data on this machine with: WANDB_MODE=offline"
            ) from error

    def _log(self, metrics: dict[str, float], step: int) -> None:
        if step >= self._wandb.step:  # else it was told before a resumption
            self._wandb.log(metrics, step=step)

    def finish(self, status: Status) -> None:  # noqa: D102
        self._wandb.finish(exit_code=0 if status == "success" else 1)


@contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """Let the client find no terminal to ask for a login at: a training must not wait for that."""
    stdin = sys.stdin
    sys.stdin = io.StringIO()
    try:
        yield
    finally:
        sys.stdin = stdin


tracker = WandbTracker

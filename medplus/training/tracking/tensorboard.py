"""TensorBoard: event files in the run's folder; see them with ``tensorboard --logdir runs``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from lightning_fabric.utilities.rank_zero import rank_zero_only

from medplus.training.tracking.run import TrackedRun, finite, flat


class TensorBoardTracker(TensorBoardLogger):
    """Fabric's logger, made to go on where a killed process was.

    Parameters
    ----------
    run : TrackedRun
    """

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run.folder, name="", version="tensorboard")
        self._parameters = flat(run.config)

    @property
    def log_dir(self) -> str:
        """The folder of the event files; unlike in Fabric, `$` and `~` stand for themselves."""
        return f"{self.root_dir}/tensorboard"

    @rank_zero_only
    def log_hyperparams(
        self,
        params: dict[str, Any] | Namespace,
        metrics: dict[str, Any] | None = None,
        step: int | None = None,
    ) -> None:
        """Remember hyperparameters; they are written with the first metrics."""
        self._parameters |= flat(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Write the metrics of one step to the disk."""
        known = finite(metrics)
        if self._experiment is None:
            # What was logged after the state that the run goes on from happens once more: from
            # this step on, earlier files are to be ignored.
            self._kwargs["purge_step"] = step
            self._write_parameters(known, step)
        super().log_metrics(known, step)
        self.save()

    def _write_parameters(self, metrics: dict[str, float], step: int | None) -> None:
        """Write the hyperparameters, with the names of the metrics that belong to them."""
        from torch.utils.tensorboard.summary import hparams

        writer = self.experiment._get_file_writer()
        for summary in hparams(self._parameters, metrics):  # type: ignore[no-untyped-call]
            writer.add_summary(summary, step)

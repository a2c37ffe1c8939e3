"""What our own loggers have in common."""

from __future__ import annotations

from lightning_fabric.loggers.logger import Logger

from medplus.training.tracking.run import TrackedRun


class RunLogger(Logger):
    """A logger of Fabric for one run.

    Parameters
    ----------
    run : TrackedRun
    """

    def __init__(self, run: TrackedRun) -> None:
        self._run = run

    @property
    def name(self) -> str:
        """The name of the group that the run belongs to."""
        return self._run.experiment

    @property
    def version(self) -> str:
        """The run's name."""
        return self._run.run_id

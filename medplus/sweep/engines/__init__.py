"""Engines start workers and tell of their deaths; what to do, the workers find out themselves."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from medplus.sweep.grid import Grid
from medplus.sweep.job import Place

if TYPE_CHECKING:
    from medplus.sweep.worker import Worker

LOOK_S = 1.0
"""How often engines look after their workers."""
PATIENCE_S = 60.0
"""How long workers that are interrupted may take to save what they can."""


class Death(NamedTuple):
    """What has ended a worker that did not end by itself."""

    worker: str
    cause: str


class Engine(ABC):
    """Starts workers somewhere; `medplus.sweep.conduct.Sweep` decides when.

    Attributes
    ----------
    workers : int
        How many work at once, as far as it is known.
    detached : bool
        Whether workers are left alone once they have been started.
    living : dict
        What the engine knows of the workers that it has started and that have not ended.
    """

    detached = False

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.living: dict[Any, Any] = {}

    @abstractmethod
    def start(self, grid: Grid, place: Place, most: int) -> None:
        """Start those workers that are missing, so that `most` work at most.

        Raises
        ------
        SweepError
            If they cannot start.
        """

    @abstractmethod
    def look(self) -> Iterator[Death]:
        """Wait about `LOOK_S`, and yield who has died.

        Raises
        ------
        SweepError
            If the workers are lost, or cannot go on.
        """

    @abstractmethod
    def stop(self) -> None:
        """Interrupt the workers that are left, wait until they have saved, and kill the rest."""


def worker_here(grid: Grid, place: Place, name: str, threads: int, wait: bool = True) -> Worker:
    """Make this process a worker's: it has so many threads, and SIGTERM interrupts it."""
    os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from medplus.sweep.worker import Worker  # only here, for its weight

    return Worker(grid, place, name, wait)

"""Engines start workers and look after them; what to do, the workers find out by themselves."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from medplus.sweep.grid import Grid
from medplus.sweep.job import Place

LOOK_S = 1.0
"""How often engines look after their workers."""
PATIENCE_S = 60.0
"""How long workers that are interrupted may take to save what they can."""


class Engine(Protocol):
    """Starts workers somewhere.

    Attributes
    ----------
    workers : int
        How many work at once, as far as it is known.
    """

    workers: int

    def run(self, grid: Grid, place: Place, most: int) -> Generator[None]:
        """Start workers, at most `most`, and look after them until the last one has ended.

        What ends a worker too early is noted in its claims. It yields about once a second; one
        that lets its workers go yields nothing. Closing the iterator, which an interrupt does, ends
        the workers: they save what they can.

        Raises
        ------
        SweepError
            If the workers cannot start, or are lost.
        """
        ...


def work(grid: Grid, place: Place, name: str, parent: int | None = None, wait: bool = True) -> None:
    """Be a worker; see `medplus.sweep.worker`, which is imported where it runs, for its weight."""
    from medplus.sweep.worker import Worker

    Worker(grid, place, name, parent, wait).run()

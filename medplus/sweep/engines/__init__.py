"""Engines start workers and look after them; what to do, the workers find out by themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medplus.errors import SweepError
from medplus.sweep.claims import ATTEMPTS, Claim, Claims
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


@dataclass(frozen=True)
class End:
    """The end of a worker.

    Attributes
    ----------
    cause : str
        What it has died of; empty where it has ended by itself.
    who : callable
        Tells its claims.
    certain : bool
        Whether it is known to be dead, or its silence must confirm it.
    """

    name: str
    cause: str
    who: Callable[[Claim], bool]
    certain: bool = True


def look_after(
    names: Iterable[str],
    start: Callable[[str], None],
    ended: Callable[[], Iterator[End]],
    place: Place,
) -> Generator[None]:
    """Start workers, and another one of its name where one dies, until all have ended.

    Parameters
    ----------
    names : iterable of str
    start : callable
        Starts a worker of a name.
    ended : callable
        Waits about `LOOK_S`, and yields what has ended.

    Raises
    ------
    SweepError
        If several in a row die before they have a job.
    """
    claims, living, idle = Claims(Path(place.runs)), [*names], 0
    for name in living:
        start(name)
    while living:
        for end in ended():
            if not end.cause:
                living.remove(end.name)
                continue
            idle = 0 if claims.bury(end.who, end.cause, end.certain) else idle + 1
            if idle >= ATTEMPTS:
                raise SweepError(f"workers die before they have a job: {end.cause}")
            start(end.name)
        yield


def prepare(threads: int) -> None:
    """Make this process a worker's: it has so many threads, and SIGTERM interrupts it."""
    os.environ.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def work(grid: Grid, place: Place, name: str, parent: int | None = None) -> None:
    """Be a worker; see `medplus.sweep.worker`, which is imported where it runs, for its weight."""
    from medplus.sweep.worker import Worker

    Worker(grid, place, name, parent).run()

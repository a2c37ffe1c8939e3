"""Engines: where a sweep's tasks run. All take the same tasks and tell the same events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from medplus.sweep.events import Event
from medplus.sweep.job import Place, Task


class Engine(Protocol):
    """Runs tasks somewhere.

    Attributes
    ----------
    workers : int
        How many tasks run at once, as far as it is known.
    """

    workers: int

    def run(self, tasks: Sequence[Task], place: Place) -> Iterator[Event]:
        """Run tasks, the first ones first, and yield what their workers tell.

        Every job of every task has an `Ended` event, but for those that an interrupt leaves.
        Closing the iterator, which an interrupt does, ends the workers: they save what they can.

        Raises
        ------
        SweepError
            If the engine cannot run, or is lost.
        """
        ...

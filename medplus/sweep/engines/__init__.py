"""Engines: where a sweep's tasks run. All take the same tasks and tell the same events."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from medplus.sweep.events import Event, Tell
from medplus.sweep.job import Place, Task


class Engine(Protocol):
    """Runs tasks somewhere.

    Attributes
    ----------
    workers : int
        How many tasks run at once, as far as it is known.
    """

    workers: int

    def run(self, tasks: Sequence[Task], place: Place) -> Generator[Event]:
        """Run tasks, the first ones first, and yield what their workers tell.

        Every job of every task has an `Ended` event, but for those that an interrupt leaves.
        Closing the iterator, which an interrupt does, ends the workers: they save what they can.

        Raises
        ------
        SweepError
            If the engine cannot run, or is lost.
        """
        ...


def perform(task: Task, place: Place, worker: str, tell: Tell) -> None:
    """Do a task as `medplus.sweep.work.perform` does, which is imported where it is called.

    It loads torch, which is for the workers only.
    """
    from medplus.sweep import work

    work.perform(task, place, worker, tell)

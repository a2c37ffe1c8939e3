"""What workers tell of themselves; every engine passes the same events on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from medplus.sweep.job import Job, Place, Task

Outcome = Literal["finished", "skipped", "failed", "held", "blocked"]
"""How a job ended: another sweep has finished it (skipped) or is doing it (held), or it needs a job
that has failed (blocked)."""


@dataclass(frozen=True)
class Started:
    """A worker has begun a job."""

    worker: str
    job: Job


@dataclass(frozen=True)
class Doing:
    """What a worker is doing within its job: how far, of how much."""

    worker: str
    text: str


@dataclass(frozen=True)
class Ended:
    """A job has ended.

    Attributes
    ----------
    seconds : float
        Wall time in the worker.
    message : str
        What went wrong, or who holds it.
    """

    worker: str
    job: Job
    outcome: Outcome
    seconds: float = 0.0
    message: str = ""


Event = Started | Doing | Ended
Tell = Callable[[Event], None]
Perform = Callable[[Task, Place, str, Tell], None]
"""Does a task at a place, as a worker of some name; see `medplus.sweep.work.perform`."""

"""A task that may have to be begun again, since its worker or its node can be lost."""

from __future__ import annotations

from dataclasses import replace

from medplus.sweep.events import Doing, Ended, Event, Outcome
from medplus.sweep.job import Job, Task


class Attempts:
    """What is known of a task, over all attempts at it.

    Whatever is heard, and however often, every job ends once.

    Attributes
    ----------
    number : int
        The attempt under way; what earlier ones still tell is not passed on.
    began : bool
        Whether this attempt has reached a worker.
    lost : int
        How many attempts were lost after they had begun.
    """

    def __init__(self, task: Task) -> None:
        self.number = 0
        self.began = False
        self.lost = 0
        self._task = task
        self._open = list(task.jobs)
        self._running: Job | None = None

    def begin(self, number: int) -> None:
        """Note that an attempt has reached a worker."""
        self.began = self.began or number == self.number

    def hear(self, number: int, event: Event) -> list[Event]:
        """Return what is new in an event that an attempt tells."""
        if number != self.number or not self._open:
            return []
        if isinstance(event, Doing):
            return [event]
        if event.job not in self._open:
            return []
        if isinstance(event, Ended):
            return self._end(event)
        self._running = event.job
        return [event]

    def lose(self) -> None:
        """Give up this attempt: it ended before its jobs did, through no fault of theirs."""
        self.lost += self.began
        self._close_attempt()

    def kill(self, worker: str, message: str) -> list[Event]:
        """End the job under way, which has ended its worker, as failed."""
        ended = self._end(Ended(worker, self.suspect, "failed", message=message))
        self._close_attempt()
        return ended

    @property
    def suspect(self) -> Job:
        """The job under way, or the next one."""
        return self._running or self._open[0]

    @property
    def task(self) -> Task | None:
        """What a further attempt is to do, if anything.

        A finished extraction is in it again: it ends at once, and tells the heads their store.
        """
        if not self._open:
            return None
        first = self._task.jobs[0]
        again = [first] if first.kind == "extract" and first not in self._open else []
        return replace(self._task, jobs=(*again, *self._open))

    def _end(self, ended: Ended) -> list[Event]:
        """Close a job, and with an extraction that is not finished, all that needs it."""
        self._open.remove(ended.job)
        self._running = None
        if ended.job.kind != "extract" or ended.outcome == "finished":
            return [ended]
        reason: Outcome = "held" if ended.outcome == "held" else "blocked"
        heads: list[Event] = [Ended(ended.worker, job, reason) for job in self._open]
        self._open.clear()
        return [ended, *heads]

    def _close_attempt(self) -> None:
        self.number += 1
        self.began = False
        self._running = None

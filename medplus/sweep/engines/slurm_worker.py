"""What an element of an array does on its node: its tasks, telling of them in a file.

The file lies on the shared file system and is read by the process that has submitted the array.
Every line is an event as JSON, written at once as a whole; a job is named by its id.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from medplus.sweep.desk import Desk
from medplus.sweep.events import Doing, Ended, Event, Started
from medplus.sweep.job import Job, Place, Task
from medplus.sweep.resources import cores

_KINDS = {kind.__name__: kind for kind in (Started, Doing, Ended)}


@dataclass(frozen=True)
class Element:
    """How an element itself stands.

    Attributes
    ----------
    state : {"begun", "saved", "over"}
        Saved means that it was interrupted and has kept what it could; over, that all is done.
    """

    worker: str
    host: str
    pid: int
    state: Literal["begun", "saved", "over"]


def to_line(event: Event | Element) -> bytes:
    """Return an event as a line of JSON."""
    values = {field.name: getattr(event, field.name) for field in fields(event)}
    if "job" in values:
        values["job"] = values["job"].id
    return json.dumps({"event": type(event).__name__, **values}).encode() + b"\n"


def from_lines(text: bytes, jobs: Mapping[str, Job]) -> Iterator[Event | Element]:
    """Yield the events of whole lines; a line that a full disk has cut off is passed over."""
    for line in text.splitlines():
        try:
            values = json.loads(line)
            kind = values.pop("event")
            if "job" in values:
                values["job"] = jobs[values["job"]]
            event = Element(**values) if kind == Element.__name__ else _KINDS[kind](**values)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        yield event


class Performance:
    """The callable that is sent to SLURM: performs a bundle of tasks.

    It may be run any number of times, since what is finished is passed over and what is begun is
    taken up again. Of SLURM's signals, submitit's (USR2, some time before the end) interrupts the
    work, lets it save, and then puts the element back into the queue; SIGTERM interrupts alone,
    since who sends it (a user, or SLURM that takes the node away) has decided what comes next.

    Parameters
    ----------
    tasks : list of Task
    place : Place
    events : str
        Path of the file of events.
    """

    def __init__(self, tasks: list[Task], place: Place, events: str) -> None:
        self._tasks = tasks
        self._place = place
        self.events = Path(events)

    def __call__(self) -> None:
        """Perform what is left of the bundle."""
        from submitit import JobEnvironment

        environment = JobEnvironment()
        worker = f"{environment.job_id} on {socket.gethostname()}"
        threads = os.environ.get("SLURM_CPUS_ON_NODE", str(cores()))
        os.environ.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        interruption = _Interruption(getattr(signal, f"SIG{environment.USR_SIG}"))
        try:
            self._work(worker)
        except KeyboardInterrupt:
            interruption.ignore_more()
            self._tell(Element(worker, socket.gethostname(), os.getpid(), "saved"))
            if interruption.requeue:
                self._requeue(worker, interruption)
            return
        interruption.ignore_more()
        self._tell(Element(worker, socket.gethostname(), os.getpid(), "over"))

    def checkpoint(self) -> Any:
        """Return what is to run when the element's turn comes again; submitit asks for it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _work(self, worker: str) -> None:
        from medplus.sweep.work import perform

        self._tell(Element(worker, socket.gethostname(), os.getpid(), "begun"))
        ended = {event.job.id for event in self._told() if isinstance(event, Ended)}
        for task in self._tasks:
            if not ended.issuperset(job.id for job in task.jobs):
                perform(task, self._place, worker, self._tell)

    def _requeue(self, worker: str, interruption: _Interruption) -> None:
        """Let submitit put the element back into the queue, which ends this process."""
        from submitit.core.utils import UncompletedJobError

        try:
            interruption.submitit_handler(interruption.number, None)
        except UncompletedJobError:
            job = self._job_under_way()
            if job is not None:
                message = (
                    "its time limit was over once more, and may not be extended again; give it "
                    "more time, or more requeues"
                )
                Desk(Path(self._place.runs)).record_death(
                    job, message, socket.gethostname(), os.getpid()
                )
                self._tell(Ended(worker, job, "failed", message=message))

    def _job_under_way(self) -> Job | None:
        job = None
        for event in self._told():
            if isinstance(event, Started):
                job = event.job
            elif isinstance(event, Ended) and event.job == job:
                job = None
        return job

    def _told(self) -> list[Event | Element]:
        jobs = {job.id: job for task in self._tasks for job in task.jobs}
        try:
            return list(from_lines(self.events.read_bytes(), jobs))
        except FileNotFoundError:
            return []

    def _tell(self, event: Event | Element) -> None:
        # Opened anew for each line: network file systems show a file to others once it is closed.
        file = os.open(self.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, to_line(event))
        finally:
            os.close(file)


class _Interruption:
    """Turns SLURM's signals into the interrupt that fine-tuning grants between two steps."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.requeue = False
        self.submitit_handler: Any = signal.getsignal(number)
        self._pid = os.getpid()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(number, self._give_notice)

    def _give_notice(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._pid:  # SLURM signals a process's children, too
            self.requeue = True
            signal.raise_signal(signal.SIGTERM)

    def ignore_more(self) -> None:
        """Be deaf from now on: the work has ended, and a requeued job is sent SIGTERM at once."""
        for number in (signal.SIGTERM, signal.SIGINT, self.number):
            signal.signal(number, signal.SIG_IGN)

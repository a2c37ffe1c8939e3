"""What workers do in tests of engines; imported by the worker processes, so nothing heavy."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from medplus.sweep.desk import Desk
from medplus.sweep.events import Doing, Ended, Started, Tell
from medplus.sweep.job import Job, Place, Task


def write_down(task: Task, place: Place, worker: str, tell: Tell) -> None:
    """Note each job's name, process and environment in a file of its own."""
    for job in begun(task, worker, tell):
        note = f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}"
        (Path(place.runs) / f"{job.id}.note").write_text(note)


def die_in_knn(task: Task, place: Place, worker: str, tell: Tell) -> None:
    """Be killed in every knn job."""
    for job in begun(task, worker, tell):
        if job.kind == "knn":
            os.kill(os.getpid(), signal.SIGKILL)


def die_in_extract(task: Task, place: Place, worker: str, tell: Tell) -> None:
    """Be killed in every extraction."""
    for job in begun(task, worker, tell):
        if job.kind == "extract":
            os.kill(os.getpid(), signal.SIGKILL)


def leave(task: Task, place: Place, worker: str, tell: Tell) -> None:
    """End the process with a code of its own."""
    tell(Started(worker, task.jobs[0]))
    os._exit(3)


def never_end(task: Task, place: Place, worker: str, tell: Tell) -> None:
    """Tell of endless work, with a claim held; note that the interrupt was heard."""
    desk = Desk(Path(place.runs))
    for job in task.jobs:
        with desk.claim(job):
            tell(Started(worker, job))
            try:
                while True:
                    time.sleep(0.05)
                    tell(Doing(worker, "still"))
            except KeyboardInterrupt:
                (Path(place.runs) / f"{job.id}.note").write_text("interrupted")
                raise


def tell_gpu(task: Task, place: Place, worker: str, tell: Tell) -> None:
    """Tell of the GPU that may be used, and of nothing else for ever."""
    while True:
        tell(Doing(worker, os.environ.get("CUDA_VISIBLE_DEVICES", "")))
        time.sleep(0.05)


def begun(task: Task, worker: str, tell: Tell) -> Iterator[Job]:
    """Yield each job between telling that it has begun and that it has ended."""
    for job in task.jobs:
        tell(Started(worker, job))
        yield job
        tell(Ended(worker, job, "finished"))

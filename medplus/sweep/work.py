"""What a worker does with a task: claim each job, do it, and tell how it ended."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medplus.errors import StoreError
from medplus.lock import LockHeldError
from medplus.progress import Advance, Progress
from medplus.sweep.desk import Desk
from medplus.sweep.events import Doing, Ended, Outcome, Started, Tell
from medplus.sweep.job import Job, Place, Task
from medplus.sweep.plan import plan_from_disk
from medplus.training.history import EpochRow
from medplus.training.watch import Watch

log = logging.getLogger(__name__)

_TELL_EVERY_S = 0.5


def perform(task: Task, place: Place, worker: str, tell: Tell) -> None:
    """Do the jobs of a task that nobody else does, in order.

    An error ends its job alone; jobs that need what has failed, or what another sweep is still
    making, are left. An interrupt ends all, with what is finished kept.
    """
    desk = Desk(Path(place.runs))
    left = _look_again(task, place)
    for job in task.jobs:
        if job not in left.jobs:
            tell(Ended(worker, job, "skipped"))
    store = left.store
    reason: Outcome | None = None
    for job in left.jobs:
        if reason is not None:
            tell(Ended(worker, job, reason))
            continue
        start = time.perf_counter()
        message, outcome = "", "finished"
        try:
            with desk.claim(job):
                tell(Started(worker, job))
                with _logged(desk.log(job), job):
                    store = _do(job, place, store, _Reporter(worker, tell))
                desk.forget_failure(job)
        except LockHeldError as error:
            outcome, message = "held", str(error)
        except Exception as error:  # whatever it is, the rest goes on
            outcome, message = "failed", desk.record_error(job, error).message
        tell(Ended(worker, job, outcome, time.perf_counter() - start, message))  # type: ignore[arg-type]
        if job.kind == "extract" and outcome != "finished":
            reason = "held" if outcome == "held" else "blocked"


def _look_again(task: Task, place: Place) -> Task:
    """Return what is left of a task now: another sweep may have done some of it."""
    if place.grid is None:
        return task
    plan = plan_from_disk(place.grid.only(task.jobs[0].spec), place)
    now = {job.id: found.store for found in plan.tasks for job in found.jobs}
    left = tuple(job for job in task.jobs if job.id in now)
    return replace(task, jobs=left, store=now[left[0].id] if left else None)


def _do(job: Job, place: Place, store: str | None, reporter: _Reporter) -> str | None:
    """Do one job, and return the path of the store that the next ones work on."""
    if job.kind == "extract":
        return _extract(job, place, reporter.progress)
    if job.kind == "finetune":
        _finetune(job, place, reporter)
        return None
    if store is None:
        raise StoreError(f"the store that '{job.name}' needs is gone; sweep again")
    _head(job, place, store, reporter)
    return store


def _extract(job: Job, place: Place, progress: Progress) -> str:
    from medplus.embeddings.extract import extract_all

    [extraction] = extract_all(
        [job.spec], **job.options, device=place.device, data_root=place.data_root,
        store=place.store, progress=progress,
        patience_s=0.0,  # there is other work meanwhile
    )  # fmt: skip
    return str(extraction.store.path)


def _head(job: Job, place: Place, store: str, reporter: _Reporter) -> None:
    where: dict[str, Any] = {
        "device": place.device, "runs": place.runs, "bootstrap": place.bootstrap,
    }  # fmt: skip
    if job.kind == "knn":
        from medplus.heads.knn import knn

        knn(store, **job.options, **where)
    else:
        from medplus.heads.probe import probe

        probe(store, **job.options, **where, progress=reporter.progress)


def _finetune(job: Job, place: Place, reporter: _Reporter) -> None:
    from medplus.training import finetune_all

    options = job.options
    finetune_all(
        [job.spec], [options["seed"]], recipe=options["recipe"], batch_size=options["batch_size"],
        device=place.device, data_root=place.data_root, runs=place.runs,
        bootstrap=place.bootstrap, watch=reporter, **options["changes"],
    )  # fmt: skip


class _Reporter(Watch):
    """Turns what extraction and training report into short events, not too many of them."""

    def __init__(self, worker: str, tell: Tell) -> None:
        self._worker = worker
        self._tell = tell
        self._last = 0.0
        self._seen = self._epochs = self._per_epoch = 0

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= _TELL_EVERY_S:
            self._last = now
            self._tell(Doing(self._worker, text))

    @property
    def progress(self) -> Progress:
        """The reporter for extractions and probes."""

        @contextmanager
        def task(description: str, total: int, unit: str) -> Iterator[Advance]:
            done = 0

            def advance(n: int) -> None:
                nonlocal done
                done += n
                self._say(f"{done}/{total} {unit}")

            yield advance

        return task

    def begin(
        self, description: str, epochs: int, images_per_epoch: int, epochs_done: int = 0,
        images_done: int = 0,
    ) -> None:  # fmt: skip
        """Note how much there is to train."""
        self._epochs, self._per_epoch = epochs, images_per_epoch
        self._seen = epochs_done * images_per_epoch + images_done

    def images(self, n: int) -> None:
        """Tell of the epoch under way."""
        self._seen += n
        self._say(self._text())

    def _text(self) -> str:
        epoch = -(-self._seen // max(self._per_epoch, 1))
        share = self._seen / max(self._per_epoch, 1) - (epoch - 1)
        return f"epoch {epoch}/{self._epochs}, {share:.0%}"

    def epoch(self, row: EpochRow) -> None:
        """Note a finished epoch in the job's log."""
        log.info("%s", ", ".join(f"{name} {value}" for name, value in asdict(row).items()))


@contextmanager
def _logged(path: Path, job: Job) -> Iterator[None]:
    """Send everything that is printed, also by libraries in other languages, to a file."""
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("medplus")
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        with _printed_to(path):
            log.info("%s begins in process %d on %s", job.name, os.getpid(), socket.gethostname())
            try:
                yield
            except KeyboardInterrupt:
                log.info("%s has been interrupted", job.name)
                raise
            except BaseException:
                log.exception("%s has not finished", job.name)
                raise
            log.info("%s has finished", job.name)
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]


@contextmanager
def _printed_to(path: Path) -> Iterator[None]:
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.close(file)

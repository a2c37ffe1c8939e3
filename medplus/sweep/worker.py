"""A worker: plan from grid and disk, claim the next job that is ready, do it, and so on."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medplus.errors import SweepError
from medplus.interrupts import Interrupts
from medplus.lock import LockHeldError
from medplus.logfile import written_to
from medplus.progress import Advance, Progress, in_words
from medplus.run.folds import Folds
from medplus.sweep.claims import Claimant, Claims
from medplus.sweep.grid import Grid
from medplus.sweep.job import Cell, Job, Place
from medplus.sweep.plan import PLAN_COSTS, plan_from_disk
from medplus.training.watch import Watch

log = logging.getLogger(__name__)

_PAUSE_S = 1.0


class Worker:
    """Does what is left of a grid, as far as no other worker does it.

    Parameters
    ----------
    grid : Grid
    place : Place
    name : str
        What it is called.
    wait : bool
        Wait for what other workers do, since they may die, or make what others need.
    say : callable
        Told of every job that it has ended.

    Attributes
    ----------
    job : Job or None
        What it does, or did when it was interrupted.
    """

    def __init__(
        self, grid: Grid, place: Place, name: str, wait: bool = True,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self._grid, self._place, self._wait, self._say = grid, place, wait, say
        self._claims = Claims(Path(place.runs))
        self._me = Claimant(self._claims, name, place.until)
        self._interrupts = Interrupts(wait=False)
        self._ended: set[str] = set()
        self._images: tuple[str, int | None] | None = None
        self.job: Job | None = None

    def run(self) -> None:
        """Work until nothing is left; an interrupt ends it, with what is finished kept.

        Raises
        ------
        MedplusError
            If what has been done is not there afterwards, or claims cannot be written.
        """
        self._claims.prepare()
        try:
            with self._interrupts, self._me:
                self._work()
        except KeyboardInterrupt:
            if self._time_left() > 0:
                raise  # otherwise its time is over, and it has kept what it did

    def _time_left(self) -> float:
        return self._claims.time_left(self._place.until)

    def _work(self) -> None:
        while True:
            start = time.monotonic()
            plan = plan_from_disk(self._grid, self._place)
            pause = max(_PAUSE_S, (time.monotonic() - start) * PLAN_COSTS)
            did, cells = False, plan.within(self._time_left())
            if self._place.until is None:  # the largest first, of images that are at hand
                cells = sorted(cells, key=lambda cell: cell.images != self._images)
            for cell in cells:
                did |= cell.seconds <= self._time_left() and self._try(cell)
                if did and time.monotonic() > start + pause:
                    break
            if not did and not (cells and self._wait):
                return
            time.sleep(0.0 if did else pause)

    def _try(self, cell: Cell) -> bool:
        """Do those jobs of a cell that are free and ready; return whether any was."""
        did, self._images = False, cell.images
        for job in cell.jobs:
            self._interrupts.grant()
            if self._me.claim(job):
                try:
                    did |= self._do_what_is_left(job)
                finally:
                    self._me.release()
            elif job.kind == "extract":
                break  # the others need it
        return did

    def _do_what_is_left(self, job: Job) -> bool:
        """Do a job that has been claimed, unless another worker was here before the claim."""
        self.job = job
        cells = plan_from_disk(self._grid.only(job.spec), self._place).cells
        now = next((cell for cell in cells for left in cell.jobs if left.id == job.id), None)
        if now is None or (now.store is None and job.kind in ("knn", "probe")):
            return False
        if job.id in self._ended:
            raise SweepError(
                f"a worker has finished '{job.name}', but its results are not in "
                f"{self._place.store} and {self._place.runs}; all workers must see the same "
                "folders there"
            )
        with written_to(self._claims.log(job.id)):
            end = self._do(job, now.store)
        if end is None:
            return False
        self._ended.add(job.id)
        self._say(end)
        return True

    def _do(self, job: Job, store: str | None) -> str | None:
        """Do a job, and tell how it has ended, or None where a single command is at it."""
        gpu, start = os.environ.get("CUDA_VISIBLE_DEVICES"), time.perf_counter()
        where = socket.gethostname() + (f", GPU {gpu}" if gpu else "")
        log.info("%s begins in process %d on %s", job.name, os.getpid(), where)
        try:
            _call(job, self._place, store, self._progress)
        except LockHeldError as error:
            log.info("%s", error)
            return None
        except (Exception, KeyboardInterrupt) as error:  # whatever it is, the rest goes on
            # An interrupt may have become this error, as in libraries that are being imported.
            if self._interrupts.requested or isinstance(error, KeyboardInterrupt):
                log.info("%s has been interrupted", job.name)
                raise KeyboardInterrupt from error
            log.exception("%s has not finished", job.name)
            return f"failed {job.name}: {self._me.fail(error)}"
        log.info("%s has finished", job.name)
        self._claims.tidy({job.id})
        return f"finished {job.name} ({time.perf_counter() - start:.1f} s)"

    @contextmanager
    def _progress(self, description: str, total: int, unit: str) -> Iterator[Advance]:
        """Tell how far the job is, in short words, and notice an interrupt that was lost."""
        self._interrupts.grant()
        with in_words(self._me.tell, 0.0)(description.rpartition(" · ")[2], total, unit) as tell:

            def advance(n: int) -> None:
                self._interrupts.grant()
                tell(n)

            yield advance


def _call(job: Job, place: Place, store: str | None, progress: Progress) -> None:
    """Call what a job's command calls; it is imported here, for its weight."""
    options: dict[str, Any] = {**job.options, "device": place.device}
    if job.kind == "extract":
        from medplus.embeddings.extract import extract_all

        extract_all(
            [job.spec], **options, data_root=place.data_root, store=place.store,
            progress=progress, patience_s=0.0,  # there is other work meanwhile
        )  # fmt: skip
    elif job.kind == "knn":
        from medplus.heads.knn import knn

        knn(str(store), **options, runs=place.runs)
    elif job.kind == "probe":
        from medplus.heads.probe import probe

        probe(str(store), **options, runs=place.runs, progress=progress)
    else:
        from medplus.training import finetune_all

        if dealt := options.pop("fold", None):
            options["folds"] = Folds(dealt["n"], dealt["repeat"] + 1, dealt["pool"])
            # Whoever is asked for any fold of a repeat joins them once all are there.
            options["fold"] = [dealt["repeat"] * dealt["n"] + dealt.get("fold", 0)]
        finetune_all(
            [job.spec], [options.pop("seed")], **options, data_root=place.data_root,
            runs=place.runs, watch=Watch(progress),
        )  # fmt: skip

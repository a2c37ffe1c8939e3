"""A worker: plan from grid and disk, claim the next job that is ready, do it, and so on."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medplus.errors import SweepError
from medplus.interrupts import Interrupts
from medplus.lock import LockHeldError
from medplus.logfile import written_to
from medplus.progress import Advance
from medplus.run.folds import Folds
from medplus.sweep.claims import Claimant, Claims
from medplus.sweep.grid import Grid
from medplus.sweep.job import Cell, Job, Place
from medplus.sweep.plan import Plan, plan_from_disk
from medplus.training.history import EpochRow
from medplus.training.watch import Watch

log = logging.getLogger(__name__)

_PAUSE_S = 1.0
_PLAN_COSTS = 20
"""A plan is used for so many times as long as it took to make."""


class Worker:
    """Does what is left of a grid, as far as no other worker does it.

    Parameters
    ----------
    grid : Grid
    place : Place
    name : str
        What it is called.
    parent : int, optional
        The process with which it is to end.
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
        self, grid: Grid, place: Place, name: str, parent: int | None = None, wait: bool = True,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self._grid, self._place, self._wait, self._say = grid, place, wait, say
        self._claims = Claims(Path(place.runs))
        self._me = Claimant(self._claims, name, parent, place.until)
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
            left = self._time_left()
            if left is None or left > 0:
                raise  # otherwise its time is over, and it has kept what it did

    def _time_left(self) -> float | None:
        return self._claims.time_left(self._place.until)

    def _plan(self, grid: Grid) -> Plan:
        return plan_from_disk(grid, self._place, self._claims.standing().failures)

    def _work(self) -> None:
        while True:
            start = time.monotonic()
            plan = self._plan(self._grid)
            pause = max(_PAUSE_S, (time.monotonic() - start) * _PLAN_COSTS)
            if not plan.within(self._time_left()):
                self._claims.tidy(plan.ids("finished"))
                return
            did = False
            for cell in self._in_order(plan):
                left = self._time_left()
                did |= (left is None or cell.seconds <= left) and self._try(cell)
                if did and time.monotonic() > start + pause:
                    break
            if not did and not self._wait:
                return
            time.sleep(0.0 if did else pause)

    def _in_order(self, plan: Plan) -> Iterator[Cell]:
        """Yield what tells most, or else the largest, if possible of images that are at hand."""
        if self._place.until is not None:
            yield from plan.within(self._time_left())
            return
        holders = self._claims.standing().holders
        others = {cell.images for cell in plan.cells for job in cell.jobs if job.id in holders}
        largest = {cell.images: cell.seconds for cell in reversed(plan.cells)}
        keys = {
            images: (images != self._images, images in others, -seconds, str(images))
            for images, seconds in largest.items()
        }
        for cell in sorted(plan.cells, key=lambda cell: keys[cell.images]):
            self._images = cell.images
            yield cell

    def _try(self, cell: Cell) -> bool:
        """Do those jobs of a cell that are free and ready; return whether any was."""
        did = False
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
        cells = self._plan(self._grid.only(job.spec)).cells
        now = next((cell for cell in cells for left in cell.jobs if left.id == job.id), None)
        if now is None or (now.store is None and job.kind in ("knn", "probe")):
            return False
        if job.id in self._ended:
            raise SweepError(
                f"a worker has finished '{job.name}', but its results are not in "
                f"{self._place.store} and {self._place.runs}; all workers must see the same "
                "folders there"
            )
        start = time.perf_counter()
        try:
            with _logged(self._claims.log(job.id), job):
                _do(job, self._place, now.store, _Reporter(self._me.tell, self._interrupts))
        except LockHeldError as error:
            log.info("%s", error)  # a single command is at it
            return False
        except Exception as error:  # whatever it is, the rest goes on
            self._interrupts.grant()  # one may have become this error
            self._say(f"failed {job.name}: {self._me.fail(error)}")
        else:
            self._claims.tidy({job.id})
            self._say(f"finished {job.name} ({time.perf_counter() - start:.1f} s)")
        self._ended.add(job.id)
        return True


def _do(job: Job, place: Place, store: str | None, reporter: _Reporter) -> None:
    """Do a job as its command does; what it needs is imported here, for its weight."""
    options: dict[str, Any] = {**job.options, "device": place.device, "runs": place.runs}
    if job.kind == "extract":
        from medplus.embeddings.extract import extract_all

        extract_all(
            [job.spec], batch_size=options["batch_size"], device=place.device,
            data_root=place.data_root, store=place.store, progress=reporter.progress,
            patience_s=0.0,  # there is other work meanwhile
        )  # fmt: skip
    elif job.kind == "finetune":
        from medplus.training import finetune_all

        seed, changes, _ = (options.pop(name) for name in ("seed", "changes", "fields"))
        if dealt := options.pop("fold", None):
            folds = Folds(dealt["n"], dealt["repeat"] + 1, dealt["pool"])
            own = [dealt["fold"]] if "fold" in dealt else range(folds.n)
            options["folds"] = folds
            options["fold"] = [dealt["repeat"] * folds.n + number for number in own]
        finetune_all(
            [job.spec], [seed], **options, **changes, data_root=place.data_root, watch=reporter
        )
    elif job.kind == "knn":
        from medplus.heads.knn import knn

        knn(str(store), **options)
    else:
        from medplus.heads.probe import probe

        probe(str(store), **options, progress=reporter.progress)


class _Reporter(Watch):
    """Turns what extraction and training report into short words, not too often.

    An interrupt that was lost is noticed here; a training hears of later ones by itself.
    """

    def __init__(self, tell: Callable[[str], None], interrupts: Interrupts) -> None:
        self._tell, self._interrupts = tell, interrupts
        self._last = 0.0
        self._seen = self._epochs = self._per_epoch = 0

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if now - self._last >= _PAUSE_S:
            self._last = now
            self._tell(text)

    @contextmanager
    def progress(self, description: str, total: int, unit: str) -> Iterator[Advance]:
        """Report an extraction, or probes."""
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            self._interrupts.grant()
            self._say(f"{done}/{total} {unit}")

        yield advance

    def begin(
        self, description: str, epochs: int, images_per_epoch: int, epochs_done: int = 0,
        images_done: int = 0,
    ) -> None:  # fmt: skip
        """Note how much there is to train."""
        self._interrupts.grant()
        self._epochs, self._per_epoch = epochs, max(images_per_epoch, 1)
        self._seen = epochs_done * images_per_epoch + images_done

    def images(self, n: int) -> None:
        """Tell of the epoch under way."""
        self._seen += n
        epoch = -(-self._seen // self._per_epoch)
        self._say(f"epoch {epoch}/{self._epochs}, {self._seen / self._per_epoch - epoch + 1:.0%}")

    def epoch(self, row: EpochRow) -> None:
        """Note a finished epoch in the job's log."""
        log.info("%s", ", ".join(f"{name} {value}" for name, value in asdict(row).items()))


@contextmanager
def _logged(path: Path, job: Job) -> Iterator[None]:
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    where = socket.gethostname() + (f", GPU {gpu}" if gpu else "")
    with written_to(path):
        log.info("%s begins in process %d on %s", job.name, os.getpid(), where)
        try:
            yield
        except KeyboardInterrupt:
            log.info("%s has been interrupted", job.name)
            raise
        except BaseException:
            log.exception("%s has not finished", job.name)
            raise
        log.info("%s has finished", job.name)

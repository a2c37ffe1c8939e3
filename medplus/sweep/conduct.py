"""Conducting a sweep: start workers on what is left, and follow on disk what they do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medplus.embeddings.writer import tidy_stores
from medplus.errors import SweepError
from medplus.lock import clock_of
from medplus.run.ledger import tidy_runs
from medplus.sweep.claims import ATTEMPTS, Claim, Claims
from medplus.sweep.engines import LOOK_S, PATIENCE_S, Engine
from medplus.sweep.grid import Grid
from medplus.sweep.job import Cell, Job, Place
from medplus.sweep.plan import PLAN_COSTS, Plan, plan_from_disk

LATE_S = 5.0
"""A network file system may show results so late."""

Running = list[tuple[Job, Claim]]
"""The jobs that are under way, here or elsewhere, and the claims on them."""
Show = Callable[[Plan, Running], None]
"""Shown how the sweep stands, again and again."""


@dataclass
class Sweep:
    """A grid and where its files are.

    Parameters
    ----------
    grid : Grid
    place : Place
    workers : int
        How many workers share this machine, for estimates.
    budget_s : float, optional
        Do what tells most in so many seconds.

    """

    grid: Grid
    place: Place
    workers: int = 1
    budget_s: float | None = None

    @property
    def claims(self) -> Claims:
        """Who does what of it."""
        return Claims(Path(self.place.runs))

    def plan(self) -> Plan:
        """Return what is finished and what is left, as the disk tells it now."""
        return plan_from_disk(self.grid, self.place, self.workers)

    def running(self, plan: Plan) -> Running:
        """Return the jobs that are under way, here or elsewhere, and the claims on them."""
        holders = self.claims.standing().holders
        jobs = (job for job in plan.jobs if job.state != "finished")
        return [(job, holders[job.id]) for job in jobs if job.id in holders]

    def prepare(self, retry_failed: bool = False) -> Plan:
        """Get everything ready for workers, and return the plan.

        Parameters
        ----------
        retry_failed : bool
            Try again what has failed before.

        Raises
        ------
        MedplusError
            If data are missing, or files cannot be written.
        """
        tidy_runs(Path(self.place.runs))
        tidy_stores(Path(self.place.store))
        plan = self.plan()
        self.claims.tidy(plan.ids("finished"))
        if retry_failed and plan.count("failed"):
            self.claims.tidy(plan.ids("failed"))
            plan = self.plan()
        if plan.cells:
            plan.check_data(Path(self.place.data_root))
            self.claims.prepare()
            if self.budget_s is not None:
                until = clock_of(self.claims.folder) + self.budget_s
                self.place = replace(self.place, until=until)
        return plan

    def to_do(self, plan: Plan) -> Sequence[Cell]:
        """Return what is left to do in the time that is left."""
        return plan.within(self.claims.time_left(self.place.until))

    def run(
        self,
        engine: Engine,
        show: Show = lambda plan, running: None,
        retry_failed: bool = False,
    ) -> Plan:
        """Run everything that is left, and return the plan as it stands then.

        Parameters
        ----------
        show : callable
            Shown how the sweep stands, at first, about once a second, and at last.
        retry_failed : bool
            Try again what has failed before.

        Raises
        ------
        MedplusError
            If data are missing, files cannot be written, or the engine cannot run.
        """
        plan, due = self.prepare(retry_failed), 0.0
        self._missing, self._idle = True, 0
        try:
            self._show(plan, show)
            # Who only waits is not waited for.
            while self.to_do(plan) or (engine.living and self.claims.standing().holders):
                if not self._go_on(engine, plan):
                    break
                if time.monotonic() >= due or not engine.living:
                    start = time.monotonic()
                    plan = self.plan()
                    self._show(plan, show)
                    due = start + PLAN_COSTS * (time.monotonic() - start)
        finally:
            engine.stop()
        self.claims.tidy(plan.ids("finished"))
        return plan

    def _go_on(self, engine: Engine, plan: Plan) -> bool:
        """Start workers where some are missing, look after them, and tell whether to go on."""
        cells, holders = self.to_do(plan), self.claims.standing().holders
        free = any(all(job.id not in holders for job in cell.jobs) for cell in cells)
        if self._missing and free:
            engine.start(self.grid, self.place, sum(len(cell.jobs) for cell in cells))
            self._missing, self._before, self._alive = False, self._progress(plan), time.monotonic()
        elif engine.living:
            self._alive = time.monotonic()
            for death in engine.look():
                self._missing = True
                self._idle = 0 if self.claims.bury(*death) else self._idle + 1
                if self._idle >= ATTEMPTS:
                    raise SweepError(f"workers die before they have a job: {death.cause}")
        else:
            time.sleep(LOOK_S)
            # They may have ended, and made possible what they did not wait for.
            self._missing = self._missing or self._progress(plan) != self._before
            if free and not self._missing and time.monotonic() > self._alive + LATE_S:
                raise SweepError(
                    f"the workers have ended, and left {len(cells)} cells of the grid as they were;"
                    f" {self.claims.folder / 'logs'} may tell why"
                )
        # What has not ended by itself long after the time may still wait to begin.
        return not engine.detached and self.claims.time_left(self.place.until) > -PATIENCE_S

    def _progress(self, plan: Plan) -> tuple[int, ...]:
        """Return what changes with every job that ends, and with every worker that dies of one."""
        return plan.count("left"), *map(len, self.claims.standing().deaths.values())

    def _show(self, plan: Plan, show: Show) -> None:
        show(replace(plan, cells=tuple(self.to_do(plan))), self.running(plan))

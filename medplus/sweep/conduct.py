"""Conducting a sweep: start workers on what is left, and follow on disk what they do."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from medplus.errors import SweepError
from medplus.run.ledger import tidy_runs
from medplus.sweep.claims import Claim, Claims
from medplus.sweep.engines import PATIENCE_S, Engine
from medplus.sweep.grid import Grid
from medplus.sweep.job import Cell, Job, Place
from medplus.sweep.plan import Plan, plan_from_disk

_LOOK_EVERY_S = 1.0
_PLAN_COSTS = 20
_LATE_S = 5.0
"""A network file system may show results so late."""

Running = list[tuple[Job, Claim]]
"""The jobs that are under way, here or elsewhere, and the claims on them."""

Show = Callable[[Plan, Running], None]
"""Shown how the sweep stands, again and again."""


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

    Attributes
    ----------
    claims : Claims
    """

    def __init__(
        self, grid: Grid, place: Place, workers: int = 1, budget_s: float | None = None
    ) -> None:
        self.grid = grid
        self.place = place
        self.claims = Claims(Path(place.runs))
        self._workers = workers
        self._budget_s = budget_s
        self._due = 0.0

    def plan(self) -> Plan:
        """Return what is finished and what is left, as the disk tells it now."""
        failed = self.claims.standing().failures
        return plan_from_disk(self.grid, self.place, failed, self._workers)

    def running(self, plan: Plan) -> Running:
        """Return the jobs that are under way, here or elsewhere, and the claims on them."""
        holders = self.claims.standing().holders
        jobs = (planned.job for planned in plan.jobs if planned.state != "finished")
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
        plan = self.plan()
        self.claims.tidy(plan.ids("finished"))
        if retry_failed and plan.count("failed"):
            for job in plan.ids("failed"):
                self.claims.forget(job)
            plan = self.plan()
        if plan.cells:
            plan.check_data(Path(self.place.data_root))
            self.claims.prepare()
            if self._budget_s is not None:
                self.place = replace(self.place, until=self.claims.now() + self._budget_s)
        return plan

    def to_do(self, plan: Plan) -> tuple[Cell, ...]:
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
        plan = self.prepare(retry_failed)
        self._show(plan, show)
        while cells := self.to_do(plan):
            if not self._any_free(cells):
                time.sleep(max(self._due - time.monotonic(), 0))
                plan = self._look(show)
                continue
            before = self._progress(plan)
            if not self._follow(engine, cells, show):
                return plan  # it has let its workers go
            plan = self._look(show)
            until = time.monotonic() + _LATE_S
            while (left := self.to_do(plan)) and self._progress(plan) == before:
                if time.monotonic() > until:
                    if self.running(plan):
                        break
                    raise SweepError(
                        f"the workers have ended, and left {len(left)} cells of the grid as they "
                        f"were; {self.claims.folder / 'logs'} may tell why"
                    )
                time.sleep(_LOOK_EVERY_S)
                plan = self._look(show)
        self.claims.tidy(plan.ids("finished"))
        return plan

    def _progress(self, plan: Plan) -> tuple[int, int, int]:
        """Return what changes with every job that ends, and with every worker that dies of one."""
        deaths = self.claims.standing().deaths.values()
        return plan.count("finished"), plan.count("failed"), sum(map(len, deaths))

    def _any_free(self, cells: tuple[Cell, ...]) -> bool:
        holders = self.claims.standing().holders
        return any(all(job.id not in holders for job in cell.jobs) for cell in cells)

    def _follow(self, engine: Engine, cells: tuple[Cell, ...], show: Show) -> bool:
        """Let an engine start workers, and show what they do; tell whether it has followed them."""
        followed = False
        most = sum(len(cell.jobs) for cell in cells)
        # Closed at once where `show` is interrupted, so that the workers are, too.
        with closing(engine.run(self.grid, self.place, most)) as looks:
            for _ in looks:
                followed = True
                left = self.claims.time_left(self.place.until)
                if left is not None and left < -PATIENCE_S:
                    break  # of what has not ended by itself: it may still wait to begin
                if time.monotonic() >= self._due:
                    self._look(show)
        return followed

    def _show(self, plan: Plan, show: Show) -> None:
        show(replace(plan, cells=self.to_do(plan)), self.running(plan))

    def _look(self, show: Show) -> Plan:
        start = time.monotonic()
        plan = self.plan()
        self._show(plan, show)
        took = time.monotonic() - start
        self._due = start + max(_LOOK_EVERY_S, _PLAN_COSTS * took)
        return plan

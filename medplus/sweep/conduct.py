"""Conducting a sweep: plan, run what is left, plan again, until nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from medplus.errors import SweepError
from medplus.runs.ledger import tidy_runs
from medplus.sweep.desk import Desk
from medplus.sweep.engines import Engine
from medplus.sweep.events import Ended, Event
from medplus.sweep.grid import Grid
from medplus.sweep.job import Job, Place, Task
from medplus.sweep.plan import Plan, plan_from_disk

_LOOKS = 5

Listener = Callable[[Event], None]
"""Told of every event of a sweep."""


class Sweep:
    """A grid and where its files are.

    Parameters
    ----------
    grid : Grid
    place : Place
    workers : int
        How many jobs share this machine, for estimates.

    Attributes
    ----------
    desk : Desk
    failed : dict of str to Ended
        The jobs that have failed in this sweep, by id.
    """

    def __init__(
        self, grid: Grid, place: Place, workers: int = 1, look_every_s: float = 2.0
    ) -> None:
        self.grid = grid
        self.place = place
        self.desk = Desk(Path(place.runs))
        self.failed: dict[str, Ended] = {}
        self._workers = workers
        self._look_every_s = look_every_s
        self._finished: set[str] = set()

    def plan(self) -> Plan:
        """Return what is finished and what is left, as the disk tells it now."""
        # On a full disk a failure leaves no note, but is not to be tried for ever.
        failed = self.desk.failures().keys() | self.failed.keys()
        return plan_from_disk(self.grid, self.place, failed, self._workers)

    def run(
        self,
        engine: Engine,
        listen: Listener = lambda event: None,
        begin: Callable[[Plan], None] = lambda plan: None,
        waiting: Callable[[list[str]], None] = lambda who: None,
        retry_failed: bool = False,
    ) -> Plan:
        """Run everything that is left, and return the plan as it stands then.

        Parameters
        ----------
        listen : callable
            Told of every event.
        begin : callable
            Given the plan that the sweep begins with.
        waiting : callable
            Told who does what is left, where that is other sweeps only.
        retry_failed : bool
            Try again what has failed before.

        Raises
        ------
        MedplusError
            If data are missing, files cannot be written, or the engine cannot run.
        """
        self.desk.tidy()
        tidy_runs(Path(self.place.runs))
        plan = self.plan()
        if retry_failed:
            for planned in plan.jobs:
                self.desk.forget_failure(planned.job)
            plan = self.plan()
        if plan.tasks:
            plan.check_data(Path(self.place.data_root))
            self.desk.prepare()
        begin(plan)
        while plan.tasks and self._round(engine, plan, listen, waiting):
            plan = self._plan_again()
        return plan

    def _round(
        self,
        engine: Engine,
        plan: Plan,
        listen: Listener,
        waiting: Callable[[list[str]], None],
    ) -> bool:
        """Run what nobody else does, or wait for the others; False if the engine has let go."""
        free = [task for task in plan.tasks if not self._holders(task)]
        if not free:
            waiting(list(dict.fromkeys(who for task in plan.tasks for who in self._holders(task))))
            time.sleep(self._look_every_s)
            return True
        followed = False
        # Closed at once where a listener is interrupted, so that the workers are, too.
        with closing(engine.run(free, replace(self.place, grid=self.grid))) as events:
            for event in events:
                followed = True
                if isinstance(event, Ended) and event.outcome in ("finished", "skipped"):
                    self._finished.add(event.job.id)
                elif isinstance(event, Ended) and event.outcome == "failed":
                    self.failed[event.job.id] = event
                listen(event)
        return followed

    def _plan_again(self) -> Plan:
        """Plan after a round; what workers have finished must be there.

        Raises
        ------
        SweepError
            If it is not, for then the same jobs would be done again and again.
        """
        for _ in range(_LOOKS):
            plan = self.plan()
            left = [job for task in plan.tasks for job in task.jobs]
            lost = [job.name for job in left if job.id in self._finished]
            if not lost:
                return plan
            time.sleep(self._look_every_s)  # a network file system may show it late
        raise SweepError(
            f"a worker has finished '{lost[0]}', but its results are not in {self.place.store} "
            f"and {self.place.runs}; all workers must see the same folders there"
        )

    def _holders(self, task: Task) -> list[str]:
        owners = [self.desk.holder(job) for job in task.jobs]
        return [str(owner) for owner in owners if owner is not None]


def running(sweep: Sweep, plan: Plan) -> Iterator[tuple[Job, str]]:
    """Yield the jobs that are under way, here or elsewhere, and who does them."""
    for planned in plan.jobs:
        if planned.state != "finished":
            owner = sweep.desk.holder(planned.job)
            if owner is not None:
                yield planned.job, str(owner)

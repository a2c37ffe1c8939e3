"""A plan in a few rows: per kind of job, how much there is, is finished, has failed and is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from medplus.sweep.job import Kind
from medplus.sweep.plan import Plan


@dataclass(frozen=True)
class WorkRow:
    """The jobs of one kind.

    Attributes
    ----------
    runs, runs_finished : int
        Runs that they make; for extractions, stores.
    jobs, finished, failed, left : int
    seconds_left : float
        Estimated time of what is left, one job after the other.
    bytes_left : int
        Estimated disk space that it will take.
    """

    kind: str
    runs: int
    runs_finished: int
    jobs: int
    finished: int
    failed: int
    left: int
    seconds_left: float
    bytes_left: int


def summarise(plan: Plan) -> list[WorkRow]:
    """Return a row for every kind of job in a plan, in the order of the work."""
    rows = []
    for kind in get_args(Kind):
        jobs = [planned for planned in plan.jobs if planned.job.kind == kind]
        if not jobs:
            continue
        left = [planned for planned in jobs if planned.state == "left"]
        finished = sum(planned.state == "finished" for planned in jobs)
        is_store = kind == "extract"
        rows.append(
            WorkRow(
                kind=kind,
                runs=len(jobs) if is_store else sum(planned.job.n_runs for planned in jobs),
                runs_finished=finished if is_store else sum(planned.runs_done for planned in jobs),
                jobs=len(jobs),
                finished=finished,
                failed=sum(planned.state == "failed" for planned in jobs),
                left=len(left),
                seconds_left=sum(planned.seconds for planned in left),
                bytes_left=sum(planned.nbytes for planned in left),
            )
        )
    return rows

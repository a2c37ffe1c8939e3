"""A plan in a few numbers: the work per kind of job, and what the finished part has cost."""

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
        states = [planned.state for planned in jobs]
        left = [planned for planned in jobs if planned.state == "left"]
        row = WorkRow(
            kind=kind,
            runs=sum(planned.job.n_runs for planned in jobs),
            runs_finished=sum(planned.runs_done for planned in jobs),
            jobs=len(jobs),
            finished=states.count("finished"),
            failed=states.count("failed"),
            left=len(left),
            seconds_left=sum(planned.seconds for planned in left),
            bytes_left=sum(planned.nbytes for planned in left),
        )
        rows += [row] if jobs else []
    return rows


@dataclass(frozen=True)
class Totals:
    """Sums over all stores and runs of a grid.

    Attributes
    ----------
    seconds, device_seconds : float
        Wall time and device time of all jobs, as if they had run one after the other.
    energy_joules : float or None
        None where nothing has measured any; a part where only some jobs have.
    peak_memory_bytes, peak_device_memory_bytes : int
        The highest of any job.
    devices : tuple of str
        The names of the devices that have computed.
    """

    stores: int
    runs: int
    seconds: float
    device_seconds: float
    energy_joules: float | None
    peak_memory_bytes: int
    peak_device_memory_bytes: int
    devices: tuple[str, ...]


def total_cost(plan: Plan) -> Totals:
    """Add up what a plan's finished stores and runs have recorded.

    Runs that were computed together share their cost, and count for their share of it.
    """
    costs = [{"seconds": 0.0, **info.cost} for info in plan.stores]
    costs += [{**record.cost, "seconds": record.seconds} for record in plan.records]
    costs = [{"device_seconds": cost["seconds"], **cost} for cost in costs]

    def parts(name: str) -> list[float]:
        return [cost[name] / cost.get("shared_by", 1) for cost in costs if name in cost]

    def highest(name: str) -> int:
        return max((cost.get(name) or 0 for cost in costs), default=0)

    return Totals(
        stores=len(plan.stores),
        runs=len(plan.records),
        seconds=sum(parts("seconds")),
        device_seconds=sum(parts("device_seconds")),
        energy_joules=sum(parts("energy_joules")) if parts("energy_joules") else None,
        peak_memory_bytes=highest("peak_memory_bytes"),
        peak_device_memory_bytes=highest("peak_device_memory_bytes"),
        devices=tuple(sorted({str(cost["device"]) for cost in costs if "device" in cost})),
    )

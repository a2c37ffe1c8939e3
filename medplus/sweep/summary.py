"""A plan in a few numbers: the work per kind of job, and what the finished part has cost."""

from __future__ import annotations

from collections.abc import Iterable
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
        left = [planned for planned in jobs if planned.state == "left"]
        finished = sum(planned.state == "finished" for planned in jobs)
        is_store = kind == "extract"
        row = WorkRow(
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
    shares = [({"seconds": 0.0, **info.cost}, 1) for info in plan.stores]
    shares += [
        ({**record.cost, "seconds": record.seconds}, record.cost.get("shared_by", 1))
        for record in plan.records
    ]
    energies = [cost["energy_joules"] / by for cost, by in shares if "energy_joules" in cost]
    return Totals(
        stores=len(plan.stores),
        runs=len(plan.records),
        seconds=sum(cost["seconds"] / by for cost, by in shares),
        device_seconds=sum(cost.get("device_seconds", cost["seconds"]) / by for cost, by in shares),
        energy_joules=sum(energies) if energies else None,
        peak_memory_bytes=_highest(cost.get("peak_memory_bytes") for cost, _ in shares),
        peak_device_memory_bytes=_highest(
            cost.get("peak_device_memory_bytes") for cost, _ in shares
        ),
        devices=tuple(sorted({str(cost["device"]) for cost, _ in shares if "device" in cost})),
    )


def _highest(values: Iterable[int | None]) -> int:
    return max((value for value in values if value is not None), default=0)

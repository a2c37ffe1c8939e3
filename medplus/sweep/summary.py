"""A plan in a few numbers: the work per kind of job, and what the finished part has cost."""

from __future__ import annotations

from typing import Any, get_args

from medplus.cost import PEAKS, SUMS
from medplus.sweep.job import Kind, State
from medplus.sweep.plan import Plan


def summarise(plan: Plan) -> list[dict[str, Any]]:
    """Return a row for every kind of job in a plan, in the order of the work.

    Returns
    -------
    list of dict
        ``kind``; the ``runs`` that its jobs make (of extractions, stores) and ``runs_finished``;
        how many ``jobs`` there are, and of them ``finished``, ``failed`` and ``left``; and
        estimates of what is left, one job after the other: ``seconds_left`` and ``bytes_left``.
    """
    rows = []
    for kind in get_args(Kind):
        jobs = [job for job in plan.jobs if job.kind == kind]
        states = [job.state for job in jobs]
        row = {
            "kind": kind,
            "runs": sum(job.n_runs for job in jobs),
            "runs_finished": sum(job.runs_done for job in jobs),
            "jobs": len(jobs),
            **{state: states.count(state) for state in get_args(State)},
            "seconds_left": sum(job.seconds for job in jobs if job.state == "left"),
            "bytes_left": sum(job.nbytes for job in jobs if job.state == "left"),
        }
        rows += [row] if jobs else []
    return rows


def total_cost(plan: Plan) -> dict[str, Any]:
    """Add up what a plan's finished stores and runs have recorded.

    Returns
    -------
    dict
        The numbers of ``stores`` and ``runs``, the names of the ``devices``, and, as
        `medplus.cost.CostMeter.cost` names them, times and energy as if all jobs had run one after
        the other, and the highest peaks of memory. Runs that were computed together count for their
        share. The energy is None where nothing has measured any, and a part where only some have.
    """
    costs = [*(info.cost for info in plan.stores), *(record.cost for record in plan.records)]
    parts = {
        name: [cost[name] / cost.get("shared_by", 1) for cost in costs if name in cost]
        for name in SUMS
    }
    return {
        "stores": len(plan.stores),
        "runs": len(plan.records),
        **{name: sum(found) for name, found in parts.items()},
        "energy_joules": sum(parts["energy_joules"]) if parts["energy_joules"] else None,
        **{name: max((cost.get(name, 0) for cost in costs), default=0) for name in PEAKS},
        "devices": sorted({str(cost["device"]) for cost in costs if "device" in cost}),
    }

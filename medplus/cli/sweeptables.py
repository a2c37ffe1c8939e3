"""A sweep's plan and its end, for a person to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from medplus.cli.tables import Column, make_console, print_rows
from medplus.naming import duration, in_bytes
from medplus.sweep.job import Kind, State
from medplus.sweep.plan import Plan


def work_of(plan: Plan) -> list[dict[str, Any]]:
    """Return a row for every kind of job, in the order of the work.

    Returns
    -------
    list of dict
        ``kind``; the ``runs`` that its jobs make (of extractions, stores) and ``runs_finished``;
        how many ``jobs`` there are, and of them ``finished``, ``failed`` and ``left``; and
        estimates of what is left: ``seconds_left`` and ``bytes_left``.
    """
    rows = []
    for kind in get_args(Kind):
        jobs = [job for job in plan.jobs if job.kind == kind]
        states, left = [job.state for job in jobs], [job for job in jobs if job.state == "left"]
        row = {
            "kind": kind,
            "runs": sum(job.n_runs for job in jobs),
            "runs_finished": sum(job.runs_done for job in jobs),
            "jobs": len(jobs),
            **{state: states.count(state) for state in get_args(State)},
            "seconds_left": sum(job.seconds for job in left),
            "bytes_left": sum(job.nbytes for job in left),
        }
        rows += [row] if jobs else []
    return rows


def show_plan(plan: Plan, document: dict[str, Any], workers: int) -> None:
    """Print what there is to do, what it will cost, and what is running or has failed."""
    rows = document["work"]
    workers = min(workers, sum(row["left"] for row in rows))
    seconds = sum(row["seconds_left"] for row in rows)

    def where_left(text: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
        return lambda row: text(row) if row["left"] else ""

    print_rows(
        rows,
        (Column("work"), lambda row: row["kind"]),
        (Column("runs", right=True), lambda row: row["runs"]),
        (Column("finished", right=True), lambda row: row["runs_finished"]),
        *(
            (Column(name, right=True), lambda row, name=name: row[name])
            for name in ("jobs", "failed", "left")
        ),
        (Column("time left", right=True), where_left(lambda row: duration(row["seconds_left"]))),
        (
            Column("share", right=True),
            where_left(lambda row: f"{100 * row['seconds_left'] / seconds:.0f} %"),
        ),
        (Column("disk", right=True), where_left(lambda row: in_bytes(row["bytes_left"]))),
    )
    console = make_console()
    left = sum(row["left"] for row in rows)
    if left:
        nbytes = sum(row["bytes_left"] for row in rows)
        each = (
            f", {duration(seconds / workers)} on each of {workers} devices" if workers > 1 else ""
        )
        console.print(
            f"{left} jobs left: at most about {duration(seconds)} on one device{each}, and "
            f"{in_bytes(nbytes)} of disk. Estimated from {plan.estimator.basis}."
        )
        if "reached" in document:
            reached = document["reached"]
            parts = [f"{n} {kind}" for kind, n in reached.items()]
            console.print(
                f"the budget reaches about {sum(reached.values())}: {', '.join(parts) or '-'}"
            )
    else:
        console.print("nothing is left to do")
    for job in document["running"]:
        doing = f", {job['doing']}" if job["doing"] else ""
        console.print(f"running: {job['name']} (by {job['by']}{doing})")
    _show_failures(document)


def show_end(document: dict[str, Any], is_over: bool = False) -> None:
    """Print what is finished, what all of it has cost, and what has failed or is left."""
    console = make_console()
    totals = document["totals"]
    rows = [row for row in document["work"] if row["left"]]
    left = sum(row["left"] for row in rows)
    blocked = f"; {left} jobs wait for what has failed" if left and not is_over else ""
    console.print(
        f"{totals['stores']} stores and {totals['runs']} runs are finished{blocked} "
        f"({duration(document['seconds'])})"
    )
    parts = [
        f"{duration(totals['seconds'])} of computing",
        f"{duration(totals['device_seconds'])} of device time",
    ]
    if totals["energy_joules"] is not None:
        parts.append(f"{totals['energy_joules'] / 3.6e6:.2f} kWh")
    parts.append(f"at most {in_bytes(totals['peak_memory_bytes'])} of memory")
    if totals["peak_device_memory_bytes"]:
        parts.append(f"{in_bytes(totals['peak_device_memory_bytes'])} on the device")
    console.print(f"all of it took {', '.join(parts)} on {', '.join(totals['devices']) or '-'}")
    if rows and is_over:
        what = ", ".join(f"{row['left']} {row['kind']}" for row in rows)
        seconds = sum(row["seconds_left"] for row in rows)
        console.print(
            f"{left} jobs are left ({what}; about {duration(seconds)} on one device); the same "
            "command goes on, without --budget to the end"
        )
    _show_failures(document)
    if document["failed"]:
        console.print("the same command with --retry-failed tries just these again")


def _show_failures(document: dict[str, Any]) -> None:
    console = make_console()
    for failure in document["failed"]:
        console.print(f"failed: {failure['name']}: {failure['message']} (log: {failure['log']})")

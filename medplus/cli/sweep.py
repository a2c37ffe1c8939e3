"""`medplus sweep`."""

from __future__ import annotations

import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.engines import engine_options, make_engine
from medplus.cli.options import Output

if TYPE_CHECKING:
    from medplus.sweep.conduct import Sweep
    from medplus.sweep.engines import Engine
    from medplus.sweep.job import Job
    from medplus.sweep.plan import Plan


@click.command()
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Show what is left and what it will cost, and stop.")
@click.option(
    "--status", "status", is_flag=True, help="Show what is finished, running and failed, and stop."
)
@click.option("--retry-failed", is_flag=True, help="Try what has failed before again.")
@engine_options
@options.device
@options.data_root
@options.store_root
@options.runs_root
@options.reporting
def sweep(
    output: Output,
    config: Path,
    dry_run: bool,
    status: bool,
    retry_failed: bool,
    engine: str,
    workers: int | None,
    device: str,
    data_root: Path,
    store_root: Path,
    runs: Path,
    **resources: Any,
) -> int:
    """Run the whole grid of CONFIG, a YAML file: datasets × sizes × backbones × protocols × seeds.

    What is finished is left alone, so the same command goes on after a crash, and several of them
    share the work. A failed job is noted, and the rest goes on. configs/ holds grids to start from,
    docs/sweep.md explains them.
    """
    from medplus.cli.sweeptables import show_end, show_plan
    from medplus.sweep.conduct import Sweep
    from medplus.sweep.gridfile import read_grid
    from medplus.sweep.job import Place

    grid = read_grid(config)
    chosen = make_engine(engine, workers, device, resources)
    data, stores, records = (str(path.absolute()) for path in (data_root, store_root, runs))
    place = Place(data, stores, records, device)
    conductor = Sweep(grid, place, chosen.workers if engine == "local" else 1)
    if dry_run or status:
        plan = conductor.plan()
        document = _document(conductor, plan)
        output.result(document, lambda: show_plan(plan, document, chosen.workers))
        return 0
    plan, seconds = _run(conductor, chosen, output, retry_failed)
    document = {**_document(conductor, plan), "seconds": seconds}
    output.result(document, lambda: show_end(document))
    return 1 if document["failed"] else 0


def _run(
    conductor: Sweep, engine: Engine, output: Output, retry_failed: bool
) -> tuple[Plan, float]:
    from medplus.sweep.view import View

    # SIGTERM, with which clusters take a node away, counts as Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    start = time.monotonic()
    try:
        with View(output.console) as view:
            plan = conductor.run(engine, view.hear, view.begin, view.waiting, retry_failed)
    finally:
        signal.signal(signal.SIGTERM, before)
    return plan, time.monotonic() - start


def _document(conductor: Sweep, plan: Plan) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    from medplus.sweep.conduct import running
    from medplus.sweep.summary import summarise
    from medplus.sweep.totals import total_cost

    return {
        "work": [asdict(row) for row in summarise(plan)],
        "running": [{"job": job.id, "name": job.name, "by": who} for job, who in running(
            conductor, plan
        )],
        "failed": [_failure(conductor, p.job) for p in plan.jobs if p.state == "failed"],
        "totals": total_cost(plan).to_dict(),
    }  # fmt: skip


def _failure(conductor: Sweep, job: Job) -> dict[str, Any]:
    """Return the note of a failure, or what was heard of it where a full disk took no note."""
    note = conductor.desk.failure(job)
    if note is not None:
        return note.model_dump()
    message = conductor.failed[job.id].message
    return {"job_id": job.id, "name": job.name, "message": message, "log": ""}

"""`medplus sweep`."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options
from medplus.cli.engines import engine_options, make_engine
from medplus.cli.options import Output
from medplus.errors import UsageError

if TYPE_CHECKING:
    from medplus.sweep.conduct import Sweep
    from medplus.sweep.plan import Plan


@click.command()
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Show what is left and what it will cost, and stop.")
@click.option(
    "--status", "status", is_flag=True, help="Show what is finished, running and failed, and stop."
)
@click.option("--retry-failed", is_flag=True, help="Try what has failed before again.")
@click.option(
    "--worker", is_flag=True, help="Be one worker, beside others that any scheduler has started."
)
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
    worker: bool,
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

    if worker and (engine != "local" or workers is not None):
        raise UsageError("--worker is one worker by itself; --engine and --workers start several")
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
    start = time.monotonic()
    with _terminable():
        if worker:
            plan = _work(conductor, output, retry_failed)
        else:
            from medplus.sweep.view import View

            with View(output.console) as view:
                plan = conductor.run(chosen, view.look, retry_failed)
    document = {**_document(conductor, plan), "seconds": time.monotonic() - start}
    output.result(document, lambda: show_end(document))
    return 1 if document["failed"] else 0


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, with which clusters take a node away, count as Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _work(conductor: Sweep, output: Output, retry_failed: bool) -> Plan:
    """Be a worker in this process, and return the plan as it stands at the end."""
    from medplus.sweep.worker import Worker

    def say(text: str) -> None:
        if output.console is not None:
            output.console.print(text, soft_wrap=True, highlight=False)

    if conductor.prepare(retry_failed).cells:
        name = f"{socket.gethostname()}:{os.getpid()}"
        Worker(conductor.grid, conductor.place, name, say=say).run()
    return conductor.plan()


def _document(conductor: Sweep, plan: Plan) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    from medplus.sweep.summary import summarise, total_cost

    failures = [conductor.claims.failure(p.job) for p in plan.jobs if p.state == "failed"]
    return {
        "work": [asdict(row) for row in summarise(plan)],
        "running": [
            {"job": job.id, "name": job.name, "by": str(worker), "doing": worker.doing}
            for job, worker in conductor.running(plan)
        ],
        "failed": [failure.model_dump() for failure in failures if failure is not None],
        "totals": asdict(total_cost(plan)),
    }

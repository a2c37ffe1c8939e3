"""`medplus sweep`."""

from __future__ import annotations

import gc
import os
import socket
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medplus.cli import options, specs
from medplus.cli.engines import engine_options, make_engine
from medplus.cli.output import Output, reporting
from medplus.errors import UsageError

if TYPE_CHECKING:
    from medplus.sweep.claims import Claim
    from medplus.sweep.conduct import Sweep
    from medplus.sweep.grid import Grid
    from medplus.sweep.plan import Plan


@click.command()
@click.argument("grid", required=False, type=options.FILE)
@options.names(default_size="28", required=False)
@specs.axes("weights", "fit", "feature", "precision")
@options.several(
    "--protocol",
    "protocols",
    of=click.Choice(["knn", "probe", "finetune"]),
    help="What is run; repeat or use commas.  [default: knn,probe]",
)
@options.seeds("the paper's three", "Of probes and fine-tunings. ")
@click.option("--dry-run", is_flag=True, help="Show what is left and what it will cost, and stop.")
@click.option(
    "--status", "status", is_flag=True, help="Show what is finished, running and failed, and stop."
)
@click.option(
    "--budget",
    "budget_s",
    type=options.seconds,
    metavar="TIME",
    help="90s, 30m, 2h: run what tells most (the cheapest protocol on everything, then the next), "
    "and stop in time.",
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
@reporting
def sweep(
    output: Output,
    grid: Path | None,
    dry_run: bool,
    status: bool,
    budget_s: float | None,
    retry_failed: bool,
    worker: bool,
    engine: str,
    workers: int | None,
    **others: Any,
) -> int:
    """Run a whole grid: datasets × sizes × backbones × weights × … × protocols × seeds.

    GRID is a YAML file, of which flags such as --dataset take a part; or there are only flags.

    What is finished is left alone, so the same command goes on after a crash, and several of them
    share the work. A failed job is noted, and the rest goes on. configs/ holds grids to start from,
    docs/sweep.md explains them.
    """
    from medplus.cli.sweeptables import show_end, show_plan
    from medplus.memory import uncollected
    from medplus.sweep.conduct import Sweep
    from medplus.sweep.job import Place

    if worker and (engine != "local" or workers is not None):
        raise UsageError("--worker is one worker by itself; --engine and --workers start several")
    wanted = _grid(grid, {axis: others.pop(axis) for axis in _AXES})
    device = others.pop("device")
    roots = (others.pop(name) for name in ("data_root", "store_root", "runs"))
    data, stores, records = (str(path.absolute()) for path in roots)
    chosen = make_engine(engine, workers, device, others)
    place = Place(data, stores, records, device)
    conductor = Sweep(wanted, place, chosen.workers if engine == "local" else 1, budget_s)
    if dry_run or status:
        with uncollected():
            plan = conductor.plan()
            document = _document(conductor, plan)
            if budget_s is not None:
                reached = plan.reached(budget_s * chosen.workers)
                document["reached"] = dict(Counter(job.kind for job in reached))
            gc.freeze()  # all of it stays to the end
            output.result(document, lambda: show_plan(plan, document, chosen.workers))
        return 0
    start = time.monotonic()
    if worker:
        plan = _work(conductor, output, retry_failed)
    else:
        from medplus.cli.sweepview import View

        with View(output.console) as view:
            plan = conductor.run(chosen, view.look, retry_failed)
    document = {**_document(conductor, plan), "seconds": time.monotonic() - start}
    output.result(document, lambda: show_end(document, is_over=budget_s is not None))
    return 1 if document["failed"] else 0


_AXES = (
    "datasets", "sizes", "backbones", "weights", "fit", "feature", "precision", "protocols",
    "seeds",
)  # fmt: skip


def _grid(file: Path | None, given: dict[str, Any]) -> Grid:
    """Return the grid of a file, as far as flags do not narrow it, or of the flags alone."""
    from medplus.sweep.grid import make_grid, read_grid

    axes = {name: value for name, value in given.items() if value is not None}
    if file is not None:
        whole = read_grid(file)
        return whole.narrowed(axes) if axes else whole
    for name in ("dataset", "backbone"):
        if f"{name}s" not in axes:
            raise UsageError(f"name a GRID file, or say --{name}: a sweep needs a {name}")
    extract = {name: axes.pop(name) for name in ("feature", "precision") if name in axes}
    protocols = [*axes.pop("protocols", ("knn", "probe"))]
    return make_grid({**axes, "extract": extract, "protocols": protocols})


def _work(conductor: Sweep, output: Output, retry_failed: bool) -> Plan:
    """Be a worker in this process, and return the plan as it stands at the end."""
    from medplus.sweep.worker import Worker

    def say(text: str) -> None:
        if output.console is not None:
            output.console.print(text, soft_wrap=True, highlight=False)

    if conductor.to_do(conductor.prepare(retry_failed)):
        name = f"{socket.gethostname()}:{os.getpid()}"
        Worker(conductor.grid, conductor.place, name, say=say).run()
    return conductor.plan()


def _document(conductor: Sweep, plan: Plan) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    from medplus.cli.sweeptables import work_of
    from medplus.cost import total_of
    from medplus.lock import Owner

    failures, failed = conductor.claims.standing().failures, plan.ids("failed")
    costs = [*(info.cost for info in plan.stores), *(record.cost for record in plan.records)]
    return {
        "work": work_of(plan),
        "running": [
            {
                "job": job.id,
                "name": job.name,
                "by": str(Owner(claim.host, claim.pid)),
                "doing": claim.doing,
            }
            for job, claim in conductor.running(plan)
        ],
        "failed": [
            _failure(job, claim, str(conductor.claims.log(job)))
            for job, claim in failures.items()
            if job in failed
        ],
        "totals": {"stores": len(plan.stores), "runs": len(plan.records), **total_of(costs)},
    }


def _failure(job_id: str, claim: Claim, log: str) -> dict[str, Any]:
    return {
        "job_id": job_id, "name": claim.job, "kind": "error" if claim.error else "killed",
        "error": claim.error or "Killed", "message": claim.cause, "log": log,
        "host": claim.host, "pid": claim.pid,
    }  # fmt: skip

"""From a grid and what exists on disk to what is left to do.

The plan is a pure function of the two: nothing else is remembered, so nothing can disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import inf
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from medplus.datasets import sources as datasets
from medplus.device import cores, gpus
from medplus.embeddings.info import StoreInfo
from medplus.errors import DatasetError
from medplus.memory import uncollected
from medplus.naming import several
from medplus.run.folds import is_of
from medplus.run.record import RunRecord
from medplus.spec import AUTO, ExtractSpec
from medplus.sweep.claims import Claims
from medplus.sweep.estimate import Estimator
from medplus.sweep.grid import Grid
from medplus.sweep.inventory import Inventory
from medplus.sweep.job import Cell, Job, Kind, Place, State
from medplus.sweep.protocols import Finetune

_JOIN_S = 1.0
PLAN_COSTS = 20
"""A plan is used for so many times as long as it took to make."""


@dataclass(frozen=True)
class Plan:
    """Every job of a grid, and the cells that are left, the largest first.

    Attributes
    ----------
    jobs : tuple of Job
    cells : tuple of Cell
        Of jobs that are left.
    records : tuple of RunRecord
        Of the finished runs.
    stores : tuple of StoreInfo
        Of the finished stores.
    estimator : Estimator
        What has estimated the jobs.
    """

    jobs: tuple[Job, ...]
    cells: tuple[Cell, ...]
    records: tuple[RunRecord, ...]
    stores: tuple[StoreInfo, ...]
    estimator: Estimator

    def count(self, state: State) -> int:
        """Return the number of jobs in a state."""
        return sum(job.state == state for job in self.jobs)

    def ids(self, state: State) -> set[str]:
        """Return the ids of the jobs in a state."""
        return {job.id for job in self.jobs if job.state == state}

    def within(self, seconds: float) -> Sequence[Cell]:
        """Return the cells that are left, or with a limit those that each take no longer.

        With a limit a cell is one run of a protocol, with the extraction that it needs, and those
        that tell most come first: the cheapest protocol on everything, before the next one.
        """
        if seconds == inf:
            return self.cells
        of_kind: dict[Kind, list[float]] = {}
        for job in self.jobs:
            of_kind.setdefault(job.kind, []).append(job.seconds)
        ranks = {kind: fmean(costs) for kind, costs in of_kind.items()}
        parts = [
            Cell((*(first for first in cell.jobs if first.kind == "extract"), job), cell.store)
            for cell in self.cells
            for job in cell.jobs
            if job.kind != "extract"
        ]
        parts.sort(key=lambda part: (ranks[part.jobs[-1].kind], part.seconds))
        return [part for part in parts if part.seconds <= seconds]

    def reached(self, seconds: float) -> list[Job]:
        """Return the jobs that one worker would do in a time, one after the other."""
        done: dict[str, Job] = {}
        for cell in self.within(seconds):
            new = {job.id: job for job in cell.jobs if job.id not in done}
            taken = sum(job.seconds for job in new.values())
            if taken <= seconds:
                seconds -= taken
                done |= new
        return [*done.values()]

    def check_data(self, data_root: Path) -> None:
        """Refuse to start without the data that something left needs.

        Raises
        ------
        DatasetError
        """
        images = dict.fromkeys(cell.images for cell in self.cells)
        paths = [datasets.path(datasets.resolve(name), size, data_root) for name, size in images]
        if missing := [path for path in dict.fromkeys(paths) if not path.exists()]:
            raise DatasetError(
                f"{several([*map(str, missing)], 'dataset')} missing; put them there, name their "
                "folder with --data-root, or leave them out with 'exclude' in the grid"
            )


@uncollected()  # all that is read stays
def plan_from_disk(grid: Grid, place: Place, workers: int = 1) -> Plan:
    """Return the plan of a grid as the disk tells it now; `workers` share this machine."""
    failed = Claims(Path(place.runs)).standing().failures
    inventory = Inventory(grid, place)
    on_gpu = place.device != "cpu" and bool(gpus())
    share = max(cores() // workers, 1)
    estimator = Estimator(Path(place.data_root), inventory.past_jobs, share, on_gpu)
    return make_plan(grid, inventory, estimator, failed)


def make_plan(
    grid: Grid, inventory: Inventory, estimator: Estimator, failed: Collection[str]
) -> Plan:
    """Return what of a grid is finished, has failed, and is left to do.

    Parameters
    ----------
    failed : collection of str
        Ids of the jobs that are not to be tried again.
    """
    planner = _Planner(grid, inventory, estimator, failed)
    whole = [*planner.cells()]
    cells = [
        Cell(left, cell.store)
        for cell in whole
        if (left := tuple(job for job in cell.jobs if job.state == "left"))
        and not (cell.jobs[0].kind == "extract" and cell.jobs[0].state == "failed")
    ]
    cells.sort(key=lambda cell: -cell.seconds)
    jobs = tuple(job for cell in whole for job in cell.jobs)
    return Plan(jobs, tuple(cells), tuple(planner.records), tuple(planner.stores), estimator)


@dataclass
class _Planner:
    grid: Grid
    inventory: Inventory
    estimator: Estimator
    failed: Collection[str]
    records: list[RunRecord] = field(default_factory=list)
    stores: list[StoreInfo] = field(default_factory=list)

    def cells(self) -> Iterator[Cell]:
        """Yield all jobs of the grid: those that depend on one another are of one cell."""
        for spec in self.grid.specs():
            if heads := list(self._heads(spec)):
                found = self.inventory.store_of(spec)
                self.stores += [found[1]] if found else []
                finished = found is not None or all(head.state == "finished" for head in heads)
                options = {"batch_size": self.grid.extract.batch_size}
                extraction = self._stands(Job("extract", spec, options, 1, int(finished)))
                yield Cell((extraction, *heads), found[0] if found else None)
        if (finetune := self.grid.protocols.finetune) is not None:
            for spec in self.grid.trained_specs():
                for job in self._finetunings(finetune, spec):
                    yield Cell((job,), None)

    def _stands(self, job: Job) -> Job:
        """Return a job as it stands, and with what is left of it costs."""
        if job.runs_done == job.n_runs:
            return replace(job, state="finished")
        seconds, nbytes = self.estimator.cost(job)
        state: State = "failed" if job.id in self.failed else "left"
        return replace(job, state=state, seconds=seconds, nbytes=nbytes)

    def _found(
        self, kind: Kind, spec: ExtractSpec, options: dict[str, Any], wanted: Collection[Any],
        key_of: Callable[[RunRecord], Any], made: Iterable[RunRecord],
    ) -> Job:  # fmt: skip
        """Return a job whose runs have the `wanted` keys, as it stands; `made` are of its spec."""
        records = {key: record for record in made if (key := key_of(record)) in wanted}
        self.records += records.values()
        return self._stands(Job(kind, spec, options, len(wanted), len(records)))

    def _heads(self, spec: ExtractSpec) -> Iterator[Job]:
        knn, probe = self.grid.protocols.knn, self.grid.protocols.probe
        if knn is not None and self.grid.includes(spec, "knn"):
            votes = {(k, knn.metric, knn.vote) for k in knn.k}
            made = self.inventory.records_of("knn", spec)
            of_record = attrgetter("k", "metric", "vote")
            yield self._found("knn", spec, knn.model_dump(mode="json"), votes, of_record, made)
        if probe is not None and (seeds := self.grid.seeds_of(spec, "probe")):
            recipe = probe.model_copy(update={"seeds": seeds})
            shared = recipe.model_dump(include={"epochs", "batch_size", "patience"})
            made = self.inventory.records_of("probe", spec, shared)
            heads = set(product(recipe.seeds, recipe.lr, recipe.weight_decay))
            of_record = attrgetter("seed", "lr", "weight_decay")
            yield self._found("probe", spec, recipe.model_dump(mode="json"), heads, of_record, made)

    def _finetunings(self, finetune: Finetune, spec: ExtractSpec) -> Iterator[Job]:
        options = finetune.options
        # What the worker's machine decides may have become anything.
        free = [name for name in ("precision", "batch_size") if options[name] == AUTO]
        fixed = {name: value for name, value in options.items() if name not in ("recipe", *free)}
        made = [
            record
            for record in self.inventory.records_of("finetune", spec, {"devices": 1})
            if fixed.items() <= record.config.get("recipe", {}).items()
        ]
        for seed in self.grid.seeds_of(spec, "finetune"):
            own = [record for record in made if record.seed == seed]
            whole = True
            for fold in finetune.folds:
                dealt = {} if fold is None else {"fold": fold.facts}
                of_fold = [record for record in own if is_of(record.config, fold)]
                wanted = {**options, "seed": seed, **dealt}
                job = self._found("finetune", spec, wanted, {seed}, attrgetter("seed"), of_fold)
                if fold is not None:
                    whole = job.state == "finished" and (whole or fold.number == 0)
                    repeat = fold.folds.facts(fold.repeat)
                    joined = any(record.config.get("folds") == repeat for record in own)
                    if whole and fold.number == fold.folds.n - 1 and not joined:
                        # Whoever finished the last did not come to join them yet. It is another job
                        # than the fold, which a worker may have ended before.
                        joining = replace(job, options={**wanted, "fold": repeat}, runs_done=0)
                        job = replace(self._stands(joining), seconds=_JOIN_S, nbytes=0)
                yield job

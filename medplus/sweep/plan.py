"""From a grid and what exists on disk to what is left to do.

The plan is a pure function of the two: nothing else is remembered, so nothing can disagree.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from medplus.datasets import sources as datasets
from medplus.device import cores, gpus
from medplus.embeddings.info import StoreInfo
from medplus.errors import DatasetError
from medplus.run.folds import is_of
from medplus.run.record import RunRecord
from medplus.spec import AUTO, ExtractSpec
from medplus.sweep.estimate import Estimator
from medplus.sweep.grid import Grid
from medplus.sweep.inventory import Inventory
from medplus.sweep.job import Cell, Job, Kind, Place
from medplus.sweep.protocols import Finetune

_JOIN_S = 1.0
State = Literal["finished", "failed", "left"]


@dataclass(frozen=True)
class PlannedJob:
    """A job and how it stands.

    Attributes
    ----------
    runs_done : int
        How many of its runs are finished.
    seconds, nbytes : float
        Estimated wall time and disk of what is left of it.
    """

    job: Job
    state: State
    runs_done: int
    seconds: float = 0.0
    nbytes: int = 0


@dataclass(frozen=True)
class Plan:
    """Every job of a grid, and the cells that are left, the largest first.

    Attributes
    ----------
    jobs : tuple of PlannedJob
    cells : tuple of Cell
    records : tuple of RunRecord
        Of the finished runs.
    stores : tuple of StoreInfo
        Of the finished stores.
    estimator : Estimator
        What has estimated the jobs.
    """

    jobs: tuple[PlannedJob, ...]
    cells: tuple[Cell, ...]
    records: tuple[RunRecord, ...]
    stores: tuple[StoreInfo, ...]
    estimator: Estimator

    def count(self, state: State) -> int:
        """Return the number of jobs in a state."""
        return sum(planned.state == state for planned in self.jobs)

    def ids(self, state: State) -> set[str]:
        """Return the ids of the jobs in a state."""
        return {planned.job.id for planned in self.jobs if planned.state == state}

    def within(self, seconds: float | None) -> tuple[Cell, ...]:
        """Return the cells that are left, or with a limit those that each take no longer.

        With a limit a cell is one run of a protocol, with the extraction that it needs, and those
        that tell most come first: the cheapest protocol on everything, before the next one.
        """
        if seconds is None:
            return self.cells
        costs = {planned.job.id: planned.seconds for planned in self.jobs}
        ranks = {
            kind: fmean(p.seconds for p in self.jobs if p.job.kind == kind)
            for kind in {planned.job.kind for planned in self.jobs}
        }
        parts = []
        for cell in self.cells:
            first = [job for job in cell.jobs if job.kind == "extract"]
            for job in cell.jobs[len(first) :]:
                jobs = (*first, job)
                parts.append(Cell(jobs, cell.store, sum(costs[each.id] for each in jobs)))
        parts.sort(key=lambda part: (ranks[part.jobs[-1].kind], part.seconds))
        return tuple(part for part in parts if part.seconds <= seconds)

    def reached(self, seconds: float) -> set[str]:
        """Return the ids of the jobs that one worker after the other would do in a time."""
        costs = {planned.job.id: planned.seconds for planned in self.jobs}
        done: set[str] = set()
        for cell in self.within(seconds):
            new = {job.id for job in cell.jobs} - done
            taken = sum(costs[job] for job in new)
            if taken <= seconds:
                seconds -= taken
                done |= new
        return done

    def check_data(self, data_root: Path) -> None:
        """Refuse to start without the data that something left needs.

        Raises
        ------
        DatasetError
        """
        images = dict.fromkeys(cell.images for cell in self.cells)
        paths = [datasets.path(datasets.resolve(name), size, data_root) for name, size in images]
        if missing := [path for path in dict.fromkeys(paths) if not path.exists()]:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise DatasetError(
                f"dataset files are missing: {', '.join(map(str, missing[:3]))}{more}; put them "
                "there, name their folder with --data-root, or leave them out with 'exclude' in "
                "the grid"
            )


def plan_from_disk(
    grid: Grid, place: Place, failed: Collection[str] = (), workers: int = 1
) -> Plan:
    """Return the plan of a grid as the disk tells it now; `workers` share this machine."""
    data_root, store, runs = Path(place.data_root), Path(place.store), Path(place.runs)
    inventory = Inventory(grid, data_root, store, runs)
    on_gpu = place.device != "cpu" and bool(gpus())
    estimator = Estimator(data_root, inventory.past_jobs, max(cores() // workers, 1), on_gpu)
    collects = gc.isenabled()
    gc.disable()  # it would go in vain through what has been read, since all of it stays
    try:
        return make_plan(grid, inventory, estimator, failed)
    finally:
        if collects:
            gc.enable()


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
    jobs: list[PlannedJob] = []
    cells: list[Cell] = []
    for group, store in planner.groups():
        jobs += group
        left = [planned for planned in group if planned.state == "left"]
        if left and not (group[0].job.kind == "extract" and group[0].state == "failed"):
            seconds = sum(planned.seconds for planned in left)
            cells.append(Cell(tuple(planned.job for planned in left), store, seconds))
    cells.sort(key=lambda cell: -cell.seconds)
    return Plan(tuple(jobs), tuple(cells), tuple(planner.records), tuple(planner.stores), estimator)


@dataclass
class _Planner:
    grid: Grid
    inventory: Inventory
    estimator: Estimator
    failed: Collection[str]
    records: list[RunRecord] = field(default_factory=list)
    stores: list[StoreInfo] = field(default_factory=list)

    def groups(self) -> Iterator[tuple[list[PlannedJob], str | None]]:
        """Yield jobs that depend on one another, and the store that they work on."""
        for spec in self.grid.specs():
            if heads := list(self._heads(spec)):
                found = self.inventory.store_of(spec)
                self.stores += [found[1]] if found else []
                job = Job("extract", spec, {"batch_size": self.grid.extract.batch_size}, 1)
                finished = found is not None or all(head.state == "finished" for head in heads)
                extraction = self._planned(job, int(finished))
                yield [extraction, *heads], str(found[0]) if found else None
        if (finetune := self.grid.protocols.finetune) is not None:
            for spec in self.grid.trained_specs():
                for planned in self._finetunings(finetune, spec):
                    yield [planned], None

    def _planned(self, job: Job, done: int) -> PlannedJob:
        """Return how a job stands, `done` of whose runs are finished."""
        if done == job.n_runs:
            return PlannedJob(job, "finished", done)
        state: State = "failed" if job.id in self.failed else "left"
        share = 1 - done / job.n_runs
        seconds, nbytes = self.estimator.cost(job)
        return PlannedJob(job, state, done, seconds * share, int(nbytes * share))

    def _found(
        self, kind: Kind, spec: ExtractSpec, options: dict[str, Any], wanted: Collection[Any],
        key_of: Callable[[RunRecord], Any], made: Iterable[RunRecord],
    ) -> PlannedJob:  # fmt: skip
        """Return how a job stands whose runs have the `wanted` keys; `made` are of its spec."""
        records = {key: record for record in made if (key := key_of(record)) in wanted}
        self.records += records.values()
        return self._planned(Job(kind, spec, options, len(wanted)), len(records))

    def _heads(self, spec: ExtractSpec) -> Iterator[PlannedJob]:
        knn, probe = self.grid.protocols.knn, self.grid.protocols.probe
        if knn is not None and self.grid.includes(spec, "knn"):
            votes = {(k, knn.metric, knn.vote) for k in knn.k}
            made = self.inventory.records_of("knn", spec)
            of_record = attrgetter("k", "metric", "vote")
            yield self._found("knn", spec, knn.model_dump(mode="json"), votes, of_record, made)
        if probe is not None and (seeds := self.grid.seeds_of(spec, "probe")):
            recipe = probe.model_copy(update={"seeds": seeds})
            shared = {name: getattr(recipe, name) for name in ("epochs", "batch_size", "patience")}
            made = [
                record
                for record in self.inventory.records_of("probe", spec)
                if shared.items() <= record.config.items()
            ]
            heads = set(product(recipe.seeds, recipe.lr, recipe.weight_decay))
            of_record = attrgetter("seed", "lr", "weight_decay")
            yield self._found("probe", spec, recipe.model_dump(mode="json"), heads, of_record, made)

    def _finetunings(self, finetune: Finetune, spec: ExtractSpec) -> Iterator[PlannedJob]:
        fields = finetune.recipe.model_dump(mode="json")
        # What the worker's machine decides may have become anything.
        free = {"precision": fields["precision"], "batch_size": finetune.batch_size}
        fixed = {name: value for name, value in fields.items() if free.get(name) != AUTO}
        made = [
            record
            for record in self.inventory.records_of("finetune", spec)
            if record.config.get("devices") == 1
            and fixed.items() <= record.config.get("recipe", {}).items()
        ]
        options = {
            "recipe": finetune.name, "fields": fields, "changes": finetune.changes,
            "batch_size": finetune.batch_size,
        }  # fmt: skip
        joined = {(record.seed, _told(record.config.get("folds") or {})) for record in made}
        for seed in self.grid.seeds_of(spec, "finetune"):
            whole = True
            for fold in finetune.folds:
                own = {"seed": seed, **({} if fold is None else {"fold": fold.facts})}
                one = [record for record in made if is_of(record.config, fold)]
                planned = self._found(
                    "finetune", spec, options | own, {seed}, attrgetter("seed"), one
                )
                if fold is not None:
                    whole = planned.state == "finished" and (whole or fold.number == 0)
                    repeat = fold.folds.facts(fold.repeat)
                    last = whole and fold.number == fold.folds.n - 1
                    if last and (seed, _told(repeat)) not in joined:
                        # Whoever finished the last did not come to join them yet. It is another job
                        # than the fold, which a worker may have ended before.
                        job = replace(planned.job, options=options | {"seed": seed, "fold": repeat})
                        planned = replace(self._planned(job, 0), seconds=_JOIN_S, nbytes=0)
                yield planned


def _told(facts: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(facts.items()))

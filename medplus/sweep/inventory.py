"""What exists on disk: the stores and records that a grid's jobs may have made already."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from medplus.datasets import sources as datasets
from medplus.datasets.dataset import DatasetRef
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.select import Sought, identify
from medplus.embeddings.store import read_info
from medplus.errors import MedplusError
from medplus.naming import safe_name
from medplus.runs.ledger import RECORD_FILE, read_record
from medplus.runs.record import RunRecord
from medplus.spec import PRELOGITS, ExtractSpec
from medplus.sweep.estimate import PAPER_COSTS, PastJob, count_images, network_of, work_of
from medplus.sweep.grid import Grid
from medplus.sweep.job import Kind

log = logging.getLogger(__name__)

Images = tuple[str, int | None]
"""The name of a dataset, as records have it, and a size."""


class Inventory:
    """The stores and runs under two roots, as far as they may belong to a grid.

    A job is recognised by its spec, and by the digests of the data and of a fine-tuned run's
    weights; other weights go by their names, so that planning loads no network. What has changed
    behind a name is noticed by the job itself, since stores and runs carry the digests of all that
    they were made from.

    Parameters
    ----------
    grid : Grid
    data_root, store, runs : Path
    digest_of : callable
        Identifies the data of a dataset at a size under a root, or returns None to go by their
        name; by default they are read, and cached, where that is needed.
    """

    def __init__(
        self,
        grid: Grid,
        data_root: Path,
        store: Path,
        runs: Path,
        digest_of: Callable[[DatasetRef, int | None, Path], str | None] = datasets.digest,
    ) -> None:
        self._grid = grid
        self._digest_of = digest_of
        self._data_root, self._store, self._runs = data_root, store, runs
        self._digests: dict[Images, str | None] = {}
        self._identified: dict[ExtractSpec, Sought] = {}
        self._names: dict[str, str] = {}

    def store_of(self, spec: ExtractSpec) -> tuple[Path, StoreInfo] | None:
        """Return the complete store of a spec; of several, the one made last."""
        nearby = [found for found in self._stores.get(self._images(spec), ()) if found[1].complete]
        sought = self._sought(spec) if nearby else None
        found = [(path, info) for path, info in nearby if sought and sought.matches(info)]
        return max(found, key=lambda item: item[1].created, default=None)

    def records_of(self, protocol: str, spec: ExtractSpec) -> list[RunRecord]:
        """Return the records of a protocol on a spec; a caller looks at their recipe and seed."""
        nearby = self._records.get((protocol, *self._images(spec)), [])
        sought = self._sought(spec) if nearby else None
        return [record for record in nearby if sought and sought.matches(record)]

    def _sought(self, spec: ExtractSpec) -> Sought:
        if spec not in self._identified:
            self._identified[spec] = identify(spec)
        images = (spec.dataset, spec.size)
        if images not in self._digests:
            ref = datasets.resolve(spec.dataset)
            self._digests[images] = self._digest_of(ref, spec.size, self._data_root)
        digest = self._digests[images]
        return replace(
            self._identified[spec], data_digests=None if digest is None else frozenset([digest])
        )

    def _images(self, spec: ExtractSpec) -> Images:
        return self._name(spec), spec.size

    def _name(self, spec: ExtractSpec) -> str:
        if spec.dataset not in self._names:
            self._names[spec.dataset] = datasets.name_of(spec.dataset)
        return self._names[spec.dataset]

    @cached_property
    def _stores(self) -> dict[tuple[str, int | None], list[tuple[Path, StoreInfo]]]:
        found: dict[tuple[str, int | None], list[tuple[Path, StoreInfo]]] = {}
        for name in dict.fromkeys(self._name(spec) for spec in self._grid.specs()):
            for path in sorted((self._store / safe_name(name)).glob("*/[!.]*.zarr")):
                try:
                    info = _info(path, _state(path / "zarr.json"))
                except MedplusError as error:
                    log.info("%s", error)  # the extraction will tell, or repair it
                    continue
                for size in (info.size, None):
                    found.setdefault((info.dataset, size), []).append((path, info))
        return found

    @cached_property
    def _records(self) -> dict[tuple[str, str, int | None], list[RunRecord]]:
        found: dict[tuple[str, str, int | None], list[RunRecord]] = {}
        for record in self.all_records():
            for size in (record.size, None):
                found.setdefault((record.protocol, record.dataset, size), []).append(record)
        return found

    def all_records(self) -> Iterator[RunRecord]:
        """Yield the records of all runs of the grid's protocols on its datasets."""
        names: dict[str, set[int | None]] = {}
        for spec in self._grid.specs():
            names.setdefault(safe_name(self._name(spec)), set()).add(spec.size)
        for protocol in ("knn", "probe", "finetune"):
            if getattr(self._grid, protocol) is None:
                continue
            for name, sizes in names.items():
                for size in ["[!.]*"] if None in sizes else sorted(map(str, sizes)):
                    root = self._runs / protocol / name
                    for path in sorted(root.glob(f"{size}/*/[!.]*/{RECORD_FILE}")):
                        yield from _read(path.parent)

    def past_jobs(self) -> Iterator[PastJob]:
        """Yield what extractions and runs on the grid's datasets have cost."""
        datasets_of = {self._name(spec): spec.dataset for spec in self._grid.specs()}
        for stores in self._stores.values():
            for _, info in stores:
                if info.dataset not in datasets_of:
                    continue  # its name differs in what no folder's name can hold
                spec = replace(info.spec, dataset=datasets_of[info.dataset], backbone=info.backbone)
                yield from self._past("extract", spec, {}, 1, info.cost)
        for records in self._records.values():
            for record in records:
                if record.dataset not in datasets_of:
                    continue
                name = datasets_of[record.dataset]
                spec = replace(record.spec, dataset=name, backbone=record.backbone)
                options = record.config.get("recipe", {})
                cost = {"seconds": record.seconds, **record.cost}
                epochs = (record.epochs_run or 1) * record.cost.get("shared_by", 1)
                yield from self._past(record.protocol, spec, options, epochs, cost)

    def _past(
        self, kind: Kind, spec: ExtractSpec, options: dict[str, Any], epochs: int,
        cost: dict[str, Any],
    ) -> Iterator[PastJob]:  # fmt: skip
        if spec.backbone not in PAPER_COSTS and spec.backbone not in self._grid.backbones:
            return
        counts = count_images(spec.dataset, spec.size, self._data_root)
        network = network_of(spec.backbone, spec.feature or PRELOGITS)
        work = work_of(kind, counts, network, {**options, "fit": spec.fit}, epochs)
        on_gpu = not str(cost.get("device", "")).endswith("threads)")
        yield PastJob(kind, spec.backbone, work, float(cost.get("seconds", 0)), on_gpu)


def _read(folder: Path) -> Iterator[RunRecord]:
    """Yield the record of a run, unless it is damaged: then the job will say so."""
    try:
        yield _record(folder, _state(folder / RECORD_FILE))
    except MedplusError as error:
        log.warning("%s", error)


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes with a file: what has been read once is known to the next plan."""
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_ino, state.st_mtime_ns, state.st_size


@cache
def _record(folder: Path, state: tuple[int, ...]) -> RunRecord:
    return read_record(folder)


@cache
def _info(path: Path, state: tuple[int, ...]) -> StoreInfo:
    return read_info(path)

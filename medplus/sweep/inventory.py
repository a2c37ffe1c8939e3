"""What exists on disk: the stores and records that a grid's jobs may have made already."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, cached_property
from glob import escape, iglob
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from medplus.datasets import sources as datasets
from medplus.datasets.dataset import DatasetRef
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.select import Sought, identify
from medplus.embeddings.store import read_info
from medplus.errors import MedplusError
from medplus.naming import safe_name
from medplus.run.folds import FOLDED
from medplus.run.ledger import RECORD_FILE, read_record
from medplus.run.record import RunRecord
from medplus.spec import PRELOGITS, ExtractSpec
from medplus.sweep.estimate import PAPER_COSTS, PastJob, count_images, network_of, work_of
from medplus.sweep.grid import Grid
from medplus.sweep.job import Kind

log = logging.getLogger(__name__)


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
        digest_of: Callable[[DatasetRef, int | None, Path], str | None] | None = None,
    ) -> None:
        self._grid = grid
        self._digest_of = digest_of or _digest_of
        self._data_root, self._store, self._runs = data_root, store, runs
        self._digests: dict[tuple[str, int | None], str | None] = {}
        self._identified: dict[ExtractSpec, Sought] = {}
        self._names: dict[str, str] = {}

    def store_of(self, spec: ExtractSpec) -> tuple[Path, StoreInfo] | None:
        """Return the complete store of a spec; of several, the one made last."""
        found = [item for item in self._like("extract", spec) if item[1].complete]
        path, info = max(found, key=lambda item: item[1].created, default=("", None))
        return None if info is None else (Path(path), info)

    def records_of(self, protocol: Kind, spec: ExtractSpec) -> list[RunRecord]:
        """Return the records of a protocol on a spec; a caller looks at their recipe and seed."""
        return [record for _, record in self._like(protocol, spec)]

    def _like(self, kind: Kind, spec: ExtractSpec) -> list[tuple[str, Any]]:
        """Return those stores or records that are of a spec."""
        nearby = self._by_images.get((kind, self._name(spec), spec.size))
        if not nearby:
            return []
        sought = self._sought(spec)
        return [item for item in nearby.get(sought.spec.backbone, ()) if sought.matches(item[1])]

    def _sought(self, spec: ExtractSpec) -> Sought:
        if spec not in self._identified:
            images = spec.dataset, spec.size
            if images not in self._digests:
                ref = datasets.resolve(spec.dataset)
                self._digests[images] = self._digest_of(ref, spec.size, self._data_root)
            digest = self._digests[images]
            known = None if digest is None else frozenset([digest])
            sought = identify(replace(spec, dataset=self._name(spec)))  # by name: reads no data
            self._identified[spec] = replace(sought, data_digests=known)
        return self._identified[spec]

    def _name(self, spec: ExtractSpec) -> str:
        if spec.dataset not in self._names:
            self._names[spec.dataset] = datasets.name_of(spec.dataset)
        return self._names[spec.dataset]

    @cached_property
    def _made(self) -> list[tuple[Kind, str, StoreInfo | RunRecord]]:
        """All stores, and runs of the grid's protocols, on its datasets."""
        found: list[tuple[Kind, str, StoreInfo | RunRecord]] = []
        sizes: dict[str, dict[str, None]] = {}
        for spec in self._grid.specs():
            name = escape(safe_name(self._name(spec)))
            sizes.setdefault(name, {})["*" if spec.size is None else str(spec.size)] = None
        for name in sizes:
            for store in _folders(f"{escape(str(self._store))}/{name}/*/*.zarr"):
                infos = _read(_info, store)
                # Of corrupted test images: no job of a grid, nor what one costs.
                found += [("extract", store, i) for i in infos if i.spec.corruption is None]
        for protocol, (name, wanted) in product(self._grid.protocols.names, sizes.items()):
            roots, own = [escape(str(self._runs))], self._grid.finetune
            if protocol == "finetune" and own is not None and own.folds is not None:
                roots.append(f"{roots[0]}/{FOLDED}/fold*")
            for root, size in product(roots, ["*"] if "*" in wanted else wanted):
                for run in _folders(f"{root}/{protocol}/{name}/{size}/*/*"):
                    found += [(protocol, run, record) for record in _read(_record, run)]
        return found

    @cached_property
    def _by_images(
        self,
    ) -> dict[tuple[Kind, str, int | None], dict[str, list[tuple[str, StoreInfo | RunRecord]]]]:
        """What has been made by kind and images, and then by any name of the backbone."""
        found: dict[Any, Any] = defaultdict(lambda: defaultdict(list))
        for kind, path, made in self._made:
            for size in {made.size, None}:
                for backbone in {made.backbone, made.tag, made.spec.backbone}:
                    found[kind, made.dataset, size][backbone].append((path, made))
        return found

    def past_jobs(self) -> Iterator[PastJob]:
        """Yield what extractions and runs on the grid's datasets have cost."""
        datasets_of = {self._name(spec): spec.dataset for spec in self._grid.specs()}
        for kind, _, made in self._made:
            if made.dataset not in datasets_of:
                continue  # its name differs in what no folder's name can hold
            spec = replace(made.spec, dataset=datasets_of[made.dataset], backbone=made.backbone)
            if isinstance(made, StoreInfo):
                yield from self._past(kind, spec, {}, 1, made.cost)
            else:
                cost = {"seconds": made.seconds, **made.cost}
                epochs = (made.epochs_run or 1) * made.cost.get("shared_by", 1)
                yield from self._past(kind, spec, made.config.get("recipe", {}), epochs, cost)

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


def _digest_of(ref: DatasetRef, size: int | None, data_root: Path) -> str | None:
    path = datasets.path(ref, size, data_root)
    if not path.is_file():  # a folder of images does not tell of a change
        return datasets.digest(ref, size, data_root)
    return _digest_of_file(ref, size, data_root, _state(path.stat()))


@cache
def _digest_of_file(
    ref: DatasetRef, size: int | None, data_root: Path, state: tuple[int, ...]
) -> str | None:
    return datasets.digest(ref, size, data_root)


def _state(file: os.stat_result) -> tuple[int, ...]:
    """Return what a file changes in when it is written: what was read once, the next plan knows."""
    return file.st_ino, file.st_mtime_ns, file.st_size


MadeT = TypeVar("MadeT")


def _folders(pattern: str) -> list[str]:
    """Return what matches, but for hidden folders; text, since thousands of paths take long."""
    return sorted(iglob(pattern))  # noqa: PTH207


def _read(read: Callable[[str, tuple[int, ...]], MadeT], folder: str) -> Iterator[MadeT]:
    """Yield what a folder holds, unless it is damaged: then the job will say so, or repair it."""
    file = "zarr.json" if folder.endswith(".zarr") else RECORD_FILE
    try:
        yield read(folder, _state(os.stat(f"{folder}/{file}")))  # noqa: PTH116
    except FileNotFoundError:
        return
    except (MedplusError, OSError) as error:
        log.info("%s", error)


@cache
def _record(folder: str, state: tuple[int, ...]) -> RunRecord:
    return read_record(Path(folder), sealed=False)


@cache
def _info(folder: str, state: tuple[int, ...]) -> StoreInfo:
    return read_info(Path(folder))

"""What exists on disk: the stores and records that a grid's jobs may have made already."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, cached_property
from glob import escape, iglob
from pathlib import Path
from typing import Any

from medplus.backbones.catalog import PAPER
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
from medplus.spec import PIXELS, ExtractSpec
from medplus.sweep.estimate import PastJob
from medplus.sweep.grid import Grid
from medplus.sweep.job import Job, Kind

log = logging.getLogger(__name__)

_Made = tuple[str, StoreInfo | RunRecord]
"""The path of something that was made, and what it tells of itself."""


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
        self._name, self._known = cache(datasets.name_of), cache(self._digests)
        self._sought = cache(self._identify)

    def store_of(self, spec: ExtractSpec) -> tuple[Path, StoreInfo] | None:
        """Return the complete store of a spec; of several, the one made last."""
        found = [
            (path, made)
            for path, made in self._like("extract", spec)
            if isinstance(made, StoreInfo) and made.complete
        ]
        path, info = max(found, key=lambda item: item[1].created, default=("", None))
        return None if info is None else (Path(path), info)

    def records_of(self, protocol: Kind, spec: ExtractSpec) -> list[RunRecord]:
        """Return the records of a protocol on a spec; a caller looks at their recipe and seed."""
        return [made for _, made in self._like(protocol, spec) if isinstance(made, RunRecord)]

    def _like(self, kind: Kind, spec: ExtractSpec) -> list[_Made]:
        """Return those stores or records that are of a spec."""
        nearby = self._by_images.get((kind, self._name(spec.dataset), spec.size))
        if not nearby:
            return []  # without reading the data for their digest
        sought = self._sought(spec)
        return [item for item in nearby.get(sought.spec.backbone, ()) if sought.matches(item[1])]

    def _identify(self, spec: ExtractSpec) -> Sought:
        sought = identify(replace(spec, dataset=self._name(spec.dataset)))  # reads no data
        return replace(sought, data_digests=self._known(spec.dataset, spec.size))

    def _digests(self, dataset: str, size: int | None) -> frozenset[str] | None:
        digest = self._digest_of(datasets.resolve(dataset), size, self._data_root)
        return None if digest is None else frozenset([digest])

    @cached_property
    def _made(self) -> list[tuple[Kind, str, StoreInfo | RunRecord]]:
        """All stores, and runs of the grid's protocols, on its datasets."""
        stores, runs = escape(str(self._store)), escape(str(self._runs))
        folders: dict[str, Kind] = {}
        for dataset, size in dict.fromkeys((s.dataset, s.size) for s in self._grid.specs()):
            name = escape(safe_name(self._name(dataset)))
            folders |= dict.fromkeys(_folders(f"{stores}/{name}/*/*.zarr"), "extract")
            for protocol in self._grid.protocols.names:
                below = f"{protocol}/{name}/{size or '*'}/*/*"
                own, roots = self._grid.protocols.finetune, [runs]
                if protocol == "finetune" and own is not None and own.folds != (None,):
                    roots += [f"{runs}/{FOLDED}", f"{runs}/{FOLDED}/fold*"]
                for root in roots:
                    folders |= dict.fromkeys(_folders(f"{root}/{below}"), protocol)
        every = ((kind, path, _made_in(path)) for path, kind in folders.items())
        # What is of corrupted test images is no job of a grid, nor what one costs.
        return [
            (kind, path, made)
            for kind, path, made in every
            if made is not None and made.spec.corruption is None
        ]

    @cached_property
    def _by_images(self) -> dict[tuple[Kind, str, int | None], dict[str, list[_Made]]]:
        """What has been made by kind and images, and then by any name of the backbone."""
        found: Any = defaultdict(lambda: defaultdict(list))
        for kind, path, made in self._made:
            for size in {made.size, None}:
                for backbone in {made.backbone, made.tag, made.spec.backbone}:
                    found[kind, made.dataset, size][backbone].append((path, made))
        return found  # type: ignore[no-any-return]

    def past_jobs(self) -> Iterator[PastJob]:
        """Yield what extractions and runs on the grid's datasets have cost."""
        datasets_of = {self._name(dataset): dataset for dataset in self._grid.datasets}
        backbones = {PIXELS, *PAPER, *self._grid.backbones}
        for kind, _, made in self._made:
            if made.dataset not in datasets_of or made.backbone not in backbones:
                continue  # its name differs in what no folder's name can hold
            spec = replace(made.spec, dataset=datasets_of[made.dataset], backbone=made.backbone)
            options, epochs, cost = {}, 1, made.cost
            if isinstance(made, RunRecord):
                if made.folds is not None:
                    continue  # the costs of several
                options = made.config.get("recipe", {})
                epochs = (made.epochs_run or 1) * cost.get("shared_by", 1)
                cost = {"seconds": made.seconds, **cost}
            on_gpu = not str(cost.get("device", "")).endswith("threads)")
            yield PastJob(Job(kind, spec, options, 1), epochs, cost.get("seconds", 0.0), on_gpu)


def _digest_of(ref: DatasetRef, size: int | None, data_root: Path) -> str | None:
    path = datasets.path(ref, size, data_root)
    if not path.exists():
        return None
    if not path.is_file():  # a folder of images does not tell of a change
        return datasets.load(ref, size, data_root, say=False).digest
    return _digest_of_file(ref, size, data_root, _state(path.stat()))


@cache
def _digest_of_file(
    ref: DatasetRef, size: int | None, data_root: Path, state: tuple[int, ...]
) -> str:
    return datasets.load(ref, size, data_root, say=False).digest


def _state(file: os.stat_result) -> tuple[int, ...]:
    """Return what a file changes in when it is written: what was read once, the next plan knows."""
    return file.st_ino, file.st_mtime_ns, file.st_size


def _folders(pattern: str) -> list[str]:
    """Return what matches, but for hidden folders; text, since thousands of paths take long."""
    return sorted(iglob(pattern))  # noqa: PTH207


def _made_in(folder: str) -> StoreInfo | RunRecord | None:
    file = "zarr.json" if folder.endswith(".zarr") else RECORD_FILE
    try:
        return _read(folder, _state(os.stat(f"{folder}/{file}")))  # noqa: PTH116
    except OSError:
        return None


@cache
def _read(folder: str, state: tuple[int, ...]) -> StoreInfo | RunRecord | None:
    """Return what a folder holds, unless it is damaged: then the job will say so, or repair it."""
    path = Path(folder)
    try:
        return read_info(path) if path.suffix == ".zarr" else read_record(path, sealed=False)
    except (MedplusError, OSError) as error:
        log.info("%s", error)
        return None

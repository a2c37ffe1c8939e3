"""What exists on disk: the stores and records that a grid's jobs may have made already."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from glob import escape, iglob
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medplus.backbones.catalog import PAPER
from medplus.datasets import sources as datasets
from medplus.datasets.dataset import DatasetRef
from medplus.embeddings.info import StoreInfo, read_info
from medplus.embeddings.select import Sought, identify
from medplus.errors import MedplusError
from medplus.naming import safe_name
from medplus.remembered import read_once
from medplus.run.folds import FOLDED
from medplus.run.ledger import RECORD_FILE, read_record
from medplus.run.record import RunRecord
from medplus.spec import PIXELS, ExtractSpec
from medplus.sweep.grid import Grid
from medplus.sweep.job import Job, Kind, Place

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
    place : Place
    reads : bool
        Read data, and cache them, where their digest is needed; else what is not known goes by its
        name.
    """

    def __init__(self, grid: Grid, place: Place, reads: bool = True) -> None:
        self._grid, self._place, self._reads = grid, place, reads
        self._name, self._known = cache(datasets.name_of), cache(self._digests)
        self._sought = cache(lambda spec: identify(replace(spec, dataset=self._name(spec.dataset))))

    def store_of(self, spec: ExtractSpec) -> tuple[str, StoreInfo] | None:
        """Return the path of a spec's complete store, and its info; of several, the last made."""
        found = [
            (path, made)
            for path, made in self._like("extract", spec)
            if isinstance(made, StoreInfo) and made.complete
        ]
        return max(found, key=lambda item: item[1].created, default=None)

    def records_of(
        self, protocol: Kind, spec: ExtractSpec, config: Mapping[str, Any] = MappingProxyType({})
    ) -> list[RunRecord]:
        """Return the records of a protocol on a spec that have this in their configuration."""
        return [
            made
            for _, made in self._like(protocol, spec)
            if isinstance(made, RunRecord) and config.items() <= made.config.items()
        ]

    def _like(self, kind: Kind, spec: ExtractSpec) -> list[_Made]:
        """Return those stores or records that are of a spec."""
        sought: Sought = self._sought(spec)
        nearby = self._named[kind, sought.spec.dataset, spec.size, sought.spec.backbone]
        if not nearby:
            return []  # without reading the data for their digest
        sought = replace(sought, data_digests=self._known(spec.dataset, spec.size))
        return [item for item in nearby if sought.matches(item[1])]

    def _digests(self, dataset: str, size: int | None) -> frozenset[str] | None:
        ref, root = datasets.resolve(dataset), Path(self._place.data_root)
        path = datasets.path(ref, size, root)
        if not self._reads:
            digest = datasets.known_digest(ref, size, root)
        elif path.is_file():
            digest = read_once(str(path), _digest, ref, size, root)
        else:  # a folder of images does not tell of a change
            digest = _digest(ref, size, root) if path.exists() else None
        return None if digest is None else frozenset([digest])

    @cached_property
    def _made(self) -> list[tuple[Kind, str, StoreInfo | RunRecord]]:
        """All stores, and runs of the grid's protocols, on its datasets."""
        stores, runs = escape(self._place.store), escape(self._place.runs)
        patterns: dict[str, Kind] = {}
        for dataset, size in dict.fromkeys((s.dataset, s.size) for s in self._grid.specs()):
            name = escape(safe_name(self._name(dataset)))
            patterns[f"{stores}/{name}/*/*.zarr"] = "extract"
            for protocol in self._grid.protocols.names:
                # Heads of folds are no jobs of a grid.
                folded = ("", f"{FOLDED}/", f"{FOLDED}/fold*/")
                for below in folded if protocol == "finetune" else folded[:1]:
                    patterns[f"{runs}/{below}{protocol}/{name}/{size or '*'}/*/*"] = protocol
        # What is of corrupted test images is no job of a grid, nor what one costs.
        return [
            (kind, path, made)
            for pattern, kind in patterns.items()
            for path in sorted(iglob(pattern))  # noqa: PTH207 - text, and no hidden folders
            if (made := _made_in(path)) is not None and made.spec.corruption is None
        ]

    @cached_property
    def _named(self) -> defaultdict[tuple[Kind, str, int | None, str], list[_Made]]:
        """What has been made, by kind, images, and any name of the backbone."""
        found = defaultdict(list)
        for kind, path, made in self._made:
            names = {made.backbone, made.tag, made.spec.backbone}
            for size, backbone in product({made.size, None}, names):
                found[kind, made.dataset, size, backbone].append((path, made))
        return found

    def past_jobs(self) -> Iterator[tuple[Job, bool]]:
        """Yield the extractions and runs on the grid's datasets, and whether on a GPU."""
        datasets_of = {self._name(dataset): dataset for dataset in self._grid.datasets}
        backbones = {PIXELS, *PAPER, *self._grid.backbones}
        for kind, _, made in self._made:
            if made.dataset not in datasets_of or made.backbone not in backbones:
                continue  # its name differs in what no folder's name can hold
            spec = replace(made.spec, dataset=datasets_of[made.dataset], backbone=made.backbone)
            options = {}
            if isinstance(made, RunRecord):
                if made.folds is not None:
                    continue  # the costs of several
                epochs = (made.epochs_run or 1) * made.cost.get("shared_by", 1)
                options = {**made.config.get("recipe", {}), "epochs": epochs}
            on_gpu = not str(made.cost.get("device", "")).endswith("threads)")
            yield Job(kind, spec, options, 1, seconds=made.cost.get("seconds", 0.0)), on_gpu


def _digest(ref: DatasetRef, size: int | None, data_root: Path) -> str:
    return datasets.load(ref, size, data_root, say=False).digest


def _made_in(folder: str) -> StoreInfo | RunRecord | None:
    file = "zarr.json" if folder.endswith(".zarr") else RECORD_FILE
    try:
        return read_once(f"{folder}/{file}", _read, folder)
    except OSError:
        return None


def _read(folder: str) -> StoreInfo | RunRecord | None:
    """Return what a folder holds, unless it is damaged: then the job will say so, or repair it."""
    path = Path(folder)
    try:
        return read_info(path) if path.suffix == ".zarr" else read_record(path, sealed=False)
    except (MedplusError, OSError) as error:
        log.info("%s", error)
        return None

"""What exists on disk: the stores and records that a grid's jobs may have made already."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from medplus.backbones.catalog import PIXELS, PRELOGITS
from medplus.backbones.finetuned import is_finetuned, read_description, trained_sha256
from medplus.backbones.weights import weights_label
from medplus.datasets import sources
from medplus.datasets.dataset import DatasetRef
from medplus.embeddings.store import StoreInfo, read_info
from medplus.errors import MedplusError
from medplus.naming import safe_name
from medplus.runs.ledger import RECORD_FILE, read_record
from medplus.runs.record import RunRecord
from medplus.sweep.estimate import PAPER_COSTS, PastJob, count_images, network_of, work_of
from medplus.sweep.grid import AUTO, Cell, Grid
from medplus.sweep.job import Kind

log = logging.getLogger(__name__)


class Inventory:
    """The stores and runs under two roots, as far as they may belong to a grid.

    A job is recognised by what a grid says of it, and by the digests of the data and of a
    fine-tuned run's weights; other weights go by their names, so that planning loads no network.
    What has changed behind a name is noticed by the job itself, since stores and runs carry the
    digests of all that they were made from.

    Parameters
    ----------
    grid : Grid
    data_root, store, runs : Path
    digest_of : callable, optional
        Identifies a dataset at a size under the data root, or returns None to go by its name; if
        not given, the data are read, and cached, where that is needed.
    """

    def __init__(
        self,
        grid: Grid,
        data_root: Path,
        store: Path,
        runs: Path,
        digest_of: Callable[[DatasetRef, int | None, Path], str | None] = sources.digest,
    ) -> None:
        self._grid = grid
        self._digest_of = digest_of
        self._data_root, self._store, self._runs = data_root, store, runs
        self._digests: dict[tuple[str, int | None], str | None] = {}
        self._weights = weights_label(grid.weights)
        self._trained = {  # name and digest of the fine-tuned runs among the backbones
            name: (read_description(Path(name)).name, trained_sha256(Path(name)))
            for name in grid.backbones
            if is_finetuned(name)
        }

    def store_of(self, cell: Cell) -> tuple[Path, StoreInfo] | None:
        """Return the complete store of a cell; of several, the one made last."""
        found = [
            (path, info)
            for path, info in self._stores.get((_name(cell), cell.size), ())
            if info.complete and self._made_store(info, cell)
        ]
        return max(found, key=lambda item: item[1].created, default=None)

    def records_of(self, protocol: str, cell: Cell) -> list[RunRecord]:
        """Return a cell's records of a protocol; a caller looks at their recipe and seed."""
        made = self._made_head if protocol != "finetune" else self._made_network
        nearby = self._records.get((protocol, _name(cell), cell.size), ())
        return [record for record in nearby if made(record, cell)]

    @cached_property
    def _stores(self) -> dict[tuple[str, int | None], list[tuple[Path, StoreInfo]]]:
        found: dict[tuple[str, int | None], list[tuple[Path, StoreInfo]]] = {}
        for name in dict.fromkeys(_name(cell) for cell in self._grid.cells()):
            for path in sorted((self._store / safe_name(name)).glob("*/[!.]*.zarr")):
                try:
                    info = read_info(path)
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
        for cell in self._grid.cells():
            names.setdefault(safe_name(_name(cell)), set()).add(cell.size)
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
        datasets = {_name(cell): cell.dataset for cell in self._grid.cells()}
        for stores in self._stores.values():
            for _, info in stores:
                if info.dataset not in datasets:
                    continue  # its name differs in what no folder's name can hold
                cell = Cell(datasets[info.dataset], info.size, info.backbone)
                options = {"fit": info.key["preprocess"]["fit"], "feature": info.key["feature"]}
                yield from self._past("extract", cell, options, 1, info.cost)
        for records in self._records.values():
            for record in records:
                if record.dataset not in datasets:
                    continue
                cell = Cell(datasets[record.dataset], record.size, record.backbone)
                made_from = record.store or record.network or {}
                settings = {name: made_from.get(name) for name in ("fit", "feature")}
                options = {**record.config.get("recipe", {}), **settings}
                cost = {"seconds": record.seconds, **record.cost}
                epochs = (record.epochs_run or 1) * record.cost.get("shared_by", 1)
                yield from self._past(record.protocol, cell, options, epochs, cost)

    def _past(
        self, kind: Kind, cell: Cell, options: dict[str, Any], epochs: int, cost: dict[str, Any]
    ) -> Iterator[PastJob]:
        if cell.backbone not in PAPER_COSTS and cell.backbone not in self._grid.backbones:
            return
        counts = count_images(cell, self._data_root)
        network = network_of(cell.backbone, options.get("feature") or PRELOGITS)
        work = work_of(kind, counts, network, options, epochs)
        on_gpu = not str(cost.get("device", "")).endswith("threads)")
        yield PastJob(kind, cell.backbone, work, float(cost.get("seconds", 0)), on_gpu)

    def _made_store(self, info: StoreInfo, cell: Cell) -> bool:
        """Tell whether a store is what the grid's extraction of a cell makes."""
        key = info.key
        extract = self._grid.extract
        return (
            self._is_backbone(cell.backbone, info.backbone, key["backbone"], info.weights)
            and self._has_weights(cell.backbone, key["weights_sha256"])
            and self._has_feature(key["feature"])
            and info.dtype == extract.dtype
            and self._has_fit(cell.backbone, key["preprocess"]["fit"])
            and self._has_precision(cell.backbone, extract.precision, key["precision"])
            and self._has_digest(cell, key["dataset_digest"])
        )

    def _made_head(self, record: RunRecord, cell: Cell) -> bool:
        store = record.store or {}
        extract = self._grid.extract
        return (
            self._is_backbone(cell.backbone, record.backbone, store.get("backbone"), record.weights)
            and self._has_weights(cell.backbone, store.get("weights_sha256"))
            and self._has_feature(store.get("feature", PRELOGITS))
            and store.get("dtype") == extract.dtype
            and self._has_fit(cell.backbone, store.get("fit"))
            and self._has_precision(cell.backbone, extract.precision, store.get("precision"))
            and self._has_digest(cell, store.get("dataset_digest"))
        )

    def _made_network(self, record: RunRecord, cell: Cell) -> bool:
        network = record.network or {}
        return (
            self._is_backbone(
                cell.backbone, record.backbone, network.get("backbone"), record.weights
            )
            and self._has_weights(cell.backbone, network.get("weights_sha256"))
            and self._has_fit(cell.backbone, network.get("fit"))
            and self._has_digest(cell, network.get("dataset_digest"))
        )

    def _is_backbone(self, asked: str, name: str, tag: str | None, weights: str) -> bool:
        if asked in self._trained:
            return name == self._trained[asked][0]
        if asked not in (name, tag):
            return False
        return asked == PIXELS or weights == self._weights

    def _has_weights(self, asked: str, sha256: Any) -> bool:
        return asked not in self._trained or sha256 == self._trained[asked][1]

    def _has_fit(self, asked: str, fit: Any) -> bool:
        if asked == PIXELS or (self._grid.fit is None and asked in self._trained):
            return True
        return bool(fit == (self._grid.fit or "pad"))

    def _has_feature(self, feature: str) -> bool:
        return feature in (PIXELS, self._grid.extract.feature)  # raw pixels have no other

    def _has_precision(self, asked: str, wanted: str, precision: Any) -> bool:
        return asked == PIXELS or wanted in (AUTO, precision)

    def _has_digest(self, cell: Cell, digest: Any) -> bool:
        """Compare the data; those that are not at hand go by their name."""
        images = (cell.dataset, cell.size)
        if images not in self._digests:
            ref = sources.resolve(cell.dataset)
            self._digests[images] = self._digest_of(ref, cell.size, self._data_root)
        return self._digests[images] in (None, digest)


def _name(cell: Cell) -> str:
    return sources.name_of(cell.dataset)


def _read(folder: Path) -> Iterator[RunRecord]:
    """Yield the record of a run, unless it is damaged: then the job will say so."""
    try:
        yield read_record(folder)
    except MedplusError as error:
        log.warning("%s", error)

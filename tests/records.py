"""Records of runs that have not been, with whatever fields a test is about."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medplus.run.ledger import run_folder
from medplus.run.record import RunRecord
from medplus.run.scoring import Samples
from medplus.spec import ExtractSpec
from medplus.training.history import EpochRow
from medplus.vocabulary import Split


def samples(
    labels: Mapping[Split, Any],
    names: Mapping[Split, Any] | None = None,
    groups: Mapping[Split, Any] | None = None,
    index: Mapping[Split, Any] | None = None,
) -> dict[Split, Samples]:
    """Return what is known of rows, by split; by default their numbers alone."""
    return {
        split: Samples(
            own,
            np.arange(len(own)) if index is None else index[split],
            names=() if names is None else names[split],
            groups=() if groups is None else groups[split],
        )
        for split, own in labels.items()
    }


def make_record(
    root: Path | str = "runs",
    *,
    protocol: str = "probe",
    dataset: str = "toy",
    size: int = 28,
    backbone: str = "toynet",
    weights: str = "none",
    fit: str = "pad",
    feature: str = "prelogits",
    precision: str = "fp32",
    dtype: str | None = "float32",
    classes: int | list[str] = 3,
    run_id: str = "run-00000000",
    **fields: Any,
) -> RunRecord:
    """Return a record under a root of runs; further keywords are its fields."""
    names = [f"class {i}" for i in range(classes)] if isinstance(classes, int) else classes
    on_images = protocol == "finetune"
    choices: tuple[Any, ...] = (weights, fit, feature, precision, None if on_images else dtype)
    known: dict[str, Any] = {
        "spec": ExtractSpec(dataset, size, backbone, *choices),
        "path": str(run_folder(Path(root), protocol, dataset, size, backbone, run_id)),
        "tag": f"{backbone}.tag",
        "weights_sha256": "w" * 64,
        "backbone_digest": "b" * 64,
        "dataset_digest": "d" * 64,
        "task": "multi-class",
        "classes": names,
        "data_source": "custom",
        "licence": "",
        "metrics": {"val": {"acc": 0.5}, "test": {"acc": 0.5}},
        "seconds": 1.0,
        "cost": {},
        "config": {},
        "store": None if on_images else {"path": "/nowhere.zarr", "key": "k" * 64},
        "environment": {},
        "created": "2024-01-01T00:00:00Z",
    }
    named = {"protocol": protocol, "dataset": dataset, "size": size, "backbone": backbone}
    return RunRecord(**{**known, **named, "weights": weights, "run_id": run_id, **fields})


def read_history(path: Path) -> list[EpochRow]:
    """Return the rows of a ``history.csv``."""
    with path.open(newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return [EpochRow(**{name: cell or None for name, cell in row.items()}) for row in rows]

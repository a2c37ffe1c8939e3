"""Runs as a ledger holds them, made without training: records, predictions, and tables of runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medplus.config import finetune_recipe
from medplus.jsonfile import digest_of
from medplus.run.ledger import save_run
from medplus.run.record import Protocol, RunRecord
from tests import records

PROBE: dict[str, Any] = {
    "lr": 1e-4,
    "weight_decay": 0.01,
    "epochs": 100,
    "batch_size": 64,
    "patience": 5,
}
KNN: dict[str, Any] = {"k": 11, "metric": "l2", "vote": "majority"}
EMPTY: Mapping[str, np.ndarray] = {}


def make_record(
    root: Path,
    protocol: Protocol = "probe",
    dataset: str = "breastmnist",
    backbone: str = "resnet18",
    size: int = 28,
    seed: int | None = 1,
    acc: float | None = 0.8,
    val: float = 0.7,
    *,
    auc: float | None = 0.9,
    interval: tuple[float, float] | None = None,
    images: str = "images",
    weights_digest: str = "weights",
    weights: str = "imagenet",
    fit: str = "pad",
    precision: str = "fp32",
    data: str = "official",
    created: str = "2026-01-01T00:00:00Z",
    cost: dict[str, Any] | None = None,
    task: str = "binary-class",
    **recipe: Any,
) -> RunRecord:
    """Return the record of a run that has not been; further keywords change its recipe."""
    identity = [dataset, size, backbone, images, weights_digest, fit, precision]
    store = None
    if protocol == "finetune":
        settings = {**finetune_recipe("paper").model_dump(mode="json"), **recipe}
        config = {"recipe": settings, "seed": seed, "devices": 1, "of": identity}
    else:
        key = digest_of({"of": identity})
        store = {"path": "/nowhere.zarr", "key": key}
        head: dict[str, Any] = KNN if protocol == "knn" else {**PROBE, "seed": seed}
        config = {"store": key, **head, **recipe}
    return records.make_record(
        root,
        protocol=protocol,
        dataset=dataset,
        size=size,
        backbone=backbone,
        weights=weights,
        fit=fit,
        precision=precision,
        classes=2,
        run_id=f"{protocol}-{digest_of({**config, 'created': created})[:8]}",
        dataset_digest=images,
        weights_sha256=weights_digest,
        task=task,
        data_source=data,
        licence="CC0",
        seed=None if protocol == "knn" else seed,
        metrics={
            "val": {"acc": val, "auc": 0.5},
            "test": {"acc": acc, "auc": auc, "acc_ci95": interval},
        },
        cost={"device": "cpu"} if cost is None else cost,
        config=config,
        store=store,
        created=created,
    )


def write_record(
    root: Path, *arguments: Any, predictions: Mapping[str, np.ndarray] = EMPTY, **settings: Any
) -> RunRecord:
    """Save the record of a run as `make_record` makes it, with its predictions."""
    record = make_record(root, *arguments, **settings)
    save_run(record, predictions)
    return record


def predict(
    n: int = 40, right: float = 0.8, seed: int = 0, truth_seed: int = 0
) -> dict[str, np.ndarray]:
    """Return predictions of a binary task of which about a share `right` is right."""
    rng = np.random.default_rng(seed)
    true = np.random.default_rng(truth_seed).integers(0, 2, n)
    true[:2] = 0, 1
    hit = rng.random(n) < right
    guess = np.where(hit, true, 1 - true)
    score = np.where(guess == 1, 0.5, 0.0) + rng.random(n) * 0.49 + 0.005
    return {
        "test_score": np.stack([1 - score, score], axis=1).astype(np.float32),
        "test_true": true[:, None],
        "test_index": np.arange(n),
    }


def accuracy(predictions: Mapping[str, np.ndarray]) -> float:
    """Return the share of right predictions, between 0 and 1."""
    guess = predictions["test_score"].argmax(axis=1)
    return float((guess == predictions["test_true"][:, 0]).mean())

"""Stores without a network: what a benchmark writes and reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from medplus.embeddings.info import StoreInfo
    from medplus.run.scoring import Samples


def describe_store(name: str, sizes: Mapping[Any, int], dim: int, n_classes: int) -> StoreInfo:
    """Describe a float32 store of a made-up backbone, still to be written."""
    from medplus.embeddings.info import StoreInfo
    from medplus.spec import SCHEMA, ExtractSpec

    spec = ExtractSpec(f"{name}.npz", 28, name, "none", "pad", "prelogits", "fp32", "float32")
    return StoreInfo(
        schema_version=SCHEMA, key=spec.key("d" * 64, "b" * 64), spec=spec, dataset=name,
        dataset_path=f"{name}.npz", dataset_digest="d" * 64, data_source="custom", licence="",
        task="multi-class", classes=[str(c) for c in range(n_classes)], backbone=name, tag=name,
        weights="none", weights_sha256="w" * 64, backbone_digest="b" * 64,
        preprocess={"fit": "pad"}, dim=dim, n_samples=dict(sizes), versions={}, created="",
    )  # fmt: skip


def samples_of(labels: Mapping[Any, np.ndarray]) -> dict[Any, Samples]:
    """Return what is known of rows that have labels, by split, and nothing else."""
    from medplus.run.scoring import Samples

    return {split: Samples(own, np.arange(len(own))) for split, own in labels.items()}


def write_rows(path: Path, rows: np.ndarray) -> None:
    """Write a store whose train split has these rows, float32, shape (N, D)."""
    from medplus.embeddings.writer import open_writer

    sizes = {"train": len(rows), "val": 1, "test": 1}
    info = describe_store("rows", sizes, rows.shape[1], 2)
    samples = samples_of({split: np.zeros((n, 1), np.uint8) for split, n in sizes.items()})
    with open_writer(path, info, samples) as writer:
        for split, numbers in writer.missing.items():
            layout = info.layout(split)
            for chunk in numbers:
                writer.commit(split, chunk, rows[layout.rows(chunk)])
        writer.finish({})

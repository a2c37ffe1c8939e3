"""Runs of every protocol on tiny images, made once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medplus
from medplus.embeddings.derived import DerivedStore
from medplus.embeddings.transform import Transform
from medplus.run.folds import Folds
from medplus.run.record import RunRecord

SIZE = 8


@dataclass(frozen=True)
class House:
    """Where data, stores and runs lie, and the runs by name."""

    root: Path
    runs: dict[str, RunRecord]

    def npz(self, name: str) -> Path:
        """Return the npz file that a run was made on."""
        return self.root / f"{self.runs[name].dataset}.npz"

    @property
    def store(self) -> Path:
        return self.root / "embeddings"


@pytest.fixture(scope="session")
def house(write_npz: Callable[..., Path], new_folder: Callable[[], Path]) -> House:
    """Return runs of every protocol, on images of 8 px in npz files."""
    root = new_folder()
    where = {"runs": root / "runs", "device": "cpu"}
    brief = {"epochs": 3, "lr": 0.01, **where}
    paths = {
        "toy": write_npz("toy", (60, 40, 30), SIZE, classes=3, folder=root),
        "labels": write_npz("labels", (60, 40, 30), SIZE, n_labels=3, folder=root, seed=1),
        "two": write_npz("two", (60, 40, 30), SIZE, classes=2, folder=root, seed=2),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr("medplus.training.folder.draw_learning_curve", lambda path, rows, title: None)
        stores = {
            name: medplus.extract(
                str(path), None, "pixels", store=root / "embeddings", device="cpu"
            )
            for name, path in paths.items()
        }
        toy = stores["toy"]
        joined = DerivedStore([toy, toy], Transform.parse("pca:4"))
        runs = {
            "knn": medplus.knn(toy, 5, **where),
            "weighted": medplus.knn(toy, 5, metric="cosine", vote="distance", **where),
            "joined knn": medplus.knn(DerivedStore([toy], Transform.parse("l2")), 5, **where),
            "probe": medplus.probe(toy, 1, **brief),
            "two": medplus.probe(stores["two"], 1, **brief),
            "labels": medplus.probe(stores["labels"], 1, **brief),
            "joined": medplus.probe(joined, 1, **brief),
            "folds": medplus.probe(toy, 1, folds=Folds(3), **brief),
            "finetune": medplus.finetune(str(paths["toy"]), None, "pixels", 1, epochs=1, **where),
        }
    return House(root, {name: records[0] for name, records in runs.items()})


@pytest.fixture(scope="session")
def pictures(new_folder: Callable[[], Path]) -> Path:
    """Return a folder of images, in colour and grey, of several shapes: split/class/image."""
    root = new_folder() / "pictures"
    rng = np.random.default_rng(3)
    for split, n in (("train", 14), ("val", 12), ("test", 6)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                shape = (10 + i % 5, 12) if i % 2 else (10, 10 + i, 3)
                pixels = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root

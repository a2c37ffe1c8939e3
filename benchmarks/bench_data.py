"""Reading a dataset, for the first time and again, against np.load, medmnist's classes, memcpy."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Result, compare, interleave, seconds
from benchmarks.work import write_images
from medplus.datasets import cache
from medplus.datasets.sources import load_dataset

SIZES = (
    (28, (546, 78, 156)),  # BreastMNIST's
    (28, (8_000, 1_000, 1_000)),
    (28, (48_000, 6_000, 6_000)),
    (224, (640, 80, 80)),
)
ROUNDS = 5


def run() -> list[Result]:
    return [result for size, n in SIZES for result in _at(size, n)]


def _at(size: int, n: tuple[int, int, int]) -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        npz = write_images(Path(folder) / "noise.npz", n, size, compressed=True)
        first, load = [], []
        for _ in range(ROUNDS):
            shutil.rmtree(npz.parent / cache.FOLDER, ignore_errors=True)
            first.append(seconds(lambda: _touch(npz)))
            load.append(seconds(lambda: _np_load(npz)))
        raw = npz.parent / "raw"
        raw.write_bytes(b"".join(np.ascontiguousarray(a).tobytes() for a in _np_load(npz)))
        times = interleave(
            {
                "open": lambda: load_dataset(str(npz)),
                "again": lambda: _touch(npz),
                "np.load": lambda: _np_load(npz),
                "raw": lambda: np.fromfile(raw, np.uint8),
                "medmnist": lambda: _medmnist(npz),
            },
            ROUNDS,
        )
    what = f"{sum(n):,} images of {size} px"
    return [
        compare(f"np.load of the npz ÷ second open, {what}", times["np.load"], times["open"],
                "≥ 50"),
        compare(f"np.load of the npz ÷ second read of every pixel, {what}", times["np.load"],
                times["again"], "≥ 50"),
        compare(f"second read of every pixel ÷ raw file read, {what}", times["again"],
                times["raw"], ""),
        compare(f"medmnist's dataset and DataLoader ÷ second read of every pixel, {what}",
                times["medmnist"], times["again"], ""),
        compare(f"first read, with digest and cache ÷ np.load, {what}", first, load, ""),
    ]  # fmt: skip


def _touch(npz: Path) -> None:
    """Copy every image into memory."""
    for split in load_dataset(str(npz)).splits.values():
        np.array(split.images)


def _np_load(npz: Path) -> list[np.ndarray]:
    with np.load(npz) as arrays:
        return [arrays[name] for name in arrays.files]


def _medmnist(npz: Path) -> None:
    """Read as medmnist does: np.load, then PIL images one by one through a DataLoader."""
    from torch.utils.data import DataLoader
    from torchvision.transforms import ToTensor

    with np.load(npz) as arrays:
        for split in ("train", "val", "test"):
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
            loader = DataLoader(_Images(images, labels, ToTensor()), batch_size=128)
            torch.cat([batch for batch, _ in loader])


class _Images(torch.utils.data.Dataset):
    def __init__(self, images, labels, transform) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[i])), self.labels[i].astype(int)

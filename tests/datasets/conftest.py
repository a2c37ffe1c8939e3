"""Small npz files in MedMNIST's layout, and folders of small images."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medplus.datasets import npzfile
from medplus.vocabulary import SPLITS

COUNTS = {"train": 7, "val": 3, "test": 5}


@pytest.fixture
def make_arrays() -> Callable[..., dict[str, np.ndarray]]:
    """Return a factory of random images and labels, by key as MedMNIST names them."""

    def make(
        size: int = 28, pixel_shape: tuple[int, ...] = (), n_classes: int = 2, n_labels: int = 1
    ) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(3)
        arrays: dict[str, np.ndarray] = {}
        for split in SPLITS:
            count = COUNTS[split]
            shape = (count, size, size, *pixel_shape)
            arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
            # Every class occurs, so that tasks inferred from labels are certain.
            labels = np.arange(count * n_labels).reshape(count, n_labels) % n_classes
            arrays[f"{split}_labels"] = labels.astype(np.uint8)
        return arrays

    return make


@pytest.fixture
def write_npz(
    tmp_path: Path, make_arrays: Callable[..., dict[str, np.ndarray]]
) -> Callable[..., Path]:
    """Return a function that writes an npz; arrays given by keyword replace its own, None drops."""

    def write(
        name: str = "breastmnist.npz",
        arrays: dict[str, np.ndarray] | None = None,
        compressed: bool = True,
        **replaced: Any,
    ) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        arrays = {**(make_arrays() if arrays is None else arrays), **replaced}
        kept = {key: value for key, value in arrays.items() if value is not None}
        (np.savez_compressed if compressed else np.savez)(path, **kept)
        return path

    return write


@pytest.fixture
def inflations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the arrays that were inflated, in order."""
    names: list[str] = []
    read_blocks = npzfile.read_blocks

    def counting(archive: Any, path: Path, header: npzfile.Header) -> Any:
        names.append(header.name)
        return read_blocks(archive, path, header)

    monkeypatch.setattr(npzfile, "read_blocks", counting)
    return names


@pytest.fixture
def is_mapped() -> Callable[[np.ndarray], bool]:
    """Tell whether an array is a view of a file that is mapped into memory."""

    def look(array: np.ndarray) -> bool:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        return isinstance(base, mmap.mmap)

    return look


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an array, or a picture, as ``data/<path>``."""

    def write(path: str, image: np.ndarray | Image.Image, **options: object) -> Path:
        target = tmp_path / "data" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
        picture.save(target, **options)  # type: ignore[arg-type]
        return target

    return write


@pytest.fixture
def fill(save: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes random grey images ``<place>/<i>.png`` and returns the root.

    ``fill({"train/cat": 3, "dog": 5})``; no two images are the same.
    """
    rng = np.random.default_rng(0)

    def write(counts: dict[str, int], size: Sequence[int] = (6, 6)) -> Path:
        for place, n in counts.items():
            for i in range(n):
                save(f"{place}/{i}.png", rng.integers(0, 256, size, dtype=np.uint8))
        return tmp_path / "data"

    return write

"""Small npz files in MedMNIST's layout, and a count of what is read of them."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus.datasets import npz
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
    read_blocks = npz.read_blocks

    def counting(archive: Any, path: Path, header: npz.Header) -> Any:
        names.append(header.name)
        return read_blocks(archive, path, header)

    monkeypatch.setattr(npz, "read_blocks", counting)
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

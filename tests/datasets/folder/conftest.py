"""Folders of small images, written from arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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

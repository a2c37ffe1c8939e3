"""Write a phantom to disk in MedMNIST's npz layout, and tell phantoms from real downloads."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medplus import atomic
from medplus.datasets import catalog, npzfile
from medplus.datasets.phantom.labels import draw_labels, split_counts
from medplus.datasets.phantom.painter import render, scenes
from medplus.errors import DatasetError, UsageError
from medplus.vocabulary import SPLITS

GENERATOR = "medplus phantom"
VERSION = 2
"""Raised whenever the same arguments would give other pixels or labels."""


def write_phantom(
    flag: str,
    size: int,
    out: Path,
    *,
    samples: int | None = None,
    seed: int = 0,
    difficulty: float = 0.5,
) -> Path:
    """Write the phantom of one dataset at one size.

    Parameters
    ----------
    flag : str
        One of the 12 datasets, for example ``breastmnist``.
    size : int
        28, 64, 128 or 224.
    out : Path
        Folder to write to; created if missing.
    samples : int, optional
        Total over the three splits; by default the official total, at most 1200.
    seed : int, default=0
        The same seed gives the same scenes at every size.
    difficulty : float, default=0.5
        0 (classes apart) to 1 (classes overlap).

    Returns
    -------
    Path
        ``out/breastmnist.npz`` at 28 px, ``out/breastmnist_64.npz`` at 64.

    Raises
    ------
    UsageError
        If an argument is out of range, or the file exists and is not a phantom.

    Examples
    --------
    >>> import medplus
    >>> from pathlib import Path
    >>> medplus.write_phantom("breastmnist", 28, Path("data"), samples=200)
    PosixPath('data/breastmnist.npz')
    """
    return write_phantoms(flag, [size], out, samples=samples, seed=seed, difficulty=difficulty)[0]


def write_phantoms(
    flag: str,
    sizes: Sequence[int],
    out: Path,
    *,
    samples: int | None = None,
    seed: int = 0,
    difficulty: float = 0.5,
) -> list[Path]:
    """Write the phantom of one dataset at several sizes: `write_phantom` for each, but faster.

    Sizes 28 and 64, and 128 and 224, share a painting.
    """
    if not 0.0 <= difficulty <= 1.0:
        raise UsageError(f"difficulty {difficulty} is out of range: choose from 0 to 1 (hard)")
    if seed < 0:
        raise UsageError(f"seed {seed} is negative: choose 0 or more")
    info = catalog.info(flag)
    counts = split_counts(flag, samples)
    paths = [Path(out) / info.filename(size) for size in sizes]
    for path in paths:
        if path.exists() and not is_phantom(path):
            raise UsageError(
                f"{path} exists and is not a phantom, so it is left alone. "
                "Write the phantom to another folder with --out, or move the file away."
            )
    note = {"generator": GENERATOR, "version": VERSION, "seed": seed, "difficulty": difficulty}
    note["samples"] = sum(counts.values())
    files: list[dict[str, NDArray[Any]]] = [{} for _ in sizes]
    for split in SPLITS:
        described = scenes(flag, split, counts[split], seed=seed, difficulty=difficulty)
        images = render(described, sizes)
        labels = draw_labels(flag, split, counts[split], seed)
        for size, arrays in zip(sizes, files, strict=True):
            arrays[f"{split}_images"] = images[size]
            arrays[f"{split}_labels"] = labels
    for path, arrays in zip(paths, files, strict=True):
        _save(path, {**arrays, npzfile.PHANTOM_KEY: np.array(json.dumps(note))})
    return paths


def is_phantom(path: Path) -> bool:
    """Tell whether a file is a phantom: another one is never overwritten."""
    try:
        with npzfile.open_npz(path) as archive:
            return GENERATOR in (npzfile.read_phantom_note(archive, path) or "")
    except DatasetError:
        return False


def _save(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, buffer.getbuffer())

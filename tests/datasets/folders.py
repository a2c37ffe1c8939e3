"""Reading folders, describing them, and refusals that leave nothing behind."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medplus.datasets.sources import load_dataset
from medplus.errors import MedplusError

SPLIT_FOLDERS = {f"{s}/{c}": n for s, n in (("train", 4), ("val", 2), ("test", 3)) for c in "ab"}


def load(root: Path, size: int | None = 6):
    return load_dataset(str(root), size)


def describe(root: Path, text: str) -> None:
    (root / "dataset.yaml").write_text(text)


def refusal(root: Path, kind: type[MedplusError] = MedplusError) -> str:
    """Return the message of a refusal, after which no cache and no splits may be left."""
    with pytest.raises(kind) as caught:
        load(root)
    assert not list(root.glob(".medplus-cache/*[!k]")), "half-cached"
    assert not (root / "splits.csv").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_table(root: Path, rows: list[list[object]], name: str = "labels.csv") -> None:
    root.mkdir(exist_ok=True)
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)

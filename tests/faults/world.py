"""A small data set in a folder, the commands that work on it, and all that they leave there."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medplus.tensorfile import read_tensors

NETWORK = "test_efficientnet"  # timm's smallest with batch norm
_COMPUTE = ("--weights", "none", "--fit", "native")
_BOTH = ("--dataset", "toy.npz", "--backbone", f"pixels,{NETWORK}")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "extract": ("extract", *_BOTH, *_COMPUTE, "--precision", "fp32", "--batch-size", "8"),
    "knn": ("knn", *_BOTH, "--k", "1,3,5"),
    "probe": ("probe", *_BOTH, "--seed", "1,2", "--epochs", "3"),
    "finetune": (
        "finetune", "--dataset", "toy.npz", "--backbone", NETWORK, *_COMPUTE,
        "--batch-size", "8", "--epochs", "3", "--seed", "1,2",
    ),
    "sweep": ("sweep", "grid.yaml", "--workers", "2"),
}  # fmt: skip

_GRID = f"""
datasets: toy.npz
backbones: [pixels, {NETWORK}]
weights: none
fit: native
seeds: [1, 2]
protocols:
  knn: {{k: [1, 3]}}
  probe: {{epochs: 2}}
  finetune: {{recipe: modern, epochs: 2, batch_size: 16, precision: fp32}}
exclude:
  - {{backbones: pixels, protocols: finetune}}
"""

_COSTS = {"seconds", "cost", "created", "environment", "versions", "seal", "signature", "files"}
_REMAINS = ("*.tmp*", "*.lock", "*.part", "*.partial", "best-*", "last.safetensors", ".export-*")


def make_world(folder: Path) -> None:
    """Write 28 + 12 + 10 images of 32 px in 3 classes, and a grid."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 28), ("val", 12), ("test", 10)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 32, 32), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(n, dtype=np.uint8)[:, None] % 3
    folder.mkdir(parents=True)
    np.savez(folder / "toy.npz", **arrays)
    (folder / "grid.yaml").write_text(_GRID)


def leftovers(root: Path) -> list[str]:
    """Return what a command that has ended well leaves nowhere."""
    found = {path for pattern in _REMAINS for path in root.rglob(pattern)}
    return sorted(str(path.relative_to(root)) for path in found)


def results(root: Path) -> dict[str, Any]:
    """Return the content of every file but logs, apart from times, costs, and where they lie."""
    files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".log")
    return {str(path.relative_to(root)): _content(path, root) for path in files}


def _content(path: Path, root: Path) -> Any:
    if path.suffix == ".json":
        return _plain(json.loads(path.read_text().replace(str(root), "")))
    if path.suffix == ".npz" and path.name != "toy.npz":
        with np.load(io.BytesIO(path.read_bytes())) as archive:
            return {name: archive[name].tolist() for name in archive.files}
    if path.suffix == ".safetensors":
        tensors, document = read_tensors(path)
        return document, {name: tensor.tolist() for name, tensor in tensors.items()}
    if path.suffix == ".csv":
        lines = [line.split(",") for line in path.read_text().splitlines()]
        timed = [i for i, name in enumerate(lines[0]) if "second" in name]
        return [[cell for i, cell in enumerate(line) if i not in timed] for line in lines]
    return path.read_bytes()


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {k: _plain(v) for k, v in value.items() if k not in _COSTS}
    if "training" in kept:
        kept["training"].pop("resumed")
    if "spec" in kept:
        kept["spec"].pop("dataset")  # where the data lie
    return kept


def same(found: Any, expected: Any, rounding: float) -> bool:
    """Tell whether contents are equal, their floats up to `rounding`."""
    if isinstance(expected, float):
        return isinstance(found, float) and abs(found - expected) <= rounding
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            same(found[key], value, rounding) for key, value in expected.items()
        )
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(
            same(one, other, rounding) for one, other in zip(found, expected, strict=True)
        )
    return bool(found == expected)


def finished(root: Path) -> dict[str, tuple[int, int]]:
    """Return the files of all finished work, and what changes when they are written anew.

    That is every committed chunk of embeddings and every record of a run.
    """
    found = [path for path in root.rglob("record.json") if _is_final(path.parent, root)]
    for attributes in root.rglob("*.zarr/zarr.json"):
        if not _is_final(attributes.parent, root):
            continue
        found += attributes.parent.glob("*/embeddings/c/*/0")
    stats = {str(path.relative_to(root)): path.stat() for path in found}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def _is_final(folder: Path, root: Path) -> bool:
    parts = folder.relative_to(root).parts
    return not any(part.endswith(".partial") or ".tmp-" in part for part in parts)

"""How times grow: slopes of log time over log size, where the work is linear in the size."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Result, growth, interleave
from benchmarks.stores import write_rows
from benchmarks.work import write_images
from medplus.analysis.results.runs import read_runs
from medplus.config import probe_recipe
from medplus.embeddings.extract import extract
from medplus.embeddings.store import open_store
from medplus.heads.knn import knn
from medplus.heads.knn.search import search
from medplus.heads.probe.stack import train_heads
from medplus.seal import seal

ROUNDS = 3
DIM = 256


def run() -> list[Result]:
    return [
        _grow("kNN of 500 queries: train rows (D = 256)", _knn, (10_000, 100_000, 1_000_000)),
        _grow("kNN, 20,000 × 500: dimensions", _knn_dims, (128, 512, 2048)),
        _grow("a probe's epoch: rows (D = 256)", _probe, (10_000, 100_000, 1_000_000)),
        _grow("a probe's epoch, 7,000 × 256: heads", _heads, (12, 48, 192)),
        _grow("reading a store: rows (D = 256)", _read, (10_000, 100_000, 1_000_000)),
        _grow("extract with pixels: images", _extract, (4_000, 16_000, 64_000)),
        _grow("reading records: runs", _records, (200, 800, 3_200)),
    ]


def _grow(
    name: str, prepare: Callable[[int, Path], Callable[[], object]], sizes: tuple[int, ...]
) -> Result:
    """Time what `prepare` returns for every size, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        ways: Mapping[str, Callable[[], object]] = {
            str(size): prepare(size, Path(folder) / str(size)) for size in sizes
        }
        times = interleave(ways, ROUNDS)
    return growth(name, {size: times[str(size)] for size in sizes})


def _rows(n: int, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, dim), dtype=np.float32)


def _knn(n: int, folder: Path) -> Callable[[], object]:
    train, queries = _rows(n), _rows(500)
    return lambda: search(train, queries, 11, exact_distances=False)


def _knn_dims(dim: int, folder: Path) -> Callable[[], object]:
    train, queries = _rows(20_000, dim), _rows(500, dim)
    return lambda: search(train, queries, 11, exact_distances=False)


def _probe(n: int, folder: Path) -> Callable[[], object]:
    return _train(torch.from_numpy(_rows(n)), 1)


def _heads(heads: int, folder: Path) -> Callable[[], object]:
    return _train(torch.from_numpy(_rows(7_000)), heads)


def _train(x: torch.Tensor, heads: int) -> Callable[[], object]:
    y = torch.arange(len(x)).unsqueeze(1) % 5
    rates = tuple(1e-5 * 1.02**i for i in range(heads))
    recipe = probe_recipe("paper", seeds=(1,), lr=rates, epochs=1)
    return lambda: train_heads((x, y), (x[:500], y[:500]), 5, recipe)


def _read(n: int, folder: Path) -> Callable[[], object]:
    path = folder / "x.zarr"
    write_rows(path, _rows(n))
    store = open_store(path)
    return lambda: store.embeddings("train")


def _extract(n: int, folder: Path) -> Callable[[], object]:
    folder.mkdir()
    npz = write_images(folder / "noise.npz", (n, 10, 10))

    def work() -> None:
        shutil.rmtree(folder / "stores", ignore_errors=True)
        extract(str(npz), backbone="pixels", store=folder / "stores")

    return work


def _records(n: int, folder: Path) -> Callable[[], object]:
    folder.mkdir()
    npz = write_images(folder / "noise.npz", (50, 20, 20))
    [record] = knn(extract(str(npz), backbone="pixels", store=folder / "s"), k=3,
                   runs=folder / "first")  # fmt: skip
    document = json.loads((Path(record.path) / "record.json").read_text())
    document.pop("seal")
    for number in range(n):
        run = folder / "runs" / "knn" / "noise" / "28" / f"backbone{number}" / record.run_id
        run.mkdir(parents=True)
        copy = {**document, "backbone": f"backbone{number}"}
        (run / "record.json").write_text(json.dumps(seal(copy)))
    return lambda: read_runs(folder / "runs")

"""Predicting 10,000 images with a probe against extracting them, in CPU seconds."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import Result, compare
from medplus.embeddings.extract import extract_all
from medplus.heads.probe import probe
from medplus.prediction.predict import predict
from medplus.spec import make_spec

N, REFERENCE, SIZE = 10_000, 500, 28
ROUNDS = 3


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        return _in(Path(folder))


def _in(folder: Path) -> list[Result]:
    data = _write(folder)
    spec = make_spec(str(data), None, "resnet10t", weights="none", fit="native", precision="fp32")

    def extract(store: str) -> list:
        return extract_all([spec], store=folder / store, batch_size=64, compiled=False)

    [run] = probe(extract("own")[0].store, 1, epochs=2, runs=folder / "runs")
    times: dict[str, list[float]] = {"extract": [], "predict": []}
    for _ in range(ROUNDS):
        times["extract"].append(_cpu_seconds(lambda: extract("again")))
        shutil.rmtree(folder / "again")
        times["predict"].append(
            _cpu_seconds(
                lambda: predict(
                    run.path, data, folder / "p.csv", store=folder / "own", batch_size=64,
                    overwrite=True,
                )
            )
        )  # fmt: skip
    per_image = {
        "extract": [seconds / (N + 2 * REFERENCE) for seconds in times["extract"]],
        "predict": [seconds / N for seconds in times["predict"]],
    }
    return [
        compare(f"predict ÷ extract, each image of {N:,}, resnet10t at {SIZE} px",
                per_image["predict"], per_image["extract"], "≤ 1.1", "s of CPU")
    ]  # fmt: skip


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _write(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", REFERENCE), ("val", REFERENCE), ("test", N)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, SIZE, SIZE), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n)[:, None] % 2).astype("u1")
    path = folder / "toy.npz"
    np.savez(path, **arrays)
    return path

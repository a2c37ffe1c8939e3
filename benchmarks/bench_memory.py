"""Memory against the number of rows, and what a limit on it costs, each in a process of its own.

Counted is anonymous memory: what a process takes for itself, without the files that it maps.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import Result, compare, growth
from benchmarks.stores import describe_store, samples_of

SIZES = (50_000, 200_000, 1_000_000)
DIM, N_CLASSES, QUERIES = 768, 10, 500
IMAGES = (512, 8_192)
RECORDS = (432, 4_320)
LIMIT_GIB = 2.0
ROUNDS = 2


def run() -> list[Result]:
    results = []
    peaks: dict[str, dict[int, list[float]]] = {"knn": {}, "probe": {}}
    for n in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            store = write_store(Path(folder), n)
            results += _heads(store, n, peaks, limited=n == SIZES[-1])
    grown = [
        growth(f"peak memory of {work}: rows (D = {DIM})", of, unit="GB")
        for work, of in peaks.items()
    ]
    return [*results, *grown, _extract(), _report()]


def _heads(
    store: Path, n: int, peaks_of: dict[str, dict[int, list[float]]], limited: bool
) -> list[Result]:
    """Set the peak against the features' bytes and, for the largest store, the limited run's."""
    results = []
    features = (n + 2 * QUERIES) * DIM * 4 / 1e9
    for work in ("knn", "probe"):
        free = [_child(work, str(store)) for _ in range(ROUNDS if limited else 1)]
        name = f"{work} on {n:,} × {DIM}"
        peaks = [run["peak"] / 1e9 for run in free]
        peaks_of[work][n] = peaks[:1]
        results.append(
            compare(f"{name}: peak memory ÷ its features", peaks, [features] * len(peaks), "", "GB")
        )
        if limited:
            held = [_child(work, str(store), limit=LIMIT_GIB) for _ in range(ROUNDS)]
            assert all(run["result"] == free[0]["result"] for run in (*free, *held))
            what = f"{name} within {LIMIT_GIB:g} GiB ÷ without limit"
            results += [
                compare(f"{what}: {unit}", [run[key] for run in held], [run[key] for run in free],
                        "", unit)
                for key, unit in (("seconds", "s"), ("cpu", "CPU s"))
            ]  # fmt: skip
            small = [run["peak"] / 1e9 for run in held]
            results.append(
                compare(f"{name} within {LIMIT_GIB:g} GiB: peak memory ÷ its features", small,
                        [features] * len(small), "", "GB")
            )  # fmt: skip
    return results


def _extract() -> Result:
    few, many = ([_child("extract", str(n))["peak"] / 1e6] for n in IMAGES)
    name = f"extract mobilenetv3_small_050: peak memory of {IMAGES[1]:,} ÷ {IMAGES[0]:,} images"
    return compare(name, many, few, "about 1", "MB")


def _report() -> Result:
    few, many = ([_child("report", str(n))["peak"] / 1e6] for n in RECORDS)
    name = f"report: peak memory of {RECORDS[1]:,} ÷ {RECORDS[0]:,} records"
    return compare(name, many, few, "", "MB")


# --- a store without a network --------------------------------------------------------------------


def write_store(root: Path, n: int) -> Path:
    """Write a store of Gaussian clouds: `n` train rows, and some of val and test."""
    from medplus.embeddings.writer import open_writer
    from medplus.vocabulary import SPLITS

    sizes = dict(zip(SPLITS, (n, QUERIES, QUERIES), strict=True))
    info = describe_store("clouds", sizes, DIM, N_CLASSES)
    path = root / "clouds/28" / f"clouds-{info.key[:8]}.zarr"
    rng = np.random.default_rng(0)
    centres = rng.normal(0.5, 0.1, (N_CLASSES, DIM)).astype("f4")
    labels = {s: rng.integers(0, N_CLASSES, (m, 1)).astype("u1") for s, m in sizes.items()}
    with open_writer(path, info, samples_of(labels)) as writer:
        for split in SPLITS:
            layout = info.layout(split)
            for chunk in writer.missing[split]:
                rows = centres[labels[split][layout.rows(chunk), 0]]
                rows += rng.standard_normal(rows.shape, dtype="f4")
                writer.commit(split, chunk, rows)
        writer.finish({"seconds": 1.0, "device": "none"})
    return path


# --- the child ------------------------------------------------------------------------------------


def _child(work: str, argument: str, limit: float = 0.0) -> dict:
    """Do one piece of work in a new process, with so many GiB for its data; 0 is no limit."""
    command = [sys.executable, "-m", "benchmarks.bench_memory", work, argument, str(limit)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def _heads_work(protocol: str, store: str, folder: Path) -> Callable[[], object]:
    from medplus.heads.knn import knn
    from medplus.heads.probe import probe

    def work() -> list:
        if protocol == "knn":
            records = knn(store, 11, runs=folder, device="cpu")
        else:
            records = probe(store, 1, epochs=2, runs=folder, device="cpu")
        return [record.metrics for record in records]

    return work


def _extract_work(n: int, folder: Path) -> Callable[[], object]:
    from medplus.embeddings.extract import extract

    rng = np.random.default_rng(0)
    arrays = {}
    for split, m in (("train", n), ("val", 64), ("test", 64)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (m, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (m, 1), dtype=np.uint8)
    file = folder / "noise.npz"
    np.savez(file, **arrays)

    def work() -> None:
        extract(
            str(file), backbone="mobilenetv3_small_050", weights="none", precision="fp32",
            batch_size=32, fit="native", device="cpu", store=folder / "stores",
        )  # fmt: skip

    return work


def _report_work(n: int, folder: Path) -> Callable[[], object]:
    from benchmarks.bench_report import _write_records
    from medplus.reporting.report import report

    for path in _write_records(folder / "runs")[n:]:
        path.unlink()
    return lambda: report(folder / "runs", folder / "report")


def _main(work: str, argument: str, limit: float) -> None:
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 2**30),) * 2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if work in ("knn", "probe"):
            act = _heads_work(work, argument, folder)
        else:
            act = {"extract": _extract_work, "report": _report_work}[work](int(argument), folder)
        before, peak, ended = _anonymous(), [0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.005):
                peak[0] = max(peak[0], _anonymous())

        watcher = threading.Thread(target=watch)
        watcher.start()
        clock, cpu = time.perf_counter(), time.process_time()
        result = act()
        found = {"seconds": time.perf_counter() - clock, "cpu": time.process_time() - cpu}
        ended.set()
        watcher.join()
    found |= {"peak": peak[0] - before, "result": result if isinstance(result, list) else None}
    print(json.dumps(found))


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("this kernel does not tell RssAnon")


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], float(sys.argv[3]))

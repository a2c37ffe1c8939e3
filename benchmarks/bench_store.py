"""Writing and reading a store against the raw bytes, and against zarr's and numpy's own ways."""

from __future__ import annotations

import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import zarr

from benchmarks.measure import Result, compare, interleave
from benchmarks.stores import write_rows
from medplus.embeddings.store import open_store

N, DIM = 40_000, 768
ROUNDS = 5


def run() -> list[Result]:
    values = np.random.default_rng(0).standard_normal((N, DIM), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = root / "x.zarr"
        write_rows(path, values)
        store, layout = open_store(path), open_store(path).info.layout("train")
        files = [path / layout.chunk_key(chunk) for chunk in range(layout.n_chunks)]
        times = interleave(
            {
                "ours": lambda: open_store(path).embeddings("train"),
                "visit": lambda: store.visit("train", lambda rows, block: None),
                "raw": lambda: _read_raw(files, layout.chunk_nbytes, 1),
                "threads": lambda: _read_raw(files, layout.chunk_nbytes, 4),
                "zarr": lambda: zarr.open_array(path / layout.path, mode="r")[:],
            },
            ROUNDS,
        )
        archive, plain = root / "a.npz", root / "plain"
        np.savez_compressed(archive, values)
        written = interleave(
            {
                "ours": lambda: _write(root / "y.zarr", values),
                "raw": lambda: _write_raw(plain, values),
                "npz": lambda: np.savez_compressed(root / "b.npz", values),
                "load": lambda: np.load(archive)["arr_0"],
                "read": lambda: store.embeddings("train"),
            },
            ROUNDS // 2,
        )
    size = f"{N:,} × {DIM} float32"
    return [
        compare(f"raw read of the same files ÷ store read with checksums, {size}",
                times["raw"], times["ours"], "≥ 0.5"),
        compare(f"raw read of the same files ÷ store read chunk by chunk, {size}",
                times["raw"], times["visit"], "≥ 0.5"),
        compare(f"raw read in four threads ÷ store read with checksums, {size}",
                times["threads"], times["ours"], ""),
        compare(f"zarr's own read ÷ store read with checksums, {size}",
                times["zarr"], times["ours"], "≥ 0.9"),
        compare(f"np.load of a compressed npz ÷ store read with checksums, {size}",
                written["load"], written["read"], ""),
        compare(f"raw synced write ÷ store write with checksums, {size}",
                written["raw"], written["ours"], ""),
        compare(f"np.savez_compressed ÷ store write with checksums, {size}",
                written["npz"], written["ours"], ""),
    ]  # fmt: skip


def _write(path: Path, values: np.ndarray) -> None:
    shutil.rmtree(path, ignore_errors=True)
    write_rows(path, values)


def _write_raw(path: Path, values: np.ndarray) -> None:
    """Write the bytes into one file and sync it once: the limit."""
    with path.open("wb", buffering=0) as file:
        file.write(values.data)
        os.fsync(file.fileno())


def _read_raw(files: list[Path], nbytes: int, threads: int) -> None:
    """Read the bytes of every chunk file into one buffer, unchecked: the limit."""
    buffer = np.empty(len(files) * nbytes, np.uint8).data

    def read(number: int) -> None:
        with files[number].open("rb", buffering=0) as file:
            file.readinto(buffer[number * nbytes : (number + 1) * nbytes])

    if threads == 1:
        for number in range(len(files)):
            read(number)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read, range(len(files))))

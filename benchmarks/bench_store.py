"""Writing and reading a store against the raw bytes, and against zarr's and numpy's own ways."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import zarr
from medplus.embeddings.schema import split_layout

from benchmarks.measure import Result, compare, interleave
from medplus.embeddings import chunks

N, DIM = 40_000, 768
ROUNDS = 5


def run() -> list[Result]:
    values = np.random.default_rng(0).standard_normal((N, DIM), dtype=np.float32)
    layout = split_layout("train", N, DIM, 1, "float32", np.dtype("u1"))[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sums = {
            str(chunk): chunks.write_chunk(root, layout, chunk, values[layout.rows(chunk)])
            for chunk in range(layout.n_chunks)
        }
        array = root / layout.path
        (array / "zarr.json").write_text(json.dumps(layout.metadata()))
        times = interleave(
            {
                "ours": lambda: chunks.read_rows(root, layout, sums),
                "raw": lambda: _read_raw(root, layout),
                "zarr": lambda: zarr.open_array(str(array), mode="r")[:],
            },
            ROUNDS,
        )
        archive, plain = root / "a.npz", root / "plain"
        np.savez_compressed(archive, values)
        written = interleave(
            {
                "ours": lambda: _write(root, layout, values),
                "raw": lambda: _write_raw(plain, values),
                "npz": lambda: np.savez_compressed(root / "b.npz", values),
                "load": lambda: np.load(archive)["arr_0"],
                "read": lambda: chunks.read_rows(root, layout, sums),
            },
            ROUNDS // 2,
        )
    size = f"{N:,} × {DIM} float32"
    return [
        compare(f"raw read of the same files ÷ store read with checksums, {size}",
                times["raw"], times["ours"], "≥ 0.5"),
        compare(f"zarr's own read ÷ store read with checksums, {size}",
                times["zarr"], times["ours"], "≥ 1"),
        compare(f"np.load of a compressed npz ÷ store read with checksums, {size}",
                written["load"], written["read"], ""),
        compare(f"raw synced write ÷ store write with checksums, {size}",
                written["raw"], written["ours"], ""),
        compare(f"np.savez_compressed ÷ store write with checksums, {size}",
                written["npz"], written["ours"], ""),
    ]  # fmt: skip


def _write(root, layout, values) -> None:
    for chunk in range(layout.n_chunks):
        chunks.write_chunk(root, layout, chunk, values[layout.rows(chunk)])


def _write_raw(path, values) -> None:
    """Write the bytes into one file and sync it once: the limit."""
    with path.open("wb", buffering=0) as file:
        file.write(values.data)
        os.fsync(file.fileno())


def _read_raw(root, layout) -> None:
    """Read the bytes of every chunk file into one buffer, unchecked: the limit."""
    buffer = np.empty(layout.n_chunks * layout.chunk_nbytes, np.uint8).data
    for chunk in range(layout.n_chunks):
        start = chunk * layout.chunk_nbytes
        with layout.chunk_file(root, chunk).open("rb", buffering=0) as file:
            file.readinto(buffer[start : start + layout.chunk_nbytes])

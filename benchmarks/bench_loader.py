"""A store through torch's `DataLoader`, against the same tensors in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Result, compare, interleave
from benchmarks.stores import write_rows
from medplus.embeddings.store import open_store
from medplus.embeddings.torchdata import StoreDataset

N, DIM, BATCH = 20_000, 512, 256
ROUNDS = 7


def run() -> list[Result]:
    values = np.random.default_rng(0).standard_normal((N, DIM), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.zarr"
        write_rows(path, values)
        store = open_store(path)
        held = StoreDataset(store, "train")
        tensors = TensorDataset(torch.from_numpy(values), held.labels)
        data = {"tensors": tensors, "held": held, "read": StoreDataset(store, "train", hold=False)}
        times = {
            shuffle: interleave(
                {name: lambda of=of, s=shuffle: _epoch(of, s) for name, of in data.items()}, ROUNDS
            )
            for shuffle in (False, True)
        }
    size = f"{N:,} × {DIM}, batches of {BATCH}"
    return [
        compare(f"DataLoader of a TensorDataset ÷ of a StoreDataset {told}, {order}, {size}",
                times[shuffle]["tensors"], times[shuffle][name], "≥ 1" if name == "held" else "")
        for name, told in (("held", "in memory"), ("read", "read in chunks"))
        for shuffle, order in ((False, "in order"), (True, "shuffled"))
    ]  # fmt: skip


def _epoch(data: torch.utils.data.Dataset, shuffle: bool) -> None:
    for _ in DataLoader(data, BATCH, shuffle=shuffle):
        pass

"""A data root, stores and runs that the doctor looks at, and caches of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medplus.doctor import Places
from medplus.embeddings.store import EmbeddingStore
from medplus.run.ledger import save_run
from tests.records import make_record


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast_disk: None) -> Places:
    for name in ("MEDPLUS_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "caches" / name))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    found = Places(tmp_path / "data", tmp_path / "stores", tmp_path / "runs")
    for root in (found.data, found.stores, found.runs):
        root.mkdir()
    return found


@pytest.fixture
def store(places: Places, write_store: Callable[..., EmbeddingStore]) -> EmbeddingStore:
    rng = np.random.default_rng(0)
    sizes = (1100, 20, 20)  # train has two chunks
    values = [rng.normal(size=(n, 4)).astype(np.float32) for n in sizes]
    labels = [rng.integers(0, 3, n).astype(np.uint8) for n in sizes]
    return write_store(values, labels, root=places.stores)


@pytest.fixture
def write_scored_run(places: Places) -> Callable[[str], Path]:
    """Return a function that saves a finished run, as a protocol does."""

    def write(run_id: str = "k5-0123abcd", protocol: str = "knn") -> Path:
        record = make_record(places.runs, run_id=run_id, protocol=protocol)
        folder = Path(record.path)
        scores = np.random.default_rng(0).random((50, 3), np.float32)
        head = {"weight": np.ones((3, 4), np.float32)} if protocol == "probe" else None
        save_run(record, {"test_score": scores, "test_true": np.zeros((50, 1))}, head)
        return folder

    return write

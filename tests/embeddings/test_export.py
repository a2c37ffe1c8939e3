"""Taking embeddings elsewhere: the same numbers, in one file that others read."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest

from medplus.embeddings import export
from medplus.embeddings.export import export_store
from medplus.errors import MedplusError, UsageError
from medplus.vocabulary import MULTI_LABEL, SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")


def random_store(write_store, dtype="float32", n_labels=1):
    rng = np.random.default_rng(0)
    sizes = (1100, 5, 2)
    embeddings = [rng.normal(size=(n, 3)).astype(dtype) for n in sizes]
    labels = [rng.integers(0, 2, (n, n_labels), dtype=np.uint8) for n in sizes]
    task = MULTI_LABEL if n_labels > 1 else "multi-class"
    return write_store(embeddings, labels, dtype=dtype, task=task)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_npz_holds_every_array_and_the_attributes(dtype, write_store, tmp_path):
    store = random_store(write_store, dtype)
    export_store(store, tmp_path / "new/folder/x.npz")
    with np.load(tmp_path / "new/folder/x.npz", allow_pickle=False) as file:
        parts = {f"{s}_{name}" for s in SPLITS for name in ("embeddings", "labels", "index")}
        assert set(file.files) == parts | {"medplus"}
        for split in SPLITS:
            for name in ("embeddings", "labels", "index"):
                expected = getattr(store, name)(split)
                assert file[f"{split}_{name}"].dtype == expected.dtype
                np.testing.assert_array_equal(file[f"{split}_{name}"], expected)
        assert json.loads(str(file["medplus"]))["key_digest"] == store.key


@pytest.mark.parametrize("n_labels", [1, 3])
def test_parquet_holds_one_row_per_sample(n_labels, write_store, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    store = random_store(write_store, n_labels=n_labels)
    export_store(store, tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    names = ["label"] if n_labels == 1 else [f"label_{i}" for i in range(n_labels)]
    assert table.column_names == ["split", "index", *names, "embedding"]
    assert table["split"].to_pylist() == [s for s in SPLITS for _ in store.index(s)]
    expected = np.concatenate([store.embeddings(s) for s in SPLITS])
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), "f4"), expected)
    for i, name in enumerate(names):
        labels = np.concatenate([store.labels(s)[:, i] for s in SPLITS])
        assert table[name].to_pylist() == labels.tolist()


@pytest.mark.parametrize("name", ["x.csv", "x", "x.npz.gz"])
def test_other_endings_are_refused(name, write_store, tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.npz or \.parquet"):
        export_store(random_store(write_store), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_not_overwritten(write_store, tmp_path):
    target = tmp_path / "x.npz"
    target.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        export_store(random_store(write_store), target)
    assert target.read_text() == "precious"


def test_a_damaged_store_is_not_exported(write_store, tmp_path):
    store = random_store(write_store)
    (store.path / "test/embeddings/c/0/0").unlink()
    with pytest.raises(MedplusError, match="test/embeddings damaged"):
        export_store(store, tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(write_store, tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.np, "savez", full)
    with pytest.raises(MedplusError, match=r"x\.npz cannot be written: No space left"):
        export_store(random_store(write_store), tmp_path / "x.npz")
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_the_remedy_is_named(write_store, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    store = random_store(write_store)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'medplus\[parquet\]'"):
        export_store(store, tmp_path / "x.parquet")

"""Taking embeddings elsewhere: the same numbers, in one file that others read."""

from __future__ import annotations

import json
import sys
import zipfile

import numpy as np
import pytest
import zarr
from zarr.storage import ZipStore

from medplus.embeddings import export
from medplus.embeddings.export import export_store
from medplus.embeddings.store import open_store
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
        arrays = ("embeddings", "labels", "index", "names")
        parts = {f"{s}_{name}" for s in SPLITS for name in arrays}
        assert set(file.files) == parts | {"medplus"}
        for split in SPLITS:
            for name in arrays:
                expected = np.array(getattr(store, name)(split))
                assert file[f"{split}_{name}"].dtype == expected.dtype
                np.testing.assert_array_equal(file[f"{split}_{name}"], expected)
        assert json.loads(str(file["medplus"]))["key"] == store.key


@pytest.mark.parametrize("n_labels", [1, 3])
def test_parquet_holds_one_row_per_sample(n_labels, write_store, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    store = random_store(write_store, n_labels=n_labels)
    export_store(store, tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    names = ["label"] if n_labels == 1 else [f"label_{i}" for i in range(n_labels)]
    assert table.column_names == ["split", "index", "name", *names, "embedding"]
    assert table["split"].to_pylist() == [s for s in SPLITS for _ in store.index(s)]
    expected = np.concatenate([store.embeddings(s) for s in SPLITS])
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), "f4"), expected)
    for i, name in enumerate(names):
        labels = np.concatenate([store.labels(s)[:, i] for s in SPLITS])
        assert table[name].to_pylist() == labels.tolist()


def test_an_archive_is_the_store_itself_to_medplus_and_to_zarr(write_store, tmp_path):
    store = random_store(write_store)
    export_store(store, tmp_path / "x.zarr.zip")
    export_store(open_store(tmp_path / "x.zarr.zip"), tmp_path / "again.zarr.zip")
    assert (tmp_path / "x.zarr.zip").read_bytes() == (tmp_path / "again.zarr.zip").read_bytes()
    archive = open_store(str(tmp_path / "x.zarr.zip"))
    assert archive.info == store.info
    assert archive.verify() == []
    theirs = zarr.open_group(ZipStore(tmp_path / "x.zarr.zip", mode="r"), mode="r")
    for split in SPLITS:
        seen = []
        archive.visit(split, lambda rows, values, seen=seen: seen.append((rows.start, +values)))
        expected = store.embeddings(split)
        rows = np.concatenate([values for _, values in sorted(seen, key=lambda one: one[0])])
        for found in (archive.embeddings(split), rows, theirs[split]["embeddings"][:]):
            np.testing.assert_array_equal(found, expected)
        for name in ("labels", "index", "names"):
            np.testing.assert_array_equal(
                getattr(archive, name)(split), getattr(store, name)(split)
            )
    with zipfile.ZipFile(tmp_path / "x.zarr.zip") as file:
        file.extractall(tmp_path / "x.zarr")
    assert open_store(tmp_path / "x.zarr").verify() == []


def test_damage_anywhere_in_an_archive_is_found_or_means_nothing(write_store, tmp_path):
    rng = np.random.default_rng(0)
    store = write_store([rng.normal(size=(2, 2)).astype("f4")] * 3, [np.array([0, 1])] * 3)
    path = tmp_path / "x.zarr.zip"
    export_store(store, path)
    intact = path.read_bytes()
    expected = [store.embeddings(split).tolist() for split in SPLITS]
    for position in range(0, len(intact), 113):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << position % 8
        for content in (bytes(damaged), intact[:position]):
            path.write_bytes(content)
            try:
                found = open_store(path)
                read = [found.embeddings(split).tolist() for split in SPLITS]
                damage = found.verify()
            except MedplusError:
                continue
            assert damage or read == expected, position
    path.write_bytes(intact)
    assert open_store(path).verify() == []


def test_an_archive_that_lacks_a_chunk_or_is_cut_says_to_copy_it_again(write_store, tmp_path):
    export_store(random_store(write_store), tmp_path / "x.zarr.zip")
    with (
        zipfile.ZipFile(tmp_path / "x.zarr.zip") as whole,
        zipfile.ZipFile(tmp_path / "part.zarr.zip", "w") as part,
    ):
        for entry in whole.infolist():
            if entry.filename != "train/embeddings/c/1/0":
                part.writestr(entry, whole.read(entry))
    with pytest.raises(MedplusError, match=r"1 of 2 chunks .*first: 1.*copy or export it again"):
        open_store(tmp_path / "part.zarr.zip").embeddings("train")
    cut = (tmp_path / "x.zarr.zip").read_bytes()[:-30]
    (tmp_path / "cut.zarr.zip").write_bytes(cut)
    with pytest.raises(MedplusError, match="no archive that can be read"):
        open_store(tmp_path / "cut.zarr.zip")


def test_an_archive_whose_metadata_inflate_to_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zarr.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zarr.json", b" " * 2**25)
    with pytest.raises(MedplusError, match=r"zarr\.json is too large"):
        open_store(tmp_path / "x.zarr.zip")


@pytest.mark.parametrize("name", ["x.csv", "x", "x.npz.gz", "x.zip", "x.zarr"])
def test_other_endings_are_refused(name, write_store, tmp_path):
    with pytest.raises(UsageError, match=r"must end in .npz, .parquet or .zarr.zip"):
        export_store(random_store(write_store), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_not_overwritten(write_store, tmp_path):
    target = tmp_path / "x.npz"
    target.write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        export_store(random_store(write_store), target)
    assert target.read_text() == "precious"


@pytest.mark.parametrize("name", ["x.npz", "x.zarr.zip"])
def test_a_damaged_store_is_not_exported(name, write_store, tmp_path):
    store = random_store(write_store)
    (store.path / "test/embeddings/c/0/0").unlink()
    with pytest.raises(MedplusError, match=r"damaged.*test/embeddings|test/embeddings damaged"):
        export_store(store, tmp_path / name)
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
    store = random_store(write_store)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pip install pyarrow"):
        export_store(store, tmp_path / "x.parquet")

"""Embeddings that were made elsewhere: files as their tools write them, read independently."""

from __future__ import annotations

import csv
import io
import logging
import pickle
import shlex
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import medplus
from medplus.embeddings.export import export_store
from medplus.embeddings.imported.importing import import_store
from medplus.embeddings.store import open_store
from medplus.errors import DatasetError, MedplusError, UsageError
from medplus.robustness.selection import select_runs
from medplus.vocabulary import MULTI_LABEL, SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")

N, DIM = 30, 5


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)


@pytest.fixture
def words() -> list[str]:
    return ["yes" if i % 3 else "no" for i in range(N)]


def imported(path, tmp_path, **options):
    return import_store(path, "mine", "net", store=tmp_path / "embeddings", **options).store


def by_name(store):
    """Return each row's name, with its embedding, class and split, read from the whole store."""
    return {
        name: (values, store.info.classes[label[0]], split)
        for split in SPLITS
        for name, values, label in zip(
            store.names(split), store.embeddings(split), store.labels(split), strict=True
        )
    }


def holds(store, names, values, words):
    """Check that every row stands under its name, with its class, once."""
    found = by_name(store)
    assert sorted(found) == sorted(names)
    for name, value, word in zip(names, values, words, strict=True):
        np.testing.assert_array_equal(found[name][0], value)
        assert found[name][1] == word


def write_table(path: Path, columns: dict[str, list[str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


# --- there and back ------------------------------------------------------------------------------

NAMES = st.lists(
    st.text("abcäß .-_0123456789", min_size=1, max_size=8).map(lambda s: f"n/{s.strip(' .')}x"),
    min_size=12,
    max_size=12,
    unique=True,
)


@settings(max_examples=10)
@given(
    dtype=st.sampled_from(["float32", "float16"]),
    task=st.sampled_from(["multi-class", "binary-class", "ordinal-regression", MULTI_LABEL]),
    ending=st.sampled_from([".npz", ".parquet"]),
    grouped=st.booleans(),
    names=NAMES,
    seed=st.integers(0, 99),
)
def test_an_exported_store_comes_back(
    write_store, new_folder, dtype, task, ending, grouped, names, seed
):
    rng = np.random.default_rng(seed)
    sizes = (6, 3, 3)
    n_classes = {"binary-class": 2, MULTI_LABEL: 4}.get(task, 3)
    width, highest = (4, 2) if task == MULTI_LABEL else (1, n_classes)
    ends = np.cumsum((0, *sizes))
    parts = [slice(a, b) for a, b in pairwise(ends)]
    labels = rng.integers(0, highest, (12, width), dtype=np.uint8)
    labels[: highest if width == 1 else 0, 0] = np.arange(highest if width == 1 else 0)
    values = rng.normal(size=(12, DIM)).astype(dtype)
    kept = {"groups": [[f"p{s}{i // 2}" for i in range(n)] for s, n in enumerate(sizes)]}
    store = write_store(
        [values[p] for p in parts],
        [labels[p] for p in parts],
        names=[names[p] for p in parts],
        index=[np.sort(rng.choice(99, n, replace=False)) for n in sizes],
        dtype=dtype,
        task=task,
        classes=[f"{10 - i}" for i in range(n_classes)],
        **(kept if grouped else {}),
    )
    folder = new_folder()
    export_store(store, folder / f"there{ending}")

    back = imported(folder / f"there{ending}", folder)

    for split in SPLITS:
        for what in ("embeddings", "labels", "index", "names", "groups"):
            found, known = getattr(back, what)(split), getattr(store, what)(split)
            strict = what != "groups" and (what, ending) != ("embeddings", ".parquet")  # float32
            np.testing.assert_array_equal(found, known, strict=strict)
    same = ("task", "classes", "size", "n_samples", "dim")
    assert [getattr(back.info, n) for n in same] == [getattr(store.info, n) for n in same]
    assert back.info.spec.dtype == ("float32" if ending == ".parquet" else dtype)


# --- one file ------------------------------------------------------------------------------------


def test_arrays_of_an_npz(rows, words, tmp_path):
    names = [f"img/{i}.png" for i in range(N)]
    np.savez_compressed(tmp_path / "x.npz", features=rows, y=np.array(words), paths=np.array(names))

    store = imported(tmp_path / "x.npz", tmp_path)

    holds(store, names, rows, words)
    assert store.info.task == "binary-class"
    assert store.info.backbone == store.info.spec.backbone == "imported:net"
    assert store.info.data_source == "imported"
    assert [store.info.n_samples[s] for s in SPLITS] == [21, 3, 6]  # 70, 10, 20 %


def test_splits_of_an_npz_in_the_order_of_its_rows(rows, tmp_path):
    y = np.arange(N) % 3
    part = {"train": slice(0, 18), "val": slice(18, 24), "test": slice(24, N)}
    arrays = {f"X_{s}": rows[p] for s, p in part.items()}
    np.savez(tmp_path / "x.npz", **arrays, **{f"y_{s}": y[p] for s, p in part.items()})

    store = imported(tmp_path / "x.npz", tmp_path)

    for split, place in part.items():
        np.testing.assert_array_equal(store.embeddings(split), rows[place])
        np.testing.assert_array_equal(store.labels(split)[:, 0], y[place])


def test_several_labels_and_fortran_order(rows, tmp_path):
    flags = np.random.default_rng(1).integers(0, 2, (N, 3))
    np.savez(tmp_path / "x.npz", X=np.asfortranarray(rows), labels=flags, split=["train"] * N)
    np.savez(
        tmp_path / "y.npz", X=rows, labels=flags, split=np.repeat([*SPLITS], [10, 10, 10]),
        class_names=["a", "b", "c"],
    )  # fmt: skip

    store = imported(tmp_path / "y.npz", tmp_path)
    assert store.info.task == MULTI_LABEL
    assert store.info.classes == ["a", "b", "c"]
    np.testing.assert_array_equal(store.labels("val"), flags[10:20])
    dealt = imported(tmp_path / "x.npz", tmp_path)
    assert sum(dealt.info.n_samples.values()) == N


def test_a_parquet_of_columns_of_floats_and_one_of_lists(rows, words, tmp_path):
    names = [f"{i}.png" for i in range(N)]
    frame = pd.DataFrame(rows, columns=[f"f{i}" for i in range(DIM)])
    known = {"filename": names, "diagnosis": words, "patient_id": [f"p{i // 3}" for i in range(N)]}
    frame.assign(**known).to_parquet(tmp_path / "wide.parquet")
    pd.DataFrame({"vector": list(rows), **known}).to_parquet(tmp_path / "lists.parquet")

    wide, lists = (
        imported(tmp_path / f"{n}.parquet", tmp_path, group_column="patient_id")
        for n in ("wide", "lists")
    )

    assert wide.key == lists.key
    holds(wide, names, rows, words)
    where = {}
    for split in SPLITS:
        for group in wide.groups(split):
            where.setdefault(group, set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())
    assert len(where) == N // 3


def test_an_export_that_has_lost_columns_since_is_read_or_refused(write_store, rows, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    labels = [np.arange(10) % 2] * 3
    names = [[f"{split}/{i}.png" for i in range(10)] for split in SPLITS]
    table = write_store(np.split(rows, 3), labels, names=names).to_arrow()
    for lost in ("index", "label"):
        pq.write_table(table.drop([lost]), tmp_path / f"{lost}.parquet")
    assert imported(tmp_path / "index.parquet", tmp_path).info.n_samples["train"] > 0
    with pytest.raises(UsageError, match="has no labels"):
        imported(tmp_path / "label.parquet", tmp_path)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"split": "train"}, "split has 1 rows, the embeddings 30"),
        ({"labels": np.array(3)}, "labels has 1 rows"),
        ({"classes": np.array("ab")}, "none of its 1 classes"),
        ({"embeddings": np.full((N, 2), "1.5")}, "no real numbers"),
        ({"embeddings": np.full((N, 2), 1 + 1j)}, "no real numbers"),
        ({"embeddings": np.full((N, 2), np.datetime64("2020-01-01"))}, "no real numbers"),
    ],
)
def test_what_is_no_column_and_no_number_is_refused(changed, told, rows, tmp_path):
    arrays = {"embeddings": rows, "labels": np.arange(N) % 2, **changed}
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(UsageError, match=told):
        imported(tmp_path / "f.npz", tmp_path)


def test_datasets_of_hdf5_without_data_are_no_embeddings(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["features"] = h5py.Empty("f4")
    with pytest.raises(UsageError, match="holds no embeddings"):
        imported(tmp_path / "f.h5", tmp_path)


def test_ragged_lists_and_lists_of_words_are_refused(rows, tmp_path):
    torch.save({"x": torch.tensor(rows), "coords": [[1, 2], [3]]}, tmp_path / "f.pt")
    with pytest.raises(UsageError, match="differ in length"):
        imported(tmp_path / "f.pt", tmp_path)
    frame = pd.DataFrame({"tags": [["a", "b"]] * N, "label": [str(i % 2) for i in range(N)]})
    frame.to_parquet(tmp_path / "f.parquet")
    with pytest.raises(UsageError, match="of type string, no real numbers"):
        imported(tmp_path / "f.parquet", tmp_path)


def test_a_pattern_of_groups_in_dataset_yaml_keeps_them_whole(rows, words, tmp_path):
    names = [f"p{i // 3}/{i}.png" for i in range(N)]
    np.savez(tmp_path / "f.npz", embeddings=rows, labels=np.array(words), names=np.array(names))
    (tmp_path / "dataset.yaml").write_text(r"group_pattern: '^(p\d+)/'")
    store = imported(tmp_path / "f.npz", tmp_path)
    for split in SPLITS:
        assert store.groups(split) == [name.partition("/")[0] for name in store.names(split)]
    patients = [set(store.groups(split)) for split in SPLITS]
    assert sum(map(len, patients)) == len(set.union(*patients)) == N // 3


def test_a_tensor_takes_its_labels_from_a_table(rows, words, tmp_path):
    torch.save(torch.from_numpy(rows).bfloat16(), tmp_path / "x.pt")
    ids = [f"row/{i:02}" for i in range(N)]
    table = write_table(tmp_path / "t.csv", {"name": ids, "class": words})

    store = imported(tmp_path / "x.pt", tmp_path, table=table)

    holds(store, ids, torch.from_numpy(rows).bfloat16().float().numpy(), words)


def test_a_dict_of_tensors_and_an_hdf5_file_of_arrays(rows, words, tmp_path):
    h5py = pytest.importorskip("h5py")
    names = [f"{i}" for i in range(N)]
    torch.save(
        {"embeddings": torch.from_numpy(rows)[None], "labels": words, "names": names},
        tmp_path / "x.pt",
    )
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["embeddings"] = rows
        file["labels"] = words
        file["names"] = names

    one, other = (imported(tmp_path / f"x.{ending}", tmp_path) for ending in ("pt", "h5"))

    holds(one, names, rows, words)
    assert one.key == other.key


# --- slides --------------------------------------------------------------------------------------


@pytest.fixture
def slides(tmp_path):
    """A folder as TRIDENT writes it, (n, d), its patches, and CLAM's table of three classes."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(3)
    folder = tmp_path / "features_uni"
    folder.mkdir()
    patches = {f"S{i}": rng.normal(size=(rng.integers(1, 6), DIM)).astype("f4") for i in range(18)}
    for number, (name, values) in enumerate(patches.items()):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["features"] = values if number % 2 else values[None]  # CLAM's older layout
            file["coords"] = np.stack([np.arange(len(values)) * 256] * 2, 1)
    table = {
        "case_id": [f"c{i // 2}" for i in range(18)],
        "slide_id": [f"{name}.svs" for name in patches],
        "label": [f"{i // 2 % 3}" for i in range(18)],
    }
    return folder, patches, write_table(tmp_path / "clam.csv", table)


def test_the_mean_of_a_slide_is_its_row(slides, tmp_path, caplog):
    folder, patches, table = slides
    with caplog.at_level(logging.DEBUG):
        store = imported(folder, tmp_path, table=table)
    found = by_name(store)
    assert sorted(found) == sorted(patches)
    for i, (name, values) in enumerate(patches.items()):
        np.testing.assert_allclose(found[name][0], values.mean(0, dtype="f8"), rtol=1e-6)
        assert found[name][1] == f"{i // 2 % 3}"
    assert "their mean is a slide's embedding" in caplog.text
    assert "without endings" in caplog.text
    cases = [set(store.groups(s)) for s in SPLITS]  # 'case_id' looks like patients
    assert len(set.union(*cases)) == sum(map(len, cases)) == 9


def test_patches_stay_with_their_slide(slides, tmp_path):
    folder, patches, table = slides
    store = imported(folder, tmp_path, table=table, rows="patches", group_column="none")
    assert sum(store.info.n_samples.values()) == sum(map(len, patches.values()))
    seen = {}
    for split in SPLITS:
        for name, group, value in zip(
            store.names(split), store.groups(split), store.embeddings(split), strict=True
        ):
            seen.setdefault(group, set()).add(split)
            slide, _, place = name.partition("/")
            assert slide == group
            np.testing.assert_array_equal(value, patches[slide][int(place.split("_")[0]) // 256])
    assert len(seen) == 18
    assert all(len(splits) == 1 for splits in seen.values())


def test_the_manifest_of_eva(rows, tmp_path):
    folder = tmp_path / "eva"
    (folder / "a").mkdir(parents=True)
    splits = ["train"] * 18 + ["val"] * 6 + ["test"] * 6
    lines = []
    for i, split in enumerate(splits):
        tensor = torch.from_numpy(rows[i].copy())
        torch.save([tensor] if i % 2 else tensor[None], folder / f"a/{i}.pt")
        lines.append((f"a/{i}.jpg", f"a/{i}.pt", i % 2, split))
    names = dict(
        zip(("origin", "embeddings", "target", "split"), zip(*lines, strict=True), strict=True)
    )
    write_table(folder / "manifest.csv", names)

    store = imported(folder, tmp_path)

    holds(store, names["origin"], rows, [str(i % 2) for i in range(N)])
    np.testing.assert_array_equal(store.embeddings("val"), rows[18:24])

    write_table(folder / "manifest.csv", {**names, "embeddings": ["../../etc/passwd"] * N})
    with pytest.raises(UsageError, match=r"that .* does not hold|outside"):
        imported(folder, tmp_path)


# --- what is told, and refused -------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return Path.touch, (Path(tempfile.gettempdir()) / "medplus-evil",)


def test_pickles_are_never_loaded(rows, tmp_path):
    mark = Path(tempfile.gettempdir()) / "medplus-evil"
    np.savez(tmp_path / "x.npz", X=rows, y=np.array([Evil()] * N, dtype=object))
    torch.save({"features": torch.from_numpy(rows), "x": Evil()}, tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Evil()))
    for name in ("x.npz", "x.pt", "y.pt"):
        with pytest.raises((UsageError, DatasetError), match=r"pickle|no file of torch"):
            imported(tmp_path / name, tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(N, DIM).to_sparse(),
        torch.ones(1, DIM).expand(N, DIM),
        [torch.ones(1).expand(10**9, DIM)],
    ],
)
def test_tensors_that_are_not_plain_are_refused(tensor, tmp_path):
    torch.save({"features": tensor}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="holds a tensor that is not plain"):
        imported(tmp_path / "x.pt", tmp_path)


def saved(tmp_path, **arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    return tmp_path / "x.npz"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"y": None}, "has no labels; name a table"),
        ({"X": None}, "holds no embeddings"),
        ({"features": np.ones((N, 2))}, "holds several that may be its embedding"),
        ({"X": np.ones(N)}, "must be (n, D)"),
        ({"X": np.full((N, 2), np.nan)}, "row 0 is not finite"),
        ({"X": np.full((N, 2), 1e200)}, "row 0 is not finite as float32"),
        ({"y": np.arange(3)}, "y has 3 rows, the embeddings 30"),
        ({"y": np.zeros(N, int)}, "a classifier needs two or more"),
        ({"names": np.array(["a"] * N)}, "1 name (a) on several rows"),
        ({"split": np.array(["foo"] * N)}, "unknown split 'foo'"),
        ({"classes": np.array(["a"])}, "the label 1 is none of its 1 classes (a)"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(change, told, rows, tmp_path):
    arrays = {"X": rows, "y": np.arange(N) % 2, **change}
    path = saved(tmp_path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(MedplusError) as error:
        imported(path, tmp_path)
    assert told in str(error.value)
    assert not list((tmp_path / "embeddings").glob("**/*.zarr"))


def test_a_table_with_unknown_doubled_or_missing_names(rows, words, tmp_path):
    names = [f"{i}.png" for i in range(N)]
    path = saved(tmp_path, X=rows, names=names)

    def import_with(ids, labels):
        table = write_table(tmp_path / "t.csv", {"path": ids, "label": labels})
        return imported(path, tmp_path, table=table)

    with pytest.raises(UsageError, match=r"1 name \(z\.png\) that .*x\.npz has no embedding of"):
        import_with([*names, "z.png"], [*words, "yes"])
    with pytest.raises(UsageError, match="on several rows"):
        import_with([*names, names[0]], [*words, "yes"])
    with pytest.raises(UsageError, match="1 row without label"):
        import_with(names, ["", *words[1:]])
    store = import_with(names[1:], words[1:])
    assert sum(store.info.n_samples.values()) == N - 1
    assert any("left out" in text and "0.png" in text for text in store.info.warnings)


def test_the_same_again_is_found_done_and_damage_is_mended(rows, words, tmp_path, cli):
    path = saved(tmp_path, X=rows, y=np.array(words))
    root = tmp_path / "embeddings"
    command = ["store", "import", path, "--dataset", "mine", "--backbone", "net", "--store", root]
    first = cli(*command, "--size", "64", "--json").document
    assert first["status"] == "imported"
    assert cli(*command, "--size", "64", "--json").document["status"] == "skipped"
    whole = open_store(first["path"]).embeddings("train")

    (Path(first["path"]) / "train/embeddings/c/0/0").unlink()
    told = cli("store", "verify", first["path"], "--json").document["stores"][0]["remedy"]
    words_of = shlex.split(told.partition(": ")[2])
    assert words_of[:3] == ["medplus", "store", "import"]
    assert cli(*words_of[1:], "--json").document["status"] == "resumed"
    np.testing.assert_array_equal(open_store(first["path"]).embeddings("train"), whole)
    assert not list(root.glob(".*"))


def test_an_imported_store_is_scored_as_any_other(rows, words, tmp_path):
    shifted = rows + 3 * np.array([[word == "yes"] for word in words])
    store = imported(saved(tmp_path, X=shifted, y=np.array(words)), tmp_path)
    [record] = medplus.knn(store, k=[3], runs=tmp_path / "runs")
    assert (record.backbone, record.data_source) == ("imported:net", "imported")
    root = store.path.parents[2]
    spec = medplus.ExtractSpec("mine", None, "imported:net")
    assert medplus.find_store(root, spec).key == store.key
    with pytest.raises(UsageError, match="imported without its images"):
        select_runs([record.path])
    with pytest.raises(UsageError, match="made elsewhere, which no network here computes"):
        medplus.extract("breastmnist", 28, "imported:net")


def test_two_encoders_of_the_same_images_are_of_one_dataset(rows, words, tmp_path):
    y = np.array(words)
    names = np.array([f"{i}" for i in range(N)])
    other = np.random.default_rng(5).permutation(N)
    one = imported(saved(tmp_path, X=rows, y=y, names=names), tmp_path)
    two = imported(saved(tmp_path, X=rows[other] * 2, y=y[other], names=names[other]), tmp_path)
    assert [set(one.names(s)) for s in SPLITS] == [set(two.names(s)) for s in SPLITS]
    assert one.info.dataset_digest == two.info.dataset_digest
    assert one.key != two.key


def test_half_an_npz_is_no_traceback(rows, tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, X=rows, y=np.arange(N) % 2)
    for name, content in (("x.npz", buffer.getvalue()[:400]), ("x.pt", b"PK"), ("x.parquet", b"x"),
                          ("x.h5", b"x")):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MedplusError):
            imported(tmp_path / name, tmp_path)

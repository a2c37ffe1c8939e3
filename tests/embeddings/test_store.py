"""Reading stores: as zarr reads them, and never anything that is not whole."""

from __future__ import annotations

import json
import shlex
import warnings

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medplus.datasets import catalog
from medplus.embeddings.store import (
    EmbeddingStore,
    list_stores,
    open_store,
    read_info,
    root_of,
    write_info,
)
from medplus.errors import StoreError
from medplus.vocabulary import MULTI_LABEL, SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")

ARRAYS = ("embeddings", "labels", "index")


def random_arrays(n, dim, dtype="float32", seed=0, n_labels=1):
    rng = np.random.default_rng(seed)
    sizes = (n, max(1, n // 2), 1)
    embeddings = [rng.normal(size=(count, dim)).astype(dtype) for count in sizes]
    highest = 2 if n_labels > 1 else 3
    labels = [rng.integers(0, highest, (count, n_labels), dtype=np.uint8) for count in sizes]
    return embeddings, labels


@pytest.fixture
def tiny(write_store, tmp_path):
    """A complete store of 3 + 1 + 1 samples."""
    return write_store(*random_arrays(3, 2), root=tmp_path)


def edit_attributes(store, **changes):
    """Change a store's attributes behind medplus's back."""
    file = store.path / "zarr.json"
    document = json.loads(file.read_text())
    del document["attributes"]["medplus"]["seal"]  # or every change would be damage
    for name, value in changes.items():
        if value is None:
            del document["attributes"]["medplus"][name]
        else:
            document["attributes"]["medplus"][name] = value
    file.write_text(json.dumps(document))


# --- layout, and zarr as the second reader ----------------------------------------------------


def assert_zarr_reads_the_same(store, embeddings, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(store.path, mode="r")
        for split, x, y in zip(SPLITS, embeddings, labels, strict=True):
            theirs = {name: group[split][name][:] for name in ARRAYS}
            ours = dict(
                zip(ARRAYS, (store.embeddings(split), store.labels(split), store.index(split)),
                    strict=True)
            )  # fmt: skip
            expected = {"embeddings": x, "labels": y, "index": np.arange(len(x))}
            for name in ARRAYS:
                assert theirs[name].dtype == ours[name].dtype == expected[name].dtype
                np.testing.assert_array_equal(theirs[name], expected[name])
                np.testing.assert_array_equal(ours[name], expected[name])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 2500])
def test_zarr_and_the_raw_path_read_what_was_written(n, dtype, write_store):
    embeddings, labels = random_arrays(n, 3, dtype)
    store = write_store(embeddings, labels, dtype=dtype)
    assert_zarr_reads_the_same(store, embeddings, labels)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 3000),
    dim=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float16"]),
    n_labels=st.sampled_from([1, 4]),
)
def test_zarr_and_the_raw_path_agree_for_any_shape(n, dim, dtype, n_labels, write_store):
    embeddings, labels = random_arrays(n, dim, dtype, seed=n, n_labels=n_labels)
    task = MULTI_LABEL if n_labels > 1 else "multi-class"
    store = write_store(embeddings, labels, dtype=dtype, task=task)
    assert_zarr_reads_the_same(store, embeddings, labels)


def test_zarr_sees_chunks_fill_value_and_codec_of_the_design(write_store):
    store = write_store(*random_arrays(1500, 3))
    array = zarr.open_array(store.path / "train/embeddings", mode="r")
    assert array.chunks == (1024, 3)
    assert array.shards is None
    assert array.compressors == ()
    assert np.isnan(array.fill_value)
    assert zarr.open_array(store.path / "val/embeddings", mode="r").chunks == (750, 3)


def test_store_holds_three_groups_of_three_arrays_and_nothing_else(tiny):
    members = dict(zarr.open_group(tiny.path, mode="r").members(max_depth=None))
    assert set(members) == {*SPLITS, *(f"{s}/{name}" for s in SPLITS for name in ARRAYS)}
    files = {str(p.relative_to(tiny.path)) for p in tiny.path.rglob("*") if p.is_file()}
    metadata = {f"{name}/zarr.json" for name in members} | {"zarr.json"}
    chunk_files = {f"{s}/{name}/c/0/0" for s in SPLITS for name in ("embeddings", "labels")}
    assert files == metadata | chunk_files | {f"{s}/index/c/0" for s in SPLITS}


def test_labels_of_more_than_256_classes_are_int64(write_store):
    labels = [np.array([0, 299, 256]), np.array([1]), np.array([2])]
    store = write_store(random_arrays(3, 2)[0], labels, classes=300)
    assert store.labels("train").dtype == np.int64
    np.testing.assert_array_equal(store.labels("train"), [[0], [299], [256]])
    np.testing.assert_array_equal(
        zarr.open_array(store.path / "train/labels", mode="r")[:], [[0], [299], [256]]
    )


def test_attributes_hold_what_the_design_lists(tiny):
    attributes = zarr.open_group(tiny.path, mode="r").attrs["medplus"]
    assert attributes["complete"] is True
    assert attributes["schema_version"] == attributes["key"]["schema"] == 1
    assert set(attributes["key"]) == {
        "dataset_digest", "size", "backbone", "weights_sha256", "preprocess", "feature",
        "precision", "dtype", "task", "schema",
    }  # fmt: skip
    assert tiny.path.name == f"toynet-{attributes['key_digest'][:8]}.zarr"
    assert attributes["cost"] == {"seconds": 1.0, "device": "none"}
    assert set(attributes["checksums"]) == {f"{s}/{name}" for s in SPLITS for name in ARRAYS}


def test_nbytes_is_the_size_of_all_chunk_files(write_store):
    store = write_store(*random_arrays(1100, 3))
    files = (p for p in store.path.rglob("*") if p.is_file() and p.name != "zarr.json")
    assert store.nbytes == sum(p.stat().st_size for p in files)


# --- damage -----------------------------------------------------------------------------------


def chunk_files(store):
    return sorted(p for p in store.path.rglob("*") if p.is_file() and p.name != "zarr.json")


def array_of(store, file):
    """Return the path of the array that a chunk file belongs to."""
    return str(file.relative_to(store.path)).partition("/c/")[0]


def read_all(store):
    for split in SPLITS:
        store.embeddings(split)
        store.labels(split)
        store.index(split)


def assert_found_and_refused(store, file):
    [damage] = store.verify()
    assert (damage.array, damage.chunk) == (array_of(store, file), 0)
    with pytest.raises(StoreError, match=f"of {damage.array} damaged or missing"):
        read_all(store)


def test_an_intact_store_has_no_damage(tiny):
    assert tiny.verify() == []
    read_all(tiny)


def test_every_flipped_byte_of_every_chunk_is_found_and_refused(tiny):
    for file in chunk_files(tiny):
        intact = file.read_bytes()
        for position in range(len(intact)):
            damaged = bytearray(intact)
            damaged[position] ^= 1 << position % 8
            file.write_bytes(damaged)
            assert_found_and_refused(tiny, file)
        file.write_bytes(intact)
    assert tiny.verify() == []


def test_every_truncation_of_every_chunk_is_found_and_refused(tiny):
    for file in chunk_files(tiny):
        intact = file.read_bytes()
        for length in range(len(intact)):
            file.write_bytes(intact[:length])
            assert_found_and_refused(tiny, file)
        file.write_bytes(intact)


def test_every_missing_or_overlong_chunk_is_found_and_refused(tiny):
    for file in chunk_files(tiny):
        intact = file.read_bytes()
        file.unlink()
        assert_found_and_refused(tiny, file)
        file.write_bytes(intact + b"\0")
        assert_found_and_refused(tiny, file)
        file.write_bytes(intact)


def test_zarr_would_read_a_missing_chunk_as_nan_where_medplus_refuses(tiny):
    (tiny.path / "train/embeddings/c/0/0").unlink()
    assert np.isnan(zarr.open_array(tiny.path / "train/embeddings", mode="r")[:]).all()
    with pytest.raises(StoreError):
        tiny.embeddings("train")


def test_swapped_chunks_are_found(write_store):
    store = write_store(*random_arrays(2048, 2))
    first, second = (store.path / f"train/embeddings/c/{i}/0" for i in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert [(d.array, d.chunk) for d in store.verify()] == [
        ("train/embeddings", 0),
        ("train/embeddings", 1),
    ]


def test_every_flipped_byte_of_array_and_group_metadata_is_found(tiny):
    for name in ("train", *(f"train/{array}" for array in ARRAYS)):
        file = tiny.path / name / "zarr.json"
        intact = file.read_bytes()
        for position in range(len(intact)):
            damaged = bytearray(intact)
            damaged[position] ^= 1
            file.write_bytes(damaged)
            assert [(d.array, d.chunk) for d in tiny.verify()] == [(name, None)], position
        file.write_bytes(intact)


@pytest.mark.parametrize("name", [*SPLITS, *(f"{s}/{name}" for s in SPLITS for name in ARRAYS)])
def test_missing_metadata_are_found(name, tiny):
    (tiny.path / name / "zarr.json").unlink()
    assert [(d.array, d.chunk) for d in tiny.verify()] == [(name, None)]


def test_message_on_damage_names_the_command_that_repairs(tiny):
    (tiny.path / "val/embeddings/c/0/0").unlink()
    with pytest.raises(StoreError) as error:
        tiny.embeddings("val")
    assert str(tiny.path) in str(error.value)
    assert tiny.info.resume_command(root_of(tiny.path)) in str(error.value)


# --- what is refused on opening ---------------------------------------------------------------


def test_a_missing_store_is_named(tmp_path):
    with pytest.raises(StoreError, match=f"no embedding store at {tmp_path / 'x.zarr'}"):
        open_store(tmp_path / "x.zarr")


def test_an_incomplete_store_is_refused_with_the_command_that_completes_it(tiny, tmp_path):
    edit_attributes(tiny, complete=False)
    with pytest.raises(StoreError) as error:
        open_store(tiny.path)
    message = str(error.value)
    assert f"{tiny.path} is incomplete (3 of 3 chunks)" in message
    assert message.endswith(tiny.info.resume_command(tmp_path))


def test_another_schema_is_refused(tiny):
    edit_attributes(tiny, schema_version=2)
    with pytest.raises(StoreError, match=r"has schema 2, this medplus reads schema 1; .*extract"):
        open_store(tiny.path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[]", b"5", b"null", b"{}", b'{"attributes": {}}',
     b'{"attributes": {"medplus": []}}', b'{"attributes": {"medplus": {}}}'],
)  # fmt: skip
def test_damaged_attributes_are_refused_with_a_remedy(content, tiny):
    (tiny.path / "zarr.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged: .*medplus extract.*medplus store rm"):
        open_store(tiny.path)


@pytest.mark.parametrize(
    "change",
    [{"dim": "two"}, {"dim": None}, {"checksums": 3}, {"complete": "perhaps"}, {"task": "art"},
     {"n_samples": {"training": 3}}, {"dtype": "int8"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_an_invalid_attribute_is_named(change, tiny):
    edit_attributes(tiny, **change)
    with pytest.raises(StoreError, match=f"attribute '{next(iter(change))}"):
        open_store(tiny.path)


@pytest.mark.parametrize(
    "change",
    [{"dim": 3}, {"n_samples": {"train": 4, "val": 1, "test": 1}}, {"dtype": "float16"},
     {"task": MULTI_LABEL}, {"checksums": {}}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_attributes_that_disagree_with_the_arrays_are_damage(change, tiny):
    edit_attributes(tiny, **change)
    store = open_store(tiny.path)
    assert store.verify()
    with pytest.raises(StoreError):
        read_all(store)


def test_a_store_under_a_foreign_name_is_refused(tiny):
    foreign = tiny.path.with_name("toynet-00000000.zarr")
    tiny.path.rename(foreign)
    with pytest.raises(StoreError, match="key does not belong"):
        open_store(foreign)


def test_a_key_that_was_changed_is_refused(tiny):
    edit_attributes(tiny, key={**tiny.info.key, "precision": "bf16"})
    with pytest.raises(StoreError, match="key does not belong"):
        open_store(tiny.path)


# --- the command that resumes -----------------------------------------------------------------


def options_of(command):
    words = shlex.split(command)
    assert words[:2] == ["medplus", "extract"]
    return dict(zip(words[2::2], words[3::2], strict=True))


def test_resume_command_repeats_every_choice(store_info, tmp_path):
    info = store_info(
        (3, 1, 1), 2, dtype="float16", fit="native", precision="bf16", size=64,
        weights="/my weights.pth", dataset_path="/my data/toy.npz",
    )  # fmt: skip
    assert options_of(info.resume_command(tmp_path)) == {
        "--dataset": "/my data/toy.npz",
        "--size": "64",
        "--backbone": "toynet",
        "--weights": "/my weights.pth",
        "--precision": "bf16",
        "--dtype": "float16",
        "--fit": "native",
        "--store": str(tmp_path),
    }


@pytest.mark.parametrize("source", ["official", "unofficial", "phantom"])
def test_resume_command_of_a_medmnist_set_names_flag_and_folder(source, store_info, tmp_path):
    path = f"/data/{catalog.info('breastmnist').filename(64)}"
    info = store_info(
        (3, 1, 1), 2, dataset="breastmnist", data_source=source, dataset_path=path, size=64
    )
    options = options_of(info.resume_command(tmp_path))
    assert (options["--dataset"], options["--data-root"]) == ("breastmnist", "/data")


@pytest.mark.parametrize("stem", ["breastmnist_64", "mine"])
def test_resume_command_of_a_phantom_given_by_path_names_the_path(stem, store_info, tmp_path):
    path = f"/data/{stem}.npz"
    info = store_info((3, 1, 1), 2, dataset=stem, data_source="phantom", dataset_path=path, size=64)
    options = options_of(info.resume_command(tmp_path))
    assert options["--dataset"] == path
    assert "--data-root" not in options


# --- many stores ------------------------------------------------------------------------------


def test_stores_are_listed_sorted_without_what_is_being_made(write_store, tmp_path):
    arrays = random_arrays(3, 2)
    paths = [
        write_store(*arrays, root=tmp_path, dataset=name, size=size).path
        for name, size in [("b", 28), ("a", 64), ("a", 28)]
    ]
    (tmp_path / "a/28/.x.zarr").mkdir()
    assert list(list_stores(tmp_path)) == sorted(paths)


def test_attributes_are_equal_after_a_trip_to_disk(tiny):
    write_info(tiny.path, tiny.info)
    assert read_info(tiny.path) == tiny.info
    assert repr(EmbeddingStore(tiny.path, tiny.info)) == (
        f"EmbeddingStore('{tiny.path}': train 3, val 1, test 1; dim 2)"
    )

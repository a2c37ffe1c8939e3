"""Reading stores: as zarr reads them, and never anything that is not whole."""

from __future__ import annotations

import json
import shlex
import warnings
from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from medplus.embeddings.container import is_store, to_place
from medplus.embeddings.info import read_info, write_info
from medplus.embeddings.store import EmbeddingStore, find_damage, list_stores, open_store, root_of
from medplus.embeddings.writer import open_writer
from medplus.errors import StoreError
from medplus.seal import seal
from medplus.vocabulary import MULTI_LABEL, SPLITS
from tests.records import samples

pytestmark = pytest.mark.usefixtures("fast_disk")

ARRAYS = ("embeddings", "labels", "index", "names")


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
    """Change a store's attributes as a stranger would: with a seal that fits."""
    file = store.path / "zarr.json"
    document = json.loads(file.read_text())
    attributes = document["attributes"]["medplus"] | changes
    del attributes["seal"]
    kept = {name: value for name, value in attributes.items() if value is not None}
    document["attributes"]["medplus"] = seal(kept)
    file.write_text(json.dumps(document))


# --- what zarr sees ---------------------------------------------------------------------------


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(1, 3000),
    dim=st.integers(1, 5),
    dtype=st.sampled_from(["float32", "float16"]),
    n_labels=st.sampled_from([1, 4]),
)
@example(n=1, dim=1, dtype="float16", n_labels=1)
@example(n=1024, dim=3, dtype="float32", n_labels=1)
@example(n=1025, dim=3, dtype="float32", n_labels=1)
def test_zarr_alone_reads_what_was_written(n, dim, dtype, n_labels, write_store):
    embeddings, labels = random_arrays(n, dim, dtype, seed=n, n_labels=n_labels)
    task = MULTI_LABEL if n_labels > 1 else "multi-class"
    store = write_store(embeddings, labels, dtype=dtype, task=task)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(store.path, mode="r")
        for split, x, y in zip(SPLITS, embeddings, labels, strict=True):
            ours = (store.embeddings(split), store.labels(split), store.index(split))
            for name, mine, expected in zip(ARRAYS, ours, (x, y, np.arange(len(x))), strict=False):
                theirs = group[split][name][:]
                assert theirs.dtype == mine.dtype == expected.dtype
                np.testing.assert_array_equal(theirs, expected)
                np.testing.assert_array_equal(mine, expected)


def test_zarr_sees_chunks_fill_value_and_codec_of_the_design(write_store):
    store = write_store(*random_arrays(1500, 3))
    array = zarr.open_array(store.path / "train/embeddings", mode="r")
    codecs = [codec["name"] for codec in array.metadata.to_dict()["codecs"]]
    assert (array.chunks, array.shards, codecs) == ((1024, 3), None, ["bytes", "crc32c"])
    assert np.isnan(array.fill_value)
    assert zarr.open_array(store.path / "val/embeddings", mode="r").chunks == (750, 3)


def test_a_store_holds_three_groups_of_four_arrays_and_nothing_else(tiny):
    members = dict(zarr.open_group(tiny.path, mode="r").members(max_depth=None))
    assert set(members) == {*SPLITS, *(f"{s}/{name}" for s in SPLITS for name in ARRAYS)}
    files = {str(p.relative_to(tiny.path)) for p in tiny.path.rglob("*") if p.is_file()}
    chunks = {f"{s}/{name}/c/0/0" for s in SPLITS for name in ARRAYS if name != "index"}
    metadata = {f"{name}/zarr.json" for name in members} | {"zarr.json"}
    assert files == metadata | chunks | {f"{s}/index/c/0" for s in SPLITS}
    assert tiny.path.name == f"toynet-{tiny.key[:8]}.zarr"
    sizes = (file.stat().st_size for file in chunk_files(tiny))
    assert tiny.nbytes == sum(sizes)


def test_labels_of_more_than_256_classes_are_int64(write_store):
    labels = [np.array([0, 299, 256]), np.array([1]), np.array([2])]
    store = write_store(random_arrays(3, 2)[0], labels, classes=300)
    assert store.labels("train").dtype == np.int64
    np.testing.assert_array_equal(
        zarr.open_array(store.path / "train/labels", mode="r")[:], [[0], [299], [256]]
    )


def test_names_are_kept_whatever_their_letters_and_unknown_ones_are_empty(
    store_info, store_path, tmp_path, tiny
):
    assert tiny.names("train") == ["", "", ""]
    info = store_info((3, 2, 1), 2)
    path = store_path(tmp_path / "named", info)
    names = {"train": ["a/b.png", "", "größe 猫.png"], "val": ["x", "\udcff"], "test": [" "]}
    labels = {s: np.zeros((n, 1), "u1") for s, n in info.n_samples.items()}
    with open_writer(path, info, samples(labels, names)) as writer:
        for split, n in info.n_samples.items():
            writer.commit(split, 0, np.zeros((n, 2), "f4"))
        writer.finish({})
    store = open_store(path)
    assert {split: store.names(split) for split in SPLITS} == names
    theirs = zarr.open_array(path / "train/names", mode="r")[:]
    assert theirs.dtype == np.uint8
    assert [row.tobytes().rstrip(b"\0").decode() for row in theirs] == names["train"]


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_chunks_of_nothing_but_zeros_or_nan_are_there(value, write_store):
    values = [np.full((n, 2), value, "f4") for n in (1030, 1, 1)]
    store = write_store(values, [np.zeros(n, "u1") for n in (1030, 1, 1)])
    assert store.verify() == []
    np.testing.assert_array_equal(store.embeddings("train"), values[0])


# --- damage -----------------------------------------------------------------------------------


def chunk_files(store):
    return sorted(p for p in store.path.rglob("*") if p.is_file() and p.name != "zarr.json")


def read_all(store):
    return [getattr(store, name)(split) for split in SPLITS for name in ARRAYS]


def assert_found_and_refused(store, file):
    [damage] = store.verify()
    array = str(file.relative_to(store.path)).partition("/c/")[0]
    assert (damage.array, damage.chunk) == (array, 0)
    with pytest.raises(StoreError, match=f"of {damage.array} damaged or missing"):
        read_all(store)


def test_every_flipped_byte_of_every_chunk_is_found_also_by_zarr_alone(tiny):
    assert tiny.verify() == []
    read_all(tiny)
    for file in chunk_files(tiny):
        array = zarr.open_array(str(file).partition("/c/")[0], mode="r")
        intact = file.read_bytes()
        for position in range(len(intact)):
            damaged = bytearray(intact)
            damaged[position] ^= 1 << position % 8
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match="checksum"):
                array[...]
            if position % 4 == 0:
                assert_found_and_refused(tiny, file)
        file.write_bytes(intact)
    assert tiny.verify() == []


def test_every_truncated_missing_or_overlong_chunk_is_found_and_refused(tiny):
    for file in chunk_files(tiny):
        intact = file.read_bytes()
        cuts = [intact[:length] for length in range(0, len(intact), 5)]
        for content in (*cuts, intact[:-1], intact + b"\0"):
            file.write_bytes(content)
            assert_found_and_refused(tiny, file)
        file.unlink()
        assert_found_and_refused(tiny, file)
        file.write_bytes(intact)


def test_zarr_reads_a_missing_chunk_as_nan_where_medplus_refuses(tiny):
    (tiny.path / "train/embeddings/c/0/0").unlink()
    assert np.isnan(zarr.open_array(tiny.path / "train/embeddings", mode="r")[:]).all()
    with pytest.raises(StoreError):
        tiny.visit("train", lambda rows, values: None)


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.extensive)])
def test_every_flipped_byte_of_metadata_is_found_or_means_nothing(step, tiny):
    attributes = read_info(tiny.path)
    for file in [tiny.path / "zarr.json", *tiny.path.glob("train/**/zarr.json")]:
        name = str(file.parent.relative_to(tiny.path))
        intact = file.read_bytes()
        for position in range(0, len(intact), step):
            damaged = bytearray(intact)
            damaged[position] ^= 1 << position % 7
            file.write_bytes(damaged)
            try:
                info = open_store(tiny.path).info
                found = [(d.array, d.chunk) for d in find_damage(tiny.path, info, deep=False)]
            except StoreError:
                assert name == ".", position
            else:
                # The seal is of what the document says: the spaces between do not count.
                assert found == ([(name, None)] if name != "." else []), position
                assert info == attributes
        file.write_bytes(intact)


@pytest.mark.parametrize("name", [*SPLITS, *(f"{s}/{name}" for s in SPLITS for name in ARRAYS)])
def test_missing_metadata_are_found(name, tiny):
    (tiny.path / name / "zarr.json").unlink()
    assert [(d.array, d.chunk) for d in tiny.verify()] == [(name, None)]
    if "/" in name:
        with pytest.raises(StoreError, match=f"Zarr metadata of {name} damaged"):
            read_all(tiny)


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
    (tiny.path / "val/embeddings/c/0/0").unlink()
    with pytest.raises(StoreError) as error:
        open_store(tiny.path)
    message = str(error.value)
    assert f"{tiny.path} is incomplete (2 of 3 chunks)" in message
    assert message.endswith(tiny.info.resume_command(tmp_path))


def test_a_store_of_schema_1_is_refused_with_the_command_that_makes_it_anew(tiny):
    old = {"schema_version": 1, "dataset": "breastmnist", "size": 28, "backbone": "resnet18"}
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"medplus": old}}
    (tiny.path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="has schema 1, this medplus reads schema 2") as error:
        open_store(tiny.path)
    assert str(error.value).endswith(
        "medplus extract --dataset breastmnist --size 28 --backbone resnet18"
    )


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
    [{"dim": "two"}, {"dim": None}, {"dim": 0}, {"metadata": 3}, {"complete": "perhaps"},
     {"task": "art"}, {"n_samples": {"training": 3}}, {"spec": None}, {"colour": "red"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_an_invalid_attribute_is_named(change, tiny):
    edit_attributes(tiny, **change)
    with pytest.raises(StoreError, match=f"attribute '{next(iter(change))}"):
        open_store(tiny.path)


@pytest.mark.parametrize(
    "change",
    [{"dim": 3}, {"n_samples": {"train": 4, "val": 1, "test": 1}}, {"task": MULTI_LABEL},
     {"metadata": {}}, {"name_nbytes": 2}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_attributes_that_disagree_with_the_arrays_are_refused(change, tiny):
    edit_attributes(tiny, **change)
    store = open_store(tiny.path)
    with pytest.raises(StoreError):
        read_all(store)
    assert store.verify()


def test_attributes_without_a_seal_or_with_another_are_refused(tiny):
    file = tiny.path / "zarr.json"
    document = json.loads(file.read_text())
    for value in ("0" * 32, None):
        document["attributes"]["medplus"]["seal"] = value
        if value is None:
            del document["attributes"]["medplus"]["seal"]
        file.write_text(json.dumps(document))
        with pytest.raises(StoreError, match="not those that were written"):
            open_store(tiny.path)


def test_a_key_that_was_changed_is_refused(tiny):
    edit_attributes(tiny, dataset_digest="e" * 64)
    with pytest.raises(StoreError, match="key does not belong"):
        open_store(tiny.path)


def test_resume_command_names_a_flag_with_the_folder_of_its_file(store_info, tmp_path):
    info = store_info((3, 1, 1), 2, dataset_path="/my data/breastmnist.npz")
    command = shlex.split(info.resume_command(tmp_path))
    assert command[2:4] == ["--dataset", "/my data/breastmnist.npz"]
    assert command[-2:] == ["--store", str(tmp_path)]
    assert "--data-root" not in command
    by_flag = info.model_copy(update={"spec": replace(info.spec, dataset="breastmnist")})
    command = shlex.split(by_flag.resume_command(tmp_path))
    assert command[2:4] == ["--dataset", "breastmnist"]
    assert command[-4:-2] == ["--data-root", "/my data"]


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


def test_one_store_is_told_from_a_root_by_its_name(tmp_path):
    for place in ("a/x-1234abcd.zarr", tmp_path / "x.zarr.zip", "s3://bucket/x.zarr", "s3://b/x"):
        assert is_store(place)
    assert not is_store("embeddings")
    assert to_place("s3://bucket//x") == "s3://bucket//x"
    assert to_place(str(tmp_path)) == tmp_path

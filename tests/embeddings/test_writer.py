"""Writing stores: one writer, and a crash at any moment loses no finished chunk."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from medplus.embeddings.store import open_store
from medplus.embeddings.writer import open_writer, remove_store
from medplus.errors import MedplusError, StoreError
from medplus.vocabulary import SPLITS
from tests.records import samples

pytestmark = pytest.mark.usefixtures("fast_disk")

SIZES = (2500, 1025, 3)
DIM = 3
N_CHUNKS = {"train": 3, "val": 2, "test": 1}
EVERYTHING = {split: list(range(n)) for split, n in N_CHUNKS.items()}


class Job:
    """A small extraction: where its store lies, what goes into it, and doing some of the work."""

    def __init__(self, root, describe, place):
        rng = np.random.default_rng(0)
        self.describe = describe
        self.path = place(root, describe())
        self.rows = {
            s: rng.normal(size=(n, DIM)).astype("f4") for s, n in zip(SPLITS, SIZES, strict=True)
        }
        self.names = {
            s: [f"{s}/{i}.png" for i in range(n)] for s, n in zip(SPLITS, SIZES, strict=True)
        }
        self.labels = {
            s: rng.integers(0, 3, (n, 1), dtype=np.uint8)
            for s, n in zip(SPLITS, SIZES, strict=True)
        }

    def open(self):
        return open_writer(self.path, self.describe(), samples(self.labels, self.names))

    def commit(self, writer, split, chunk):
        layout = writer.info.layout(split)
        writer.commit(split, chunk, self.rows[split][layout.rows(chunk)])

    def run(self, at_most=100):
        """Commit missing chunks in order and finish; return what was committed and the status."""
        committed = []
        with self.open() as writer:
            for split in SPLITS:
                for chunk in writer.missing[split]:
                    if len(committed) == at_most:
                        return committed, writer.status
                    self.commit(writer, split, chunk)
                    committed.append((split, chunk))
            if writer.status != "skipped":
                writer.finish({"seconds": 1.0})
        return committed, writer.status

    def files(self):
        """Return every file of the store: chunks as bytes, metadata as documents."""
        return {
            str(p.relative_to(self.path)): json.loads(p.read_bytes())
            if p.name == "zarr.json"
            else p.read_bytes()
            for p in self.path.rglob("*")
            if p.is_file()
        }

    def is_alone(self):
        """Whether nothing but the store lies in its folder, neither lock nor leftover."""
        return [p.name for p in self.path.parent.iterdir()] == [self.path.name]


@pytest.fixture
def job(tmp_path, store_info, store_path):
    return Job(tmp_path / "stores", lambda: store_info(SIZES, DIM), store_path)


@pytest.fixture(scope="module")
def uninterrupted(new_folder, store_info, store_path):
    """The files of the same store, written in one go."""
    whole = Job(new_folder(), lambda: store_info(SIZES, DIM), store_path)
    whole.run()
    return whole.files()


ALL = [(split, chunk) for split in SPLITS for chunk in range(N_CHUNKS[split])]


# --- the ordinary course ----------------------------------------------------------------------


def test_a_new_store_lacks_every_chunk_and_then_none(job):
    with job.open() as writer:
        assert writer.status == "extracted"
        assert writer.missing == EVERYTHING
        assert writer.n_missing == writer.n_chunks == 6
    committed, status = job.run()
    assert (committed, status) == (ALL, "resumed")
    store = open_store(job.path)
    for split in SPLITS:
        np.testing.assert_array_equal(store.embeddings(split), job.rows[split])
        np.testing.assert_array_equal(store.labels(split), job.labels[split])
        np.testing.assert_array_equal(store.index(split), np.arange(len(job.rows[split])))
        assert store.names(split) == job.names[split]
    assert job.is_alone()


def test_a_complete_store_is_skipped_and_not_touched(job):
    job.run()
    before = {p: p.stat().st_mtime_ns for p in job.path.rglob("*")}
    assert job.run() == ([], "skipped")
    assert {p: p.stat().st_mtime_ns for p in job.path.rglob("*")} == before


@pytest.mark.parametrize("done", range(6))
def test_resuming_computes_only_what_is_missing(done, job, uninterrupted):
    assert job.run(at_most=done)[0] == ALL[:done]
    with pytest.raises(StoreError, match=rf"incomplete \({done} of 6 chunks\)"):
        open_store(job.path)
    assert job.run() == (ALL[done:], "resumed")
    assert job.files() == uninterrupted


def test_a_store_stays_incomplete_until_it_is_finished(job):
    with job.open() as writer:
        for split, chunk in ALL:
            job.commit(writer, split, chunk)
        with pytest.raises(StoreError, match="incomplete"):
            open_store(job.path)
        writer.finish({})
        assert open_store(job.path).verify() == []


# --- damage -----------------------------------------------------------------------------------


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("harm", [os.unlink, truncate, flip], ids=["missing", "truncated", "flip"])
@pytest.mark.parametrize(("split", "chunk"), ALL)
def test_only_the_damaged_chunk_is_computed_again(harm, split, chunk, job, uninterrupted):
    job.run()
    harm(job.path / f"{split}/embeddings/c/{chunk}/0")
    assert job.run() == ([(split, chunk)], "resumed")
    assert job.files() == uninterrupted


@pytest.mark.parametrize("done", [3, 6])
@pytest.mark.parametrize(
    "name",
    [
        "train/labels/c/0/0",
        "test/index/c/0",
        "val/names/c/0/0",
        "val/zarr.json",
        "train/embeddings/zarr.json",
    ],
)
def test_damaged_labels_index_and_metadata_cost_no_chunk(name, done, job, uninterrupted):
    job.run(at_most=done)
    (job.path / name).unlink()
    assert job.run()[0] == ALL[done:]
    assert job.files() == uninterrupted


def test_a_store_under_repair_is_incomplete(job):
    job.run()
    (job.path / "train/embeddings/c/1/0").unlink()
    with job.open(), pytest.raises(StoreError, match=r"incomplete \(5 of 6"):
        open_store(job.path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"attributes": {"medplus": {}}}'])
def test_a_store_whose_attributes_are_lost_is_made_anew(content, job, uninterrupted, caplog):
    job.run()
    (job.path / "zarr.json").write_bytes(content)
    assert job.run() == (ALL, "extracted")
    assert job.files() == uninterrupted
    assert "made anew" in caplog.text
    assert job.is_alone()


def test_a_store_that_cannot_be_read_just_now_is_not_thrown_away(job, uninterrupted, monkeypatch):
    job.run()
    read_bytes = type(job.path).read_bytes

    def unreachable(path):
        if path == job.path / "zarr.json":
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    with monkeypatch.context() as patch, pytest.raises(StoreError, match="Input/output error"):
        patch.setattr(type(job.path), "read_bytes", unreachable)
        job.run()
    assert job.files() == uninterrupted


def test_a_store_of_other_embeddings_under_this_name_is_not_thrown_away(job, store_info):
    other = store_info(SIZES, DIM, dataset_digest="e" * 64)
    with open_writer(job.path, other, samples(job.labels)):
        pass
    with pytest.raises(StoreError, match="holds other embeddings than its name says"):
        job.run()


def test_a_store_of_another_schema_is_not_thrown_away(job):
    job.run()
    document = job.files()["zarr.json"]
    document["attributes"]["medplus"]["schema_version"] = 1
    (job.path / "zarr.json").write_text(json.dumps(document))
    before = job.files()
    with pytest.raises(StoreError, match="has schema 1"):
        job.run()
    assert job.files() == before


# --- one writer -------------------------------------------------------------------------------


def test_a_second_writer_is_refused_naming_host_and_process(job):
    with job.open():
        with pytest.raises(StoreError) as error, job.open():
            pass
        message = str(error.value)
        assert f"process {os.getpid()} on {socket.gethostname()}" in message
        assert str(job.path) in message
    job.run()  # and afterwards the store is free again


def in_child(work):
    """Fork a child that does some work and may end itself; return its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


# --- a full disk ------------------------------------------------------------------------------


def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def files_of_at_most(nbytes):
    """Let the system refuse larger files, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("done", [0, 2, 5])
def test_a_full_disk_is_said_and_finished_chunks_are_kept(done, job, uninterrupted):
    with job.open() as writer:
        for split, chunk in ALL[:done]:
            job.commit(writer, split, chunk)
        with (
            files_of_at_most(30),
            pytest.raises(StoreError, match=r"File too large.*--store.*chunks are kept"),
        ):
            job.commit(writer, *ALL[done])
    assert job.run() == (ALL[done:], "resumed")
    assert job.files() == uninterrupted


@pytest.mark.parametrize("call", ["write", "fsync", "pwrite", "open"])
def test_a_disk_that_is_full_from_the_start_is_said(call, job, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(MedplusError, match=f"{job.path}.*No space left on device"):
            job.run()
    assert job.run()[0] == ALL
    assert job.is_alone()


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_at_the_very_end_leaves_a_store_that_only_needs_finishing(
    call, job, monkeypatch
):
    with job.open() as writer:
        for split, chunk in ALL:
            job.commit(writer, split, chunk)
        with monkeypatch.context() as patch, pytest.raises(StoreError, match="No space left"):
            patch.setattr(os, call, full)
            writer.finish({})
    with pytest.raises(StoreError, match=r"incomplete \(6 of 6"):
        open_store(job.path)
    assert job.run() == ([], "resumed")
    assert open_store(job.path).verify() == []


def test_everything_is_synced_before_a_store_says_that_it_is_complete(job, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    job.run(at_most=3)
    job.run()
    parts = [path.stat().st_ino for path in job.path.rglob("*") if path.parent != job.path]
    last = {ino: place for place, ino in enumerate(synced)}
    told = last[(job.path / "zarr.json").stat().st_ino]
    assert all(last[ino] < told for ino in parts)
    assert last[job.path.stat().st_ino] > told  # and its own name in its folder


# --- crashes ----------------------------------------------------------------------------------


def test_leftovers_of_killed_writers_are_removed(job, uninterrupted):
    job.run(at_most=2)
    beside = job.path.with_name(f".{job.path.name}.tmp-123-abc")
    beside.mkdir()
    (beside / "zarr.json").write_text("{}")
    (job.path / "train/embeddings/c/2").mkdir(exist_ok=True)
    (job.path / "train/embeddings/c/2/0.0123abcd.partial").write_bytes(b"half a chunk")
    (job.path / ".zarr.json.tmp-4567").write_bytes(b"{")
    job.run()
    assert job.files() == uninterrupted
    assert job.is_alone()


def kill_at_change(count):
    """Let this process kill itself just before its `count`-th change of the file system."""
    left = count

    def audit(event, arguments):
        nonlocal left
        changes = event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.utime")
        if changes or (event == "open" and isinstance(arguments[2], int) and arguments[2] & 0o103):
            left -= 1
            if left == 0:
                die()

    sys.addaudithook(audit)


every = pytest.mark.parametrize("step", [17, pytest.param(1, marks=pytest.mark.extensive)])
"""At every seventeenth change, or at each."""


@every
def test_a_store_completes_after_a_kill_at_any_change_of_the_file_system(
    step, new_folder, store_info, store_path, monkeypatch
):
    sizes = (1025, 2, 3)
    monkeypatch.setattr(sys.modules[__name__], "SIZES", sizes)
    whole = Job(new_folder(), lambda: store_info(sizes, DIM), store_path)
    whole.run()
    n_chunks = len([name for name in whole.files() if "embeddings/c/" in name])
    kept, count, status = [], 1 - step, -1
    while status != 0:
        count += step
        job = Job(new_folder(), lambda: store_info(sizes, DIM), store_path)

        def killed(job=job, count=count):
            kill_at_change(count)
            job.run()

        status = in_child(killed)
        assert status in (0, signal.SIGKILL)
        promised = len(list(job.path.glob("*/embeddings/c/*/0")))
        committed, _ = job.run()
        kept.append(promised)
        assert len(committed) == n_chunks - promised, f"change {count}"
        assert job.files() == whole.files(), f"change {count}"
        assert job.is_alone(), f"change {count}"
    assert sorted(kept) == kept  # the later the kill, the more is kept
    assert kept[-1] == n_chunks
    assert step > 1 or set(kept) == set(range(n_chunks + 1))


@every
def test_a_repair_survives_a_kill_at_any_change_of_the_file_system(
    step, new_folder, store_info, store_path, monkeypatch
):
    monkeypatch.setattr(sys.modules[__name__], "SIZES", (1025, 2, 3))
    whole = Job(new_folder(), lambda: store_info((1025, 2, 3), DIM), store_path)
    whole.run()
    expected = whole.files()
    job = Job(new_folder(), lambda: store_info((1025, 2, 3), DIM), store_path)
    count, status = 1 - step, -1
    while status != 0:
        count += step
        job.run()
        truncate(job.path / "train/embeddings/c/1/0")
        flip(job.path / "val/labels/c/0/0")

        def killed(count=count):
            kill_at_change(count)
            job.run()

        status = in_child(killed)
        assert status in (0, signal.SIGKILL)
        try:  # whatever can be read is right
            np.testing.assert_array_equal(
                open_store(job.path).embeddings("train"), job.rows["train"]
            )
        except StoreError:
            assert status != 0
        committed, _ = job.run()
        assert committed in ([], [("train", 1)]), f"change {count}"
        assert job.files() == expected, f"change {count}"
        assert job.is_alone(), f"change {count}"


# --- removal ----------------------------------------------------------------------------------


def test_a_removed_store_is_gone(job):
    job.run()
    remove_store(job.path)
    assert list(job.path.parent.iterdir()) == []


def test_a_store_in_use_is_not_removed(job):
    with job.open():
        with pytest.raises(StoreError, match="in use"):
            remove_store(job.path)
        assert job.path.exists()


@pytest.mark.parametrize("harm", [os.unlink, truncate, flip], ids=["missing", "truncated", "flip"])
def test_a_store_whose_attributes_are_lost_can_still_be_removed(harm, job):
    job.run()
    harm(job.path / "zarr.json")
    remove_store(job.path)
    assert list(job.path.parent.iterdir()) == []


def test_only_stores_are_removed(tmp_path):
    folder = tmp_path / "photos.zarr"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"")
    other = tmp_path / "store"
    other.mkdir()
    (other / "zarr.json").write_text("{}")
    for path in (folder, other, tmp_path / "nothing.zarr"):
        with pytest.raises(StoreError, match="nothing was deleted"):
            remove_store(path)
    assert (folder / "holiday.jpg").exists()
    assert (other / "zarr.json").exists()

"""The old state or the new one, never a mix."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medplus import atomic


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(error: BaseException):
    def fail(*_, **__):
        raise error

    return fail


def opened(descriptor: int) -> Path:
    """Return the path that a descriptor was opened at."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


# --- files ------------------------------------------------------------------------------------


@given(parts=st.lists(st.binary(max_size=50), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_parts_are_written_one_after_the_other(tmp_path, parts):
    path = tmp_path / "file"
    atomic.write_bytes(path, *parts)
    assert path.read_bytes() == b"".join(parts)
    assert entries(tmp_path) == ["file"]


def test_disk_that_takes_only_a_part_per_write_gets_everything(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    content = bytes(range(100))
    atomic.write_bytes(tmp_path / "file", content)
    monkeypatch.undo()
    assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize(
    ("owner", "call"),
    [(os, "write"), (os, "fsync"), (os, "replace")],
    ids=["write", "sync", "rename"],
)
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "I/O"),
        KeyboardInterrupt(),
    ],
    ids=["full disk", "failing disk", "interrupt"],
)
def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, owner, call, error):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(owner, call, failing(error))
    with pytest.raises(type(error)):
        atomic.write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["file"]


def test_file_is_synced_before_it_takes_its_name_and_the_folder_after(tmp_path, monkeypatch):
    path = tmp_path / "file"
    log = []
    fsync, replace = os.fsync, Path.replace

    def record_sync(descriptor):
        log.append(opened(descriptor))
        fsync(descriptor)

    def record_replace(self, target):
        log.append("renamed")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_replace)
    atomic.write_bytes(path, b"content")
    assert len(log) == 3
    assert log[0].name.startswith(".file.tmp-")
    assert log[1:] == ["renamed", tmp_path]


def test_folder_that_cannot_be_synced_is_tolerated(tmp_path, monkeypatch):
    fsync = os.fsync

    def network_file_system(descriptor):
        if opened(descriptor) == tmp_path:
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", network_file_system)
    atomic.write_bytes(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_json_cannot_say_is_refused_and_the_old_file_kept(tmp_path, value):
    path = tmp_path / "file.json"
    atomic.write_json(path, {"a": 1})
    with pytest.raises((ValueError, TypeError)):
        atomic.write_json(path, {"a": value})
    assert json.loads(path.read_text()) == {"a": 1}


# --- folders ----------------------------------------------------------------------------------


def test_folder_appears_whole_under_its_name(tmp_path):
    path = tmp_path / "deep" / "folder"
    with atomic.new_folder(path) as temporary:
        assert temporary.parent == path.parent
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_text("content")
        assert not path.exists()
    assert entries(path.parent) == ["folder"]
    assert (path / "sub" / "file").read_text() == "content"


def test_folder_is_synced_with_all_it_holds_before_it_takes_its_name(tmp_path, monkeypatch):
    synced = set()
    fsync, rename = os.fsync, Path.rename

    def record_sync(descriptor):
        synced.add(opened(descriptor))
        fsync(descriptor)

    before_rename = []

    def record_rename(self, target):
        before_rename.append({path.relative_to(self) for path in synced if self in path.parents})
        before_rename.append(self in synced)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "rename", record_rename)
    with atomic.new_folder(tmp_path / "folder") as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_text("content")
        (temporary / "file").write_text("content")
    assert before_rename == [{Path("sub"), Path("sub/file"), Path("file")}, True]
    assert tmp_path in synced


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt()])
def test_folder_of_a_failed_block_never_appears(tmp_path, error):
    with pytest.raises(type(error)), atomic.new_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("half")
        raise error
    assert entries(tmp_path) == []


def test_folder_that_another_process_made_meanwhile_is_untouched(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(FileExistsError), atomic.new_folder(path) as temporary:
        (temporary / "file").write_text("mine")
        path.mkdir()
        (path / "file").write_text("theirs")
    assert entries(tmp_path) == ["folder"]
    assert (path / "file").read_text() == "theirs"


def test_removed_folder_is_gone_with_everything(tmp_path):
    path = tmp_path / "folder"
    (path / "sub").mkdir(parents=True)
    atomic.remove_folder(path)
    assert entries(tmp_path) == []


def test_folder_whose_removal_is_cut_short_is_no_longer_under_its_name(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_text("content")
    monkeypatch.setattr(shutil, "rmtree", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        atomic.remove_folder(path)
    monkeypatch.undo()
    assert not path.exists()
    assert len(entries(tmp_path)) == 1
    atomic.remove_leftovers(path)
    assert entries(tmp_path) == []


# --- leftovers --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["store", "data[1]", "a*b", "x?", ".hidden"])
def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path, monkeypatch, name):
    path = tmp_path / name
    # What `kill -9` leaves: temporary names whose owners had no chance to clean up.
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(Path, "replace", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(path, b"content")
    with pytest.raises(KeyboardInterrupt), atomic.new_folder(path):
        raise KeyboardInterrupt
    monkeypatch.undo()
    assert len(entries(tmp_path)) == 2
    path.mkdir()
    (tmp_path / "other").write_text("")
    (tmp_path / ".other.tmp-1").write_text("")
    atomic.remove_leftovers(path)
    assert entries(tmp_path) == sorted([name, "other", ".other.tmp-1"])


def test_leftovers_in_a_folder_go_and_everything_else_stays(tmp_path):
    kept = [tmp_path / "last.safetensors", tmp_path / ".hidden", tmp_path / "a.tmp-b"]
    leftovers = [tmp_path / ".last.safetensors.tmp-1a2b3c4d", tmp_path / ".x.csv.tmp-99"]
    for path in kept + leftovers:
        path.touch()

    atomic.remove_leftovers_in(tmp_path)

    assert sorted(tmp_path.iterdir()) == sorted(kept)
    atomic.remove_leftovers_in(tmp_path / "missing")


def test_a_folder_goes_though_another_thread_writes_into_it_as_it_is_removed(tmp_path, monkeypatch):
    remove, calls = shutil.rmtree, []

    def with_a_late_file(folder, **options):
        remove(folder, **options)
        calls.append(folder)
        if len(calls) == 1:
            folder.mkdir()
            (folder / "late").touch()

    monkeypatch.setattr(shutil, "rmtree", with_a_late_file)
    with pytest.raises(OSError, match="full"), atomic.new_folder(tmp_path / "new"):
        raise OSError("full")
    assert list(tmp_path.iterdir()) == []

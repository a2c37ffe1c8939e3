"""One writer at a time, also after crashes and across machines."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medplus import lock
from medplus.errors import MedplusError

_HOLD = """
import sys, time
from pathlib import Path
from medplus import lock
with lock.hold(Path(sys.argv[1]), "the store"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "store.lock"


@pytest.fixture
def owner(path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it is sent a line."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def leave_lock(path: Path, host: str, age_s: float = 0.0) -> None:
    """Write the lock file of an owner on some host, last refreshed `age_s` seconds ago."""
    path.write_text(json.dumps({"host": host, "pid": 4711, "since": 0.0}))
    moment = time.time() - age_s
    os.utime(path, (moment, moment))


def assert_can_be_held(path: Path) -> None:
    with lock.hold(path, "the store"):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_held_lock_names_host_and_process_and_is_gone_afterwards(path):
    with lock.hold(path, "the store"):
        owner = json.loads(path.read_text())
        assert (owner["host"], owner["pid"]) == (socket.gethostname(), os.getpid())
    assert not path.exists()


def test_lock_of_another_process_is_refused_with_its_owner_named(path, owner):
    with pytest.raises(lock.LockHeldError) as caught, lock.hold(path, "the store"):
        pass
    message = str(caught.value)
    assert f"the store is in use by process {owner.pid} on {socket.gethostname()}" in message
    assert str(path) in message
    assert isinstance(caught.value, MedplusError)


def test_waiting_ends_when_the_owner_ends(path, owner):
    def release():
        time.sleep(0.3)
        owner.stdin.write("\n")
        owner.stdin.flush()

    threading.Thread(target=release).start()
    with lock.hold(path, "the store", timeout_s=60):
        assert owner.wait(60) == 0


def test_killed_owners_lock_is_taken_over_at_once(path, owner):
    owner.send_signal(signal.SIGKILL)
    owner.wait(60)
    assert path.exists()  # it had no chance to clean up
    assert_can_be_held(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '"host"', "{}", '{"host": null, "pid": 1}']
)
def test_stale_file_of_any_content_is_taken_over(path, content):
    path.write_text(content)
    if "null" in content:
        os.utime(path, (1, 1))
    assert_can_be_held(path)


def test_stale_file_of_this_host_is_taken_over_however_fresh(path):
    leave_lock(path, socket.gethostname())
    assert_can_be_held(path)


def test_fresh_lock_of_another_host_is_refused_with_its_owner_named(path):
    leave_lock(path, "node17", age_s=20)
    with pytest.raises(lock.LockHeldError, match="process 4711 on node17"), lock.hold(path, "it"):
        pass
    assert json.loads(path.read_text())["host"] == "node17"


def test_old_lock_of_another_host_is_taken_over(path):
    leave_lock(path, "node17", age_s=400)
    assert_can_be_held(path)


def test_a_held_lock_stays_young(path):
    with lock.hold(path, "the store", heartbeat_s=0.01):
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 30
        while path.stat().st_mtime < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 60


def test_lock_file_that_vanished_does_not_hurt_its_owner(path):
    with lock.hold(path, "the store", heartbeat_s=0.01):
        path.unlink()
        time.sleep(0.1)
    assert_can_be_held(path)


def test_lock_whose_file_was_replaced_meanwhile_is_tried_again(path, monkeypatch):
    flock = fcntl.flock
    replaced = []

    def replacing(descriptor, flags):
        flock(descriptor, flags)
        if not replaced:  # the previous owner unlinks the file just after we opened it
            replaced.append(True)
            path.unlink()

    monkeypatch.setattr(fcntl, "flock", replacing)
    with lock.hold(path, "the store", timeout_s=10):
        assert path.exists()
        with pytest.raises(lock.LockHeldError), lock.hold(path, "the store"):
            pass


def test_exactly_one_of_many_threads_holds_it_at_a_time(path):
    inside = []
    most = []

    def work():
        with lock.hold(path, "the store", timeout_s=60):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6


def test_missing_folder_is_told(tmp_path):
    missing = tmp_path / "none" / "store.lock"
    with (
        pytest.raises(MedplusError, match=r"the store cannot be locked.*No such file") as caught,
        lock.hold(missing, "the store"),
    ):
        pass
    assert str(missing) in str(caught.value)


@pytest.mark.parametrize(("owner_of", "call"), [(os, "pwrite"), (fcntl, "flock")])
def test_disk_that_cannot_lock_is_told_and_nothing_stays_open(path, monkeypatch, owner_of, call):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(owner_of, call, fail)
    with (
        pytest.raises(MedplusError, match="No space left on device"),
        lock.hold(path, "the store"),
    ):
        pass
    monkeypatch.undo()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert_can_be_held(path)


class TestOwner:
    """Who holds a lock, without taking it."""

    def test_nobody_holds_a_file_that_is_not_there(self, path, tmp_path):
        assert lock.owner(path) is None
        assert lock.owner(tmp_path / "none" / "store.lock") is None
        assert not path.exists()

    def test_holder_is_another_process(self, path, owner):
        found = lock.owner(path)
        assert found == lock.Owner(socket.gethostname(), owner.pid)
        assert str(found) == f"process {owner.pid} on {socket.gethostname()}"

    def test_holder_on_another_host_counts_while_it_is_young(self, path):
        leave_lock(path, "node17", age_s=20)
        assert lock.owner(path) == lock.Owner("node17", 4711)
        leave_lock(path, "node17", age_s=1000)
        assert lock.owner(path) is None

    def test_looking_changes_nothing(self, path, owner):
        before = (path.read_bytes(), path.stat().st_mtime_ns)
        for _ in range(3):
            lock.owner(path)
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before
        with pytest.raises(lock.LockHeldError), lock.hold(path, "the store"):
            pass

    @pytest.mark.parametrize("content", ["", "{", "[]", "3", '"host"', "{}", '{"host": "a"}'])
    def test_unreadable_note_of_a_holder_is_a_holder_still(self, path, content):
        with lock.hold(path, "the store"):
            path.write_text(content)
            found = lock.owner(path)
        assert found is not None
        assert str(found) == "another process"


def test_stale_file_is_removed_and_a_held_one_stays(path, owner):
    lock.remove_stale(path)
    assert path.exists()
    owner.kill()
    owner.wait()
    lock.remove_stale(path)
    assert not path.exists()
    lock.remove_stale(path)  # there is none


def test_ctrl_c_while_letting_go_leaves_no_file(path, monkeypatch):
    unlink, pressed = Path.unlink, []

    def interrupted(self, *arguments, **options):
        if not pressed:
            pressed.append(self)
            raise KeyboardInterrupt
        unlink(self, *arguments, **options)

    with pytest.raises(KeyboardInterrupt), lock.hold(path, "the store"):
        monkeypatch.setattr(Path, "unlink", interrupted)
    assert pressed == [path] and not path.exists()
    assert_can_be_held(path)

"""The sweep's notes beside the runs: claims end with their owner, failures are remembered."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medplus import atomic
from medplus.errors import RunError
from medplus.lock import LockHeldError
from medplus.spec import ExtractSpec
from medplus.sweep.desk import FOLDER, Desk
from medplus.sweep.job import Job

JOB = Job("extract", ExtractSpec("breastmnist", 28, "resnet18", "none"), {"dtype": "float32"}, 0)
OTHER = Job("extract", ExtractSpec("breastmnist", 28, "vgg16", "none"), {"dtype": "float32"}, 0)

_CLAIM = """
import sys
from pathlib import Path
from medplus.sweep.desk import Desk
from medplus.spec import ExtractSpec
from medplus.sweep.job import Job
job = Job("extract", ExtractSpec("breastmnist", 28, "resnet18", "none"), {"dtype": "float32"}, 0)
with Desk(Path(sys.argv[1])).claim(job):
    print("claimed", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "runs")
    desk.prepare()
    return desk


@pytest.fixture
def worker(desk: Desk) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed the job until it is sent a line."""
    with subprocess.Popen(
        [sys.executable, "-c", _CLAIM, str(desk.folder.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.kill()


def test_claimed_job_is_refused_to_others_and_its_holder_is_told(desk, worker):
    holder = desk.holder(JOB)
    assert holder is not None
    assert (holder.host, holder.pid) == (socket.gethostname(), worker.pid)
    with (
        pytest.raises(LockHeldError, match=f"extract breastmnist 28 resnet18.*{worker.pid}"),
        desk.claim(JOB),
    ):
        pass


def test_other_jobs_stay_free(desk, worker):
    assert desk.holder(OTHER) is None
    with desk.claim(OTHER):
        pass


def test_claim_ends_with_its_block(desk):
    with desk.claim(JOB):
        holder = desk.holder(JOB)
        assert holder is not None
        assert holder.pid == os.getpid()
    assert desk.holder(JOB) is None
    assert list(desk.folder.glob("claims/*")) == []


def test_failure_comes_back_as_it_was_recorded(desk):
    try:
        raise ValueError("first line\nsecond line")
    except ValueError as error:
        told = desk.record_error(JOB, error)
    assert desk.failures() == {JOB.id: told}
    assert (told.name, told.kind) == ("extract breastmnist 28 resnet18", "error")
    assert (told.error, told.message) == ("ValueError", "first line")
    assert "test_failure_comes_back_as_it_was_recorded" in told.traceback
    assert (told.host, told.pid) == (socket.gethostname(), os.getpid())
    assert told.log == str(desk.log(JOB))
    assert told.when.endswith("Z")


def test_our_own_errors_are_told_whole(desk):
    assert desk.record_error(JOB, RunError("this; do that")).message == "this; do that"


def test_death_of_a_process_is_told_from_an_error(desk):
    told = desk.record_death(JOB, "killed by signal 9; perhaps out of memory", "node7", 4711)
    assert desk.failures() == {JOB.id: told}
    assert (told.kind, told.host, told.pid) == ("killed", "node7", 4711)
    assert told.traceback == ""
    assert told.message == "killed by signal 9; perhaps out of memory"


def test_later_failure_replaces_the_earlier(desk):
    desk.record_error(JOB, RunError("one"))
    desk.record_error(JOB, RunError("two"))
    desk.record_error(OTHER, RunError("three"))
    said = {job_id: failure.message for job_id, failure in desk.failures().items()}
    assert said == {JOB.id: "two", OTHER.id: "three"}


def test_forgotten_failure_is_gone_and_others_stay(desk):
    desk.record_error(JOB, RunError("one"))
    kept = desk.record_error(OTHER, RunError("two"))
    desk.forget_failure(JOB)
    desk.forget_failure(JOB)  # twice does not hurt
    assert desk.failures() == {OTHER.id: kept}


GOOD = {
    "job_id": "id", "name": "name", "kind": "error", "error": "E", "message": "m",
    "traceback": "t", "host": "h", "pid": 1, "log": "log", "when": "when",
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"3", b'"x"', b"\xff\xfe", b"{}", json.dumps(GOOD)[:-5].encode(),
        json.dumps({**GOOD, "extra": 1}).encode(),
        json.dumps({k: v for k, v in GOOD.items() if k != "when"}).encode(),
        json.dumps({**GOOD, "job_id": []}).encode(),
    ],
)  # fmt: skip
def test_damaged_note_counts_as_none(desk, content):
    kept = desk.record_error(OTHER, RunError("two"))
    (desk.folder / "failures" / "damaged.json").write_bytes(content)
    assert desk.failures() == {OTHER.id: kept}


def test_no_desk_means_no_failures_and_no_holders(tmp_path):
    desk = Desk(tmp_path / "none")
    assert desk.failures() == {}
    assert desk.holder(JOB) is None
    desk.forget_failure(JOB)
    assert list(tmp_path.iterdir()) == []


def test_preparing_twice_keeps_what_is_there(desk):
    told = desk.record_error(JOB, RunError("one"))
    desk.prepare()
    assert desk.failures() == {JOB.id: told}


def test_desk_is_no_run(desk):
    """Whoever lists runs must pass it by: its name is hidden."""
    assert FOLDER.startswith(".")
    assert desk.folder == desk.folder.parent / FOLDER


def test_full_disk_loses_the_note_but_not_the_sweep(desk, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "write_json", fail)
    assert desk.record_error(JOB, RunError("one")).message == "one"
    monkeypatch.undo()
    assert desk.failures() == {}


def test_folder_that_cannot_be_made_is_told_with_the_remedy(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match=r"cannot be made: Not a directory; choose another --runs"):
        Desk(tmp_path / "runs").prepare()


def test_logs_of_different_jobs_are_different_files(desk):
    assert desk.log(JOB) != desk.log(OTHER)
    assert desk.log(JOB).parent.is_dir()

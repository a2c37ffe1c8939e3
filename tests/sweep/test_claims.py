"""Claims: one worker per job, whatever dies; failures are remembered."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import pytest

from medplus.errors import RunError
from medplus.spec import ExtractSpec
from medplus.sweep.claims import ATTEMPTS, Claimant, Claims, Standing
from medplus.sweep.job import Job


def job(number: int = 0) -> Job:
    return Job("finetune", ExtractSpec("breastmnist", 28, "resnet18", "none"), {"seed": number}, 1)


JOB, OTHER = job(0), job(1)
FOREVER = 10_000_000.0

_WORKER = """
import socket, sys, time
from pathlib import Path
from medplus.sweep import claims
host, ahead = sys.argv[3], float(sys.argv[4])
if host:  # another machine, whose clock is wrong
    clock, name = time.time, socket.gethostname
    time.time, socket.gethostname = lambda: clock() + ahead, lambda: host
from medplus.spec import ExtractSpec
from medplus.sweep.claims import Claimant, Claims
from medplus.sweep.job import Job
def job(number):
    return Job("finetune", ExtractSpec("breastmnist", 28, "resnet18", "none"), {"seed": number}, 1)
with Claimant(Claims(Path(sys.argv[1])), "w") as me:
    print(*(i for i in range(int(sys.argv[2])) if me.claim(job(i))), flush=True)
    time.sleep(100)
"""


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    claims = Claims(tmp_path / "runs")
    claims.prepare()
    return claims


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(claims: Claims) -> Iterator[Start]:
    """Return a function that starts a worker which claims what it can, and says what."""
    started = []

    def run(
        n_jobs: int = 1, within: tuple[str, ...] = (), host: str = "", ahead: float = 0
    ) -> subprocess.Popen:
        place = str(claims.folder.parent)
        words = (sys.executable, "-c", _WORKER, place, str(n_jobs), host, str(ahead))
        started.append(subprocess.Popen([*within, *words], stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def claimed(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(number) for number in process.stdout.readline().split()]


def die(start: Start) -> None:
    process = start()
    assert claimed(process) == [0]
    process.kill()
    process.wait()


def age(claims: Claims, seconds: float) -> None:
    """Let all workers have been silent for so long."""
    for path in claims.folder.glob("claims/*"):
        then = path.stat().st_mtime - seconds
        os.utime(path, (then, then))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be on another machine than the workers that it looks at."""
    monkeypatch.setattr(socket, "gethostname", lambda: "another")


def test_claimed_job_is_refused_to_others_and_its_holder_is_told(claims: Claims, start: Start):
    process = start()
    assert claimed(process) == [0]
    with Claimant(claims, "me") as me:
        assert not me.claim(JOB)
        assert me.claim(OTHER)
        holders = claims.standing().holders
    assert holders[JOB.id].host == socket.gethostname()
    assert (holders[JOB.id].pid, holders[OTHER.id].pid) == (process.pid, os.getpid())


def test_what_is_let_go_is_free_and_counts_no_attempt(claims: Claims):
    with Claimant(claims, "me") as me:
        for _ in range(ATTEMPTS + 1):
            assert me.claim(JOB)
            me.tell("epoch 1/2")
            assert claims.standing().holders[JOB.id].doing == "epoch 1/2"
            me.release()
    assert claims.standing() == Standing()
    assert [path.name for path in claims.folder.rglob("*") if path.is_file()] == []


def test_workers_on_hosts_whose_clocks_differ_claim_every_job_once(claims: Claims, start: Start):
    hosts = [start(n_jobs=200, host=f"node{i}", ahead=300 * (i - 1)) for i in range(3)]
    assert sorted(chain.from_iterable(map(claimed, hosts))) == list(range(200))


def test_job_of_a_lost_host_is_free_within_a_minute(claims: Claims, start: Start):
    lost = start(host="node0", ahead=600)
    assert claimed(lost) == [0]
    lost.kill()
    lost.wait()
    assert claimed(start(host="node1", ahead=-600)) == []
    age(claims, 60)
    assert claimed(start(host="node2")) == [0]
    assert claimed(start(host="node1", ahead=-600)) == []


def test_worker_whose_time_is_over_is_interrupted(claims: Claims):
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Claimant(claims, "me", until=time.time() + 0.5), pytest.raises(KeyboardInterrupt):
            time.sleep(60)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_job_of_the_dead_is_free_at_once_and_has_failed_after_three(claims: Claims, start: Start):
    for attempt in range(1, ATTEMPTS + 1):
        assert claims.standing().failures == {}
        die(start)
        assert len(claims.standing().deaths[JOB.id]) == attempt
    assert claims.bury("w", "it ran out of memory")
    with Claimant(claims, "me") as me:
        assert not me.claim(JOB)
    assert claims.standing().failures.keys() == {JOB.id}
    cause = claims.standing().failures[JOB.id].cause
    assert cause == "3 workers have died of it; of the last one: it ran out of memory"

    claims.tidy({JOB.id})
    assert claims.standing().failures == {}
    with Claimant(claims, "me") as me:
        assert me.claim(JOB)


def test_worker_on_another_machine_lives_while_it_is_heard_of(
    claims: Claims, start: Start, elsewhere: None, monkeypatch: pytest.MonkeyPatch
):
    """By the clock of the file system: that of this machine may be wrong by hours."""
    process = start()
    assert claimed(process) == [0]
    monkeypatch.setattr(time, "time", lambda: FOREVER)
    with Claimant(claims, "me") as me:
        age(claims, 30)
        assert not me.claim(JOB)
        process.kill()
        process.wait()
        assert not me.claim(JOB)
        age(claims, 30)
        assert me.claim(JOB)


def test_cause_of_death_elsewhere_is_confirmed_by_silence(
    claims: Claims, start: Start, elsewhere: None
):
    """A node that is lost to its cluster may still compute."""
    die(start)
    assert claims.bury("w", "its node was lost")
    assert JOB.id in claims.standing().holders
    age(claims, 60)
    [dead] = claims.standing().deaths[JOB.id]
    assert dead.cause == "its node was lost"


@pytest.mark.parametrize("namespace", [("--pid", "--mount-proc"), ("--uts",)])
def test_workers_in_containers_do_not_take_each_other_for_dead(
    claims: Claims, start: Start, namespace: tuple[str, ...]
):
    """In a namespace of its own, a process has a number that means another one outside."""
    within = ("unshare", *namespace, "--fork", "--kill-child")
    if subprocess.run([*within, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to make namespaces")
    assert claimed(start(within=within)) == [0]
    assert claimed(start(within=within)) == []
    with Claimant(claims, "me") as me:
        assert not me.claim(JOB)


def test_worker_whose_job_was_taken_over_is_interrupted(claims: Claims):
    """It was suspended for so long that others took it for dead."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Claimant(claims, "me") as me:
            me.claim(JOB)
            claims.path(JOB.id, 2).touch()
            with pytest.raises(KeyboardInterrupt):
                time.sleep(60)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_tidying_removes_the_dead_but_for_their_attempts(claims: Claims, start: Start):
    process = start(n_jobs=2)
    claimed(process)
    claims.tidy({JOB.id, OTHER.id})
    assert len(list(claims.folder.rglob("claims/*"))) == 2  # it lives
    process.kill()
    process.wait()
    claims.tidy({OTHER.id})
    assert [p.name for p in claims.folder.rglob("*") if p.is_file()] == [f"{JOB.id}.1"]


# --- failures ------------------------------------------------------------------------------------


def fail(claims: Claims, job: Job, error: Exception) -> None:
    with Claimant(claims, "me") as me:
        assert me.claim(job)
        me.fail(error)


def test_an_error_is_told_until_it_is_forgotten_and_its_job_is_not_tried(claims: Claims):
    try:
        raise ValueError("first line\nsecond line")
    except ValueError as error:
        fail(claims, JOB, error)
    [told] = claims.standing().failures.values()
    assert (told.job, told.error, told.cause) == (JOB.name, "ValueError", "first line")
    assert (told.host, told.pid) == (socket.gethostname(), os.getpid())
    with Claimant(claims, "me") as me:
        assert not me.claim(JOB)
    claims.tidy({JOB.id})
    fail(claims, JOB, RunError("a; b"))
    assert claims.standing().failures[JOB.id].cause == "a; b"


def test_what_a_worker_has_taken_up_again_is_not_forgotten(claims: Claims, start: Start):
    """Two sweeps may try again at once what has failed."""
    die(start)
    process = start()
    assert claimed(process) == [0]
    claims.tidy({JOB.id})
    assert claims.standing().holders[JOB.id].pid == process.pid


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"job": []}'])
def test_damaged_claim_counts_as_one_in_the_making(claims: Claims, content: bytes):
    claims.path(JOB.id, 1).write_bytes(content)
    assert JOB.id in claims.standing().holders
    age(claims, 60)
    assert JOB.id in claims.standing().deaths


def test_no_folder_means_no_failures_and_no_holders(tmp_path: Path):
    claims = Claims(tmp_path / "none")
    assert claims.standing() == Standing()
    claims.tidy({JOB.id})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_lose_a_failure(claims: Claims, monkeypatch: pytest.MonkeyPatch):
    """It has been given its place before."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, text, at: write(file, text[:4096], at))
    fail(claims, JOB, RunError("ü" * 9000))
    [told] = claims.standing().failures.values()
    assert (told.error, set(told.cause)) == ("RunError", {"ü"})


def test_claim_that_cannot_be_written_is_told_and_not_left(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "pwrite", lambda file, text, at: 0)
    with Claimant(claims, "me") as me, pytest.raises(RunError, match=r"No space left.*make room"):
        me.claim(JOB)
    assert list(claims.folder.glob("claims/*")) == []


def test_folder_that_cannot_be_made_is_told_with_the_remedy(tmp_path: Path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match=r"cannot be made: Not a directory; choose another --runs"):
        Claims(tmp_path / "runs").prepare()

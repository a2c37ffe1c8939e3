"""Who does which job, what has failed, and the logs: a sweep's own files beside the runs.

A worker is a file that it touches while it lives. A claim is a hard link to that file, under the
name of the job and the number of the attempt: made at once and as a whole, on network file systems
too. Nobody takes a claim away; what a dead worker held is claimed under the next number.
Heartbeats are compared by the file system's own clock. Deleting all of it changes no plan but
forgets what has failed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from medplus import atomic
from medplus.errors import MedplusError, RunError, first_line
from medplus.jsonfile import parse_json
from medplus.lock import BEAT_S, SILENT_S, clock_of
from medplus.sweep.job import Job

log = logging.getLogger(__name__)

FOLDER = ".sweep"
ATTEMPTS = 3
"""So many workers may die of a job."""
_FILE_BYTES = 2048
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""What file systems without hard links answer."""


@dataclass(frozen=True)
class Worker:
    """What a worker tells of itself in its file.

    Attributes
    ----------
    process : str
        Identifies the process to others on its machine; empty where it cannot be known.
    doing : str
        How far its job is.
    since : float
        When its job began, in seconds since the epoch, by the clock of its host.
    cause : str
        What has ended it, as its engine tells.
    died : bool
        Whether its engine knows that it is dead.
    """

    name: str
    host: str
    pid: int
    process: str = ""
    doing: str = ""
    since: float = 0.0
    cause: str = ""
    died: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Failure(BaseModel):
    """How a job failed.

    Attributes
    ----------
    kind : {"error", "killed"}
        Whether it raised an error, or its workers died.
    error, message, traceback : str
        The exception's type, its text, and where it was raised; no traceback of a killed process.
    host, pid, log
        Where it ran, and where its output is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    job_id: str
    name: str
    kind: Literal["error", "killed"]
    error: str
    message: str
    traceback: str
    host: str
    pid: int
    log: str


@dataclass(frozen=True)
class Standing:
    """The claims at one moment.

    Attributes
    ----------
    holders : dict of str to Worker
        Who does a job, by its id.
    deaths : dict of str to list of Worker
        Who has died of a job, by its id, in order.
    """

    holders: dict[str, Worker] = field(default_factory=dict)
    deaths: dict[str, list[Worker]] = field(default_factory=dict)

    @property
    def failed(self) -> set[str]:
        """The jobs that too many workers have died of."""
        return {job for job, dead in self.deaths.items() if len(dead) >= ATTEMPTS}


class Claims:
    """The folder ``.sweep`` in the root of the runs.

    Parameters
    ----------
    runs : Path
        Root of the runs.
    """

    def __init__(self, runs: Path) -> None:
        self.folder = runs / FOLDER
        self._ahead = self._ask_again = 0.0

    def prepare(self) -> None:
        """Make the folders.

        Raises
        ------
        RunError
            If they cannot be made.
        """
        try:
            for name in ("claims", "workers", "failures", "logs"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be made: {error.strerror}; choose another --runs"
            ) from None

    def log(self, job: Job) -> Path:
        """Return the path of a job's log."""
        return self.folder / "logs" / f"{job.id}.log"

    def path(self, job: Job, attempt: int) -> Path:
        """Return the path of the claim on a job's attempt, counted from 1."""
        return self.folder / "claims" / f"{job.id}.{attempt}"

    def standing(self) -> Standing:
        """Return who does what, and who has died of what."""
        found = Standing()
        for path, worker, seen in self._files("claims"):
            job = path.name.rpartition(".")[0]
            if self.is_alive(worker, seen):
                found.holders[job] = worker
            else:
                found.deaths.setdefault(job, []).append(worker)
        return found

    def workers(self) -> list[Worker]:
        """Return the workers that live."""
        return [worker for _, worker, seen in self._files("workers") if self.is_alive(worker, seen)]

    def is_alive(self, worker: Worker, seen: float) -> bool:
        """Tell whether a worker lives whose file has the time `seen`."""
        if worker.died:
            return False
        if worker.process and worker.process.startswith(_machine()):
            return _process(worker.pid) == worker.process
        return self.now() - seen < SILENT_S

    def now(self) -> float:
        """Return the time by the file system's clock, which is asked now and then."""
        now = time.monotonic()
        if now >= self._ask_again:
            self._ahead = clock_of(self.folder / "workers") - now
            self._ask_again = now + BEAT_S
        return now + self._ahead

    def time_left(self, until: float | None) -> float | None:
        """Return the seconds until a time, or None where none is set."""
        return None if until is None else until - self.now()

    def _files(self, kind: str) -> Iterator[tuple[Path, Worker, float]]:
        for path in sorted((self.folder / kind).glob("[!.]*")):
            found = read_worker(path)
            if found is not None:
                yield path, *found

    def bury(self, who: Callable[[Worker], bool], cause: str, certain: bool = True) -> bool:
        """Note what has ended workers; if it is not `certain`, their silence must confirm it.

        Returns
        -------
        bool
            Whether any of them held a claim.
        """
        held = False
        for kind in ("workers", "claims"):
            for path, worker, _ in self._files(kind):
                if not worker.died and who(worker):
                    with suppress(FileNotFoundError):  # another worker has just tidied up
                        held |= kind == "claims" or path.stat().st_nlink > 1
                        _write(path, replace(worker, cause=cause, died=certain))
        return held

    def tidy(self, finished: Collection[str]) -> None:
        """Remove the files of dead workers, but for their claims on what is not finished.

        Parameters
        ----------
        finished : collection of str
            Ids of jobs.
        """
        for kind in ("claims", "workers"):
            for path, worker, seen in self._files(kind):
                over = kind == "workers" or path.name.rpartition(".")[0] in finished
                if over and not self.is_alive(worker, seen):
                    path.unlink(missing_ok=True)

    def failed(self) -> set[str]:
        """Return the ids of the jobs that have failed."""
        return self.failures().keys() | self.standing().failed

    def failures(self) -> dict[str, Failure]:
        """Return what errors have ended, by job id; a note that cannot be read counts as none."""
        found = {}
        for path in self.folder.glob("failures/*.json"):
            with suppress(OSError, ValidationError):
                note = Failure.model_validate_json(path.read_bytes())
                found[note.job_id] = note
        return found

    def failure(self, job: Job) -> Failure | None:
        """Return how a job failed, or None."""
        dead = self.standing().deaths.get(job.id, [])
        if len(dead) < ATTEMPTS:
            return self.failures().get(job.id)
        cause = dead[-1].cause or "it was heard of no more"
        return Failure(
            job_id=job.id, name=job.name, kind="killed", error="Killed", traceback="",
            message=f"{ATTEMPTS} workers have died of it; of the last one: {cause}",
            host=dead[-1].host, pid=dead[-1].pid, log=str(self.log(job)),
        )  # fmt: skip

    def record(self, job: Job, error: Exception) -> Failure:
        """Record that a job raised an error."""
        failure = Failure(
            job_id=job.id, name=job.name, kind="error", error=type(error).__name__,
            message=str(error) if isinstance(error, MedplusError) else first_line(error),
            traceback="".join(traceback.format_exception(error)),
            host=socket.gethostname(), pid=os.getpid(), log=str(self.log(job)),
        )  # fmt: skip
        try:
            atomic.write_json(self._failure(job), failure.model_dump())
        except OSError as fault:
            log.warning("'%s' has failed (%s), and %s", job.name, failure.message, fault)
        return failure

    def forget(self, job: Job) -> None:
        """Remove what is known of a job's failure: it has succeeded, or is to be tried again."""
        self._failure(job).unlink(missing_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            self.path(job, attempt).unlink(missing_ok=True)

    def _failure(self, job: Job) -> Path:
        return self.folder / "failures" / f"{job.id}.json"


class Claimant:
    """The worker that this process is for the duration of a block.

    Parameters
    ----------
    claims : Claims
    name : str
        What it is called.
    parent : int, optional
        The process with which this one is to end.
    until : float, optional
        When it is to end, by the file system's clock.
    """

    def __init__(
        self, claims: Claims, name: str, parent: int | None = None, until: float | None = None
    ) -> None:
        self._claims = claims
        self._me = Worker(name, socket.gethostname(), os.getpid(), _process(os.getpid()))
        self._path = claims.folder / "workers" / f"{self._me.host}-{uuid.uuid4().hex[:12]}"
        self._next: Path | None = None
        self._claim: Path | None = None
        self._parent, self._until = parent, until
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        try:
            _write(self._path, self._me, new=True)
        except OSError:
            self._path.unlink(missing_ok=True)
            raise
        self._heart.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._heart.join()
        self._path.unlink(missing_ok=True)

    def claim(self, job: Job) -> bool:
        """Claim a job, unless a worker has it, or too many have died of it."""
        attempt = 1
        while attempt <= ATTEMPTS:
            path = self._claims.path(job, attempt)
            self._me = replace(self._me, doing="", since=time.time())
            if self._link(path):
                self._claim, self._next = path, self._claims.path(job, attempt + 1)
                self._write()
                return True
            found = read_worker(path)
            if found is not None and self._claims.is_alive(*found):
                return False
            attempt += found is not None  # otherwise it has been let go in this moment
        return False

    def release(self) -> None:
        """Let the job go, as it was."""
        claim, self._claim, self._next = self._claim, None, None
        if claim is not None:
            claim.unlink(missing_ok=True)

    def tell(self, doing: str) -> None:
        """Tell how far the job is."""
        self._me = replace(self._me, doing=doing[:500])
        self._write()

    def _write(self) -> None:
        with suppress(OSError):
            _write(self._path, self._me)

    def _link(self, path: Path) -> bool:
        try:
            os.link(self._path, path)
        except FileExistsError:  # perhaps by us: a network file system asks twice at times
            with suppress(OSError):
                return self._path.samefile(path)
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            try:
                _write(path, self._me, new=True)
            except FileExistsError:
                return False
        return True

    def _beat(self) -> None:
        """Show that it lives, and interrupt it where its parent, its job or its time is lost."""
        due = time.monotonic() + BEAT_S
        while not self._over.wait(1.0):
            orphan = self._parent is not None and os.getppid() != self._parent
            lost = self._next is not None and self._next.exists()
            late = self._until is not None and self._claims.now() >= self._until
            if orphan or lost or late:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if time.monotonic() >= due:
                due = time.monotonic() + BEAT_S
                for path in filter(None, (self._path, self._claim)):
                    with suppress(OSError):
                        os.utime(path)


def read_worker(path: Path) -> tuple[Worker, float] | None:
    """Return what a worker's file says and when it was touched, or None where there is no file."""
    try:
        with path.open("rb") as file:  # which asks a network file system for its present state
            seen = os.fstat(file.fileno()).st_mtime
            return Worker(**parse_json(file.read())), seen
    except OSError:
        return None
    except (ValueError, TypeError):
        return Worker("?", "?", 0), seen


def _write(path: Path, worker: Worker, new: bool = False) -> None:
    """Write a worker's file in place, since its claims are links to it."""
    text = json.dumps(asdict(worker)).encode().ljust(_FILE_BYTES)
    file = os.open(path, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if new else 0), 0o644)
    try:
        os.write(file, text)
    finally:
        os.close(file)


def _machine() -> str:
    """Return what identifies this machine, and on it the numbers of its processes, or nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()} "
    except OSError:
        return ""


def _process(pid: int) -> str:
    """Return what identifies a living process for ever; nothing where that cannot be known."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else f"{_machine()}{pid} {rest[18]}"

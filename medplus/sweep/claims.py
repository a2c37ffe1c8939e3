"""Who does which job, and what has failed: one file per attempt at a job, beside the runs.

A claim is a file that is made where none was, under the name of the job and the number of the
attempt; its worker touches it while it lives. What has come over the worker is written into it: how
far it is, an error, what it died of. Nobody takes a claim away; what a dead worker held is claimed
under the next number. Heartbeats are compared by the file system's own clock. Deleting all of it
changes no plan but forgets what has failed.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

from medplus.errors import MedplusError, RunError, first_line
from medplus.jsonfile import parse_json
from medplus.lock import BEAT_S, SILENT_S, clock_of
from medplus.sweep.job import Job

FOLDER = ".sweep"
ATTEMPTS = 3
"""So many workers may die of a job."""
_FILE_BYTES = 2048
"""A claim has at least so many, so that what is written later finds its place on a full disk."""


@dataclass(frozen=True)
class Claim:
    """What a claim's file tells.

    Attributes
    ----------
    job : str
        The job in words.
    worker, host, pid : str, str, int
        Who does it.
    process : str
        Identifies the process to others on its machine; empty where it cannot be known.
    doing : str
        How far the job is.
    since : float
        When it began, in seconds since the epoch, by the clock of its host.
    cause : str
        What has ended the worker, as its engine tells, or the job: an error's text.
    died : bool
        Whether the worker's engine knows that it is dead.
    error, traceback : str
        Type of the error that has ended the job, and where it was raised.
    """

    job: str
    worker: str
    host: str
    pid: int
    process: str = ""
    doing: str = ""
    since: float = 0.0
    cause: str = ""
    died: bool = False
    error: str = ""
    traceback: str = ""

    @property
    def by(self) -> str:
        """Who does it."""
        return f"process {self.pid} on {self.host}"


@dataclass(frozen=True)
class Standing:
    """The claims at one moment, by the ids of their jobs.

    Attributes
    ----------
    holders : dict of str to Claim
        Of workers that live.
    deaths : dict of str to list of Claim
        Of workers that have died, in order.
    failures : dict of str to Claim
        Of what an error or too many deaths have ended.
    """

    holders: dict[str, Claim] = field(default_factory=dict)
    deaths: dict[str, list[Claim]] = field(default_factory=dict)
    failures: dict[str, Claim] = field(default_factory=dict)


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
            for name in ("claims", "logs"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be made: {error.strerror}; choose another --runs"
            ) from None

    def log(self, job_id: str) -> Path:
        """Return the path of a job's log."""
        return self.folder / "logs" / f"{job_id}.log"

    def path(self, job_id: str, attempt: int) -> Path:
        """Return the path of the claim on a job's attempt, counted from 1."""
        return self.folder / "claims" / f"{job_id}.{attempt}"

    def standing(self) -> Standing:
        """Return who does what, who has died of what, and what has failed."""
        found = Standing()
        for path, claim, seen in self._files():
            job = path.name.rpartition(".")[0]
            if claim.error:
                found.failures[job] = claim
            elif self.is_alive(claim, seen):
                found.holders[job] = claim
            else:
                found.deaths.setdefault(job, []).append(claim)
        for job, dead in found.deaths.items():
            if len(dead) >= ATTEMPTS:
                last = dead[-1].cause or "it was heard of no more"
                cause = f"{ATTEMPTS} workers have died of it; of the last one: {last}"
                found.failures[job] = replace(dead[-1], cause=cause)
        return found

    def is_alive(self, claim: Claim, seen: float) -> bool:
        """Tell whether the worker of a claim lives that was touched at `seen`."""
        if claim.died or claim.error:
            return False
        if claim.process and claim.process.startswith(_machine()):
            return _process(claim.pid) == claim.process
        return self.now() - seen < SILENT_S

    def now(self) -> float:
        """Return the time by the file system's clock, which is asked now and then."""
        now = time.monotonic()
        if now >= self._ask_again:
            self._ahead = clock_of(self.folder) - now
            self._ask_again = now + BEAT_S
        return now + self._ahead

    def time_left(self, until: float | None) -> float | None:
        """Return the seconds until a time, or None where none is set."""
        return None if until is None else until - self.now()

    def _files(self) -> Iterator[tuple[Path, Claim, float]]:
        for path in sorted((self.folder / "claims").glob("*.[1-9]")):
            found = read_claim(path)
            if found is not None:
                yield path, *found

    def bury(self, who: Callable[[Claim], bool], cause: str, certain: bool = True) -> bool:
        """Note what has ended workers; if it is not `certain`, their silence must confirm it.

        Returns
        -------
        bool
            Whether any of them held a claim.
        """
        held = False
        for path, claim, _ in self._files():
            if not claim.died and not claim.error and who(claim):
                with suppress(FileNotFoundError):  # another worker has just tidied up
                    _write(path, replace(claim, cause=cause, died=certain))
                    held = True
        return held

    def tidy(self, finished: Collection[str]) -> None:
        """Remove the claims of the dead on what is finished, by the ids of its jobs."""
        for path, claim, seen in self._files():
            if path.name.rpartition(".")[0] in finished and not self.is_alive(claim, seen):
                path.unlink(missing_ok=True)

    def forget(self, job_id: str) -> None:
        """Remove what is known of a job's failure: it has succeeded, or is to be tried again."""
        for attempt in range(ATTEMPTS, 0, -1):
            path = self.path(job_id, attempt)
            found = read_claim(path)
            if found is not None and not self.is_alive(*found):
                path.unlink(missing_ok=True)


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
        self._claim = Claim("", name, socket.gethostname(), os.getpid(), _process(os.getpid()))
        self._path: Path | None = None
        self._next: Path | None = None
        self._parent, self._until = parent, until
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._heart.join()

    def claim(self, job: Job) -> bool:
        """Claim a job, unless a worker has it, or it has failed.

        Raises
        ------
        RunError
            If the claim cannot be written.
        """
        attempt = 1
        while attempt <= ATTEMPTS:
            path = self._claims.path(job.id, attempt)
            self._claim = replace(self._claim, job=job.name, doing="", since=time.time())
            try:
                _write(path, self._claim, new=True)
            except FileExistsError:
                found = read_claim(path)
                if found is not None and (found[0].error or self._claims.is_alive(*found)):
                    return False
                attempt += found is not None  # otherwise it has been let go in this moment
            except OSError as error:
                raise RunError(f"{path} cannot be written: {error.strerror}; make room") from None
            else:
                self._path, self._next = path, self._claims.path(job.id, attempt + 1)
                return True
        return False

    def release(self) -> None:
        """Let the job go, as it was."""
        path, self._path, self._next = self._path, None, None
        if path is not None:
            path.unlink(missing_ok=True)

    def tell(self, doing: str) -> None:
        """Tell how far the job is."""
        self._claim = replace(self._claim, doing=doing[:500])
        if self._path is not None:
            with suppress(OSError):
                _write(self._path, self._claim)

    def fail(self, error: Exception) -> str:
        """Let the job go as one that an error has ended, and return the error's sentence."""
        message = str(error) if isinstance(error, MedplusError) else first_line(error)
        lines = "".join(traceback.format_exception(error))
        failed = replace(self._claim, error=type(error).__name__, cause=message, traceback=lines)
        path, self._path, self._next = self._path, None, None
        assert path is not None
        try:
            _write(path, failed)
        except OSError:  # the disk is full: what fits into the claim's place
            with suppress(OSError):
                _write(path, replace(failed, cause=message[:500], traceback=""))
        return message

    def _beat(self) -> None:
        """Show that it lives, and interrupt it where its parent, its job or its time is lost."""
        due = time.monotonic() + BEAT_S
        while not self._over.wait(1.0):
            path, following = self._path, self._next
            orphan = self._parent is not None and os.getppid() != self._parent
            lost = following is not None and following.exists()
            late = self._until is not None and self._claims.now() >= self._until
            if orphan or lost or late:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if path is not None and time.monotonic() >= due:
                due = time.monotonic() + BEAT_S
                with suppress(OSError):
                    os.utime(path)


def read_claim(path: Path) -> tuple[Claim, float] | None:
    """Return what a claim says and when it was touched, or None where there is none."""
    try:
        with path.open("rb") as file:  # which asks a network file system for its present state
            seen = os.fstat(file.fileno()).st_mtime
            return Claim(**parse_json(file.read())), seen
    except OSError:
        return None
    except (ValueError, TypeError):  # it may be in the making
        return Claim(path.name, "?", "?", 0), seen


def _write(path: Path, claim: Claim, new: bool = False) -> None:
    """Write a claim in place: who holds it is decided by who has made the file."""
    text = json.dumps(asdict(claim)).encode().ljust(_FILE_BYTES)
    file = os.open(path, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if new else 0), 0o644)
    try:
        if os.write(file, text) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(file, len(text))
    except OSError:
        if new:
            path.unlink(missing_ok=True)
        raise
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

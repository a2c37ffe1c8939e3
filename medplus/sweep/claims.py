"""Who does which job, and what has failed: one file per attempt at a job, beside the runs.

A claim is a file that is made where none was, under the name of the job and the number of the
attempt. Its worker holds its lock and touches it while it lives, so that others can tell (see
`medplus.lock`). What has come over the worker is written into it: how far it is, an error, what it
died of. Nobody takes a claim away; what a dead worker held is claimed under the next number.
Deleting all of it changes no plan but forgets what has failed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, Self

from medplus.errors import MedplusError, RunError, explained, first_line, writing
from medplus.jsonfile import parse_json
from medplus.lock import BEAT_S, SILENT_S, clock_of, owner
from medplus.sweep.job import Job

FOLDER = ".sweep"
ATTEMPTS = 3
"""So many workers may die of a job."""
_FILE_BYTES = 4096
"""A claim has so many from the start, so that what is told later finds room on a full disk."""


@dataclass(frozen=True)
class Claim:
    """What a claim's file tells.

    Attributes
    ----------
    job : str
        The job in words.
    worker, host, pid : str, str, int
        Who does it.
    doing : str
        How far the job is.
    since : float
        When it began, in seconds since the epoch, by the clock of its host.
    cause : str
        What has ended the worker, as its engine tells, or the job: an error's text.
    error : str
        Type of the error that has ended the job.
    lives : bool
        Whether the worker is at it, as it was when this was read.
    """

    job: str
    worker: str
    host: str
    pid: int
    doing: str = ""
    since: float = 0.0
    cause: str = ""
    error: str = ""
    lives: bool = True


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
    """The folder ``.sweep`` in the root of the runs."""

    def __init__(self, runs: Path) -> None:
        self.folder = runs / FOLDER

    def prepare(self) -> None:
        """Make the folders.

        Raises
        ------
        RunError
            If they cannot be made.
        """
        with explained(RunError, f"{self.folder} cannot be made", "choose another --runs"):
            for name in ("claims", "logs"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)

    def log(self, job_id: str) -> Path:
        """Return the path of a job's log."""
        return self.folder / "logs" / f"{job_id}.log"

    def path(self, job_id: str, attempt: int) -> Path:
        """Return the path of the claim on a job's attempt, counted from 1."""
        return self.folder / "claims" / f"{job_id}.{attempt}"

    def standing(self) -> Standing:
        """Return who does what, who has died of what, and what has failed."""
        found = Standing()
        for path, claim in self._read():
            job = path.stem
            if claim.error:
                found.failures[job] = claim
            elif claim.lives:
                found.holders[job] = claim
            else:
                found.deaths.setdefault(job, []).append(claim)
        for job, dead in found.deaths.items():
            if len(dead) >= ATTEMPTS:
                last = dead[-1].cause or "it was heard of no more"
                cause = f"{ATTEMPTS} workers have died of it; of the last one: {last}"
                found.failures[job] = replace(dead[-1], cause=cause)
        return found

    def time_left(self, until: float | None) -> float:
        """Return the seconds until a time by the file system's clock; infinity where it is None."""
        return math.inf if until is None else until - clock_of(self.folder)

    def bury(self, worker: str, cause: str) -> bool:
        """Note what has ended a worker, and tell whether it held a claim."""
        held = False
        for path, claim in self._read():
            if claim.worker == worker and not claim.cause:
                with suppress(FileNotFoundError), path.open("r+b") as file:
                    _write(file.fileno(), replace(claim, cause=cause))
                    held = True
        return held

    def tidy(self, finished: Collection[str]) -> None:
        """Remove the claims of the dead on what is finished, or is to be forgotten."""
        for path, claim in self._read():
            if path.stem in finished and not claim.lives:
                path.unlink(missing_ok=True)

    def _read(self) -> Iterator[tuple[Path, Claim]]:
        for path in sorted((self.folder / "claims").glob("*.[1-9]")):
            claim = read_claim(path)
            if claim is not None:
                yield path, claim


class Claimant:
    """The worker that this process is for the duration of a block; it ends with its parent.

    Parameters
    ----------
    claims : Claims
    name : str
        What it is called.
    until : float, optional
        When it is to end, by the file system's clock.
    """

    def __init__(self, claims: Claims, name: str, until: float | None = None) -> None:
        self._claims, self._until = claims, until
        self._claim = Claim("", name, socket.gethostname(), os.getpid())
        self._held: tuple[int, Path, Path] | None = None  # file, its path, the next attempt's
        self._told, self._over = -math.inf, threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._heart.join()
        self._close()

    def claim(self, job: Job) -> bool:
        """Claim a job, unless a worker has it, or it has failed.

        Raises
        ------
        RunError
            If the claim cannot be written.
        """
        self._claim = replace(self._claim, job=job.name, doing="", since=time.time())
        self._told = -math.inf
        for attempt in range(1, ATTEMPTS + 1):
            path = self._claims.path(job.id, attempt)
            found = read_claim(path)
            if found is None:
                with writing(path, "make room"), suppress(FileExistsError):
                    file = _make(path, self._claim)
                    self._held = file, path, self._claims.path(job.id, attempt + 1)
                    return True
                return False  # another was faster
            if found.error or found.lives:
                return False
        return False

    def release(self) -> None:
        """Let the job go, as it was."""
        if self._held is not None:
            self._held[1].unlink(missing_ok=True)
            self._close()

    def tell(self, doing: str) -> None:
        """Tell how far the job is; at most once a second, the rest is dropped."""
        if time.monotonic() >= self._told + 1:
            self._told = time.monotonic()
            self._note(doing=doing[:100])

    def fail(self, error: BaseException) -> str:
        """Let the job go as one that an error has ended, and return the error's sentence."""
        message = str(error) if isinstance(error, MedplusError) else first_line(error)
        self._note(error=type(error).__name__, cause=message[:700])
        self._close()
        return message

    def _note(self, **told: Any) -> None:
        if self._held is not None:
            with suppress(OSError):
                _write(self._held[0], replace(self._claim, **told))

    def _close(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            os.close(held[0])

    def _beat(self) -> None:
        """Show that it lives, and interrupt it where its parent, its job or its time is lost."""
        parent = parent_process()
        now = due = time.monotonic()
        end = now + self._claims.time_left(self._until)
        while not self._over.wait(1.0):
            held, now = self._held, time.monotonic()
            orphan = parent is not None and os.getppid() != parent.pid
            lost = held is not None and held[2].exists()
            if orphan or lost or now >= end:
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if held is not None and now >= due:
                due = now + BEAT_S
                with suppress(OSError):
                    os.utime(held[1])


def read_claim(path: Path) -> Claim | None:
    """Return what a claim says, or None where there is none."""
    try:
        with path.open("rb") as file:  # which asks a network file system for its present state
            seen = os.fstat(file.fileno()).st_mtime
            claim = Claim(**parse_json(file.read()))
        return replace(claim, lives=not claim.error and owner(path) is not None)
    except OSError:
        return None
    except (ValueError, TypeError):  # it may be in the making
        return Claim(path.name, "?", "?", 0, lives=clock_of(path.parent) - seen < SILENT_S)


def _make(path: Path, claim: Claim) -> int:
    """Make a claim's file where there is none, and return it open and locked."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        _write(file, claim)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(file)
        raise
    return file


def _write(file: int, claim: Claim) -> None:
    """Write a claim in place: who holds it is decided by who has made the file."""
    text = json.dumps(asdict(claim), ensure_ascii=False).encode(errors="replace")
    text = text.ljust(_FILE_BYTES)
    if os.pwrite(file, text, 0) < len(text):  # as at the end of a disk
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(file, len(text))

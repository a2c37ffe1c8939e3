"""The sweep's own files beside the runs: claims on jobs, failures and logs.

They are notes, not results. A claim is a lock and ends with its owner; a failure stands until the
job succeeds; deleting all of them changes no plan but forgets what has failed.
"""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from medplus import atomic, lock
from medplus.errors import MedplusError, RunError, first_line
from medplus.sweep.job import Job

FOLDER = ".sweep"


class Failure(BaseModel):
    """How a job failed.

    Attributes
    ----------
    kind : {"error", "killed"}
        Whether it raised an error, or its process died.
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
    when: str


class Desk:
    """The folder ``.sweep`` in the root of the runs.

    Parameters
    ----------
    runs : Path
        Root of the runs.
    """

    def __init__(self, runs: Path) -> None:
        self.folder = runs / FOLDER

    def prepare(self) -> None:
        """Make the folders.

        Raises
        ------
        RunError
            If they cannot be made.
        """
        try:
            for name in ("claims", "failures", "logs"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"{self.folder} cannot be made: {error.strerror}; choose another --runs"
            ) from None

    def tidy(self) -> None:
        """Remove the claims of killed workers on jobs that they had just finished."""
        for path in self.folder.glob("claims/*.lock"):
            lock.remove_stale(path)

    def log(self, job: Job) -> Path:
        """Return the path of a job's log."""
        return self.folder / "logs" / f"{job.id}.log"

    @contextmanager
    def claim(self, job: Job) -> Iterator[None]:
        """Hold a job for the duration of the block.

        Raises
        ------
        LockHeldError
            If another process holds it.
        """
        with lock.hold(self._claim(job), f"the job '{job.name}'"):
            yield

    def holder(self, job: Job) -> lock.Owner | None:
        """Return who holds a job, or None."""
        return lock.owner(self._claim(job))

    def _claim(self, job: Job) -> Path:
        return self.folder / "claims" / f"{job.id}.lock"

    def failures(self) -> dict[str, Failure]:
        """Return all recorded failures by job id; a note that cannot be read counts as none."""
        notes = (_read(path) for path in self.folder.glob("failures/*.json"))
        return {note.job_id: note for note in notes if note is not None}

    def failure(self, job: Job) -> Failure | None:
        """Return the note of a job's failure, or None."""
        return _read(self._failure(job))

    def record_error(self, job: Job, error: Exception) -> Failure:
        """Record that a job raised an error."""
        text = str(error) if isinstance(error, MedplusError) else first_line(error)
        trace = "".join(traceback.format_exception(error))
        return self._record(job, "error", type(error).__name__, text, trace, *_here())

    def record_death(self, job: Job, message: str, host: str, pid: int) -> Failure:
        """Record that the process of a job has died; it cannot do so itself."""
        return self._record(job, "killed", "Killed", message, "", host, pid)

    def _record(
        self, job: Job, kind: Literal["error", "killed"], error: str, text: str, trace: str,
        host: str, pid: int,
    ) -> Failure:  # fmt: skip
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        log = str(self.log(job))
        failure = Failure(
            job_id=job.id, name=job.name, kind=kind, error=error, message=text, traceback=trace,
            host=host, pid=pid, log=log, when=when,
        )  # fmt: skip
        with suppress(OSError):  # on a full disk the job is simply still left to do
            atomic.write_json(self._failure(job), failure.model_dump())
        return failure

    def forget_failure(self, job: Job) -> None:
        """Remove the note of a failure: the job has succeeded, or is to be tried again."""
        self._failure(job).unlink(missing_ok=True)

    def _failure(self, job: Job) -> Path:
        return self.folder / "failures" / f"{job.id}.json"


def _here() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _read(path: Path) -> Failure | None:
    try:
        return Failure.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None

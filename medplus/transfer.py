"""Fetching large files over HTTP: resumed, checked, retried, and by one process only.

What has arrived stands in `<name>.part` beside the target; the target appears whole and checked, or
not at all.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import IO, Literal

import httpx
import tenacity

from medplus import atomic
from medplus.errors import DownloadError, first_line
from medplus.lock import LockHeldError, hold

PART = ".part"
Outcome = Literal["present", "downloaded", "resumed"]
_GLANCE_S = 0.5
"""How often to look whether another process still fetches the same file."""

_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_OK, _PARTIAL, _RANGE_NOT_SATISFIABLE = 200, 206, 416


@dataclass(frozen=True)
class RemoteFile:
    """A file, where it comes from, and how to know that it is the right one.

    Attributes
    ----------
    url : str
    path : Path
        Where it is to lie.
    digest : str
        Hexadecimal.
    algorithm : str
        What `digest` is, as `hashlib` names it.
    """

    url: str
    path: Path
    digest: str
    algorithm: str = "md5"

    def is_right(self, path: Path) -> bool:
        """Tell whether a file has the digest."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest() == self.digest


@dataclass(frozen=True)
class Patience:
    """When to give up.

    Attributes
    ----------
    stall_s : float
        A connection that brings nothing for so long has broken.
    attempts : int
        Failures in a row, without a byte between them, after which the file is given up.
    first_wait_s, longest_wait_s : float
        The pause after a failure is random, up to a bound that doubles from the first to the
        longest, so that many clients do not come back at once.
    """

    stall_s: float = 30.0
    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0


PATIENT = Patience()
log = logging.getLogger(__name__)


class _BrokenError(Exception):
    """An attempt has failed in a way that another may not."""


class Stopped(Exception):  # noqa: N818 - it is no error: someone has asked for it
    """The transfer was ended by its `stop`; what has arrived stays."""


def remote_size(client: httpx.Client, file: RemoteFile) -> int | None:
    """Return a file's size in bytes, or None where the server does not tell."""
    try:
        answer = client.head(file.url)
    except httpx.HTTPError:
        return None
    length = answer.headers.get("content-length", "")
    return int(length) if answer.status_code == _OK and length.isdigit() else None


def fetch(
    client: httpx.Client,
    file: RemoteFile,
    patience: Patience,
    advance: Callable[[int], None] = lambda n: None,
    stop: Event | None = None,
) -> Outcome:
    """Fetch a file, or go on with it; do nothing where it lies already.

    Parameters
    ----------
    client : httpx.Client
    file : RemoteFile
    patience : Patience
    advance : callable
        Told of every number of bytes that has arrived; a negative one takes bytes back.
    stop : threading.Event, optional
        Set by another thread to end this; what has arrived stays for the next call.

    Raises
    ------
    DownloadError
        If the file cannot be had, or is not what it should be.
    """
    file.path.parent.mkdir(parents=True, exist_ok=True)
    stop = stop or Event()
    lock = file.path.with_name(f".{file.path.name}.lock")
    while not file.path.exists():
        if stop.is_set():
            raise Stopped
        with suppress(LockHeldError), hold(lock, f"the download of {file.path}", _GLANCE_S):
            if file.path.exists():
                break  # another process has just finished it
            return _Fetch(client, file, patience, advance, stop).run()
    return "present"


class _Fetch:
    def __init__(
        self, client: httpx.Client, file: RemoteFile, patience: Patience,
        advance: Callable[[int], None], stop: Event,
    ) -> None:  # fmt: skip
        self._client, self._file, self._patience = client, file, patience
        self._advance, self._stop = advance, stop
        self._part = file.path.with_name(file.path.name + PART)
        self._found = 0
        self._failures = 0

    def run(self) -> Outcome:
        self._found = self._have()
        self._advance(self._found)
        self._receive_all()
        if not self._file.is_right(self._part) and self._found:
            # What an earlier call left may be of another file; once, it is worth a fresh start.
            self._discard()
            self._receive_all()
        if not self._file.is_right(self._part):
            size = self._have()
            self._discard()
            raise DownloadError(
                f"{self._file.url} is not the right file: its {self._file.algorithm.upper()} is "
                f"not {self._file.digest} ({size:,} bytes arrived, and were deleted); name a "
                "mirror with --base-url"
            )
        atomic.sync(self._part)
        self._part.replace(self._file.path)
        atomic.sync_folder(self._file.path.parent)
        return "resumed" if self._found else "downloaded"

    def _receive_all(self) -> None:
        """Receive to the end, in as many attempts as it takes while something still arrives."""
        tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((httpx.TransportError, _BrokenError)),
            stop=lambda state: self._failures >= self._patience.attempts,
            wait=lambda state: self._pause(),
            sleep=self._sleep,
            before_sleep=self._tell,
            retry_error_callback=self._give_up,
        )(self._attempt)

    def _tell(self, state: tenacity.RetryCallState) -> None:
        """Say what is waited for: minutes of silence look like a hang."""
        error = state.outcome and state.outcome.exception()
        seconds = state.next_action.sleep if state.next_action else 0.0
        log.warning(
            "%s: %s; trying again in %.0f s (%d of %d)",
            self._file.url, error, seconds, self._failures + 1, self._patience.attempts,
        )  # fmt: skip

    def _pause(self) -> float:
        bound = self._patience.first_wait_s * 2.0 ** min(self._failures, 30)
        longest = min(bound, self._patience.longest_wait_s)
        return random.uniform(0, longest)  # noqa: S311 - a pause, no secret

    def _attempt(self) -> None:
        before = self._have()
        try:
            self._receive(before)
        except (httpx.TransportError, _BrokenError):
            self._failures = 0 if self._have() > before else self._failures + 1
            raise
        self._failures = 0

    def _receive(self, start: int) -> None:
        headers = {"range": f"bytes={start}-"} if start else {}
        # Compressed on the way, ranges would count other bytes than those of the file.
        headers["accept-encoding"] = "identity"
        with self._client.stream("GET", self._file.url, headers=headers) as answer:
            if answer.status_code == _RANGE_NOT_SATISFIABLE:
                return  # nothing is left; the digest tells whether it is the file
            if answer.status_code in _RETRIED:
                self._sleep(_asked_pause(answer))
                raise _BrokenError(f"the server answers {answer.status_code}")
            if answer.status_code not in (_OK, _PARTIAL):
                raise DownloadError(
                    f"{self._file.url} cannot be fetched: the server answers {answer.status_code} "
                    f"{answer.reason_phrase}; check the address, or name a mirror with --base-url"
                )
            if start and not _continues(answer, start):
                self._discard()  # the server ignores ranges, and begins anew
            self._write(answer)

    def _write(self, answer: httpx.Response) -> None:
        expected = answer.headers.get("content-length", "")
        received = 0
        with self._part.open("ab") as file:
            # As it arrives: blocks of a size would lose what a breaking connection brought last.
            for block in answer.iter_raw():
                self._check_stop()
                self._store(file, block)
                received += len(block)
                self._advance(len(block))
        if expected.isdigit() and received < int(expected):
            raise _BrokenError(f"the connection ended after {received} of {expected} bytes")

    def _store(self, file: IO[bytes], block: bytes) -> None:
        try:
            file.write(block)
            file.flush()
        except OSError as error:
            raise DownloadError(
                f"{self._part} cannot be written: {error.strerror}; make room and run the same "
                "command again: it goes on"
            ) from None

    def _give_up(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        kept = self._have()
        raise DownloadError(
            f"{self._file.url} cannot be fetched after {self._failures} attempts "
            f"({_reason(error)}); {f'{kept:,} bytes are kept, and ' if kept else ''}the same "
            "command goes on; behind a proxy set HTTPS_PROXY, or name a mirror with --base-url"
        )

    def _have(self) -> int:
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def _discard(self) -> None:
        self._advance(-self._have())
        self._part.unlink(missing_ok=True)

    def _sleep(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self._check_stop()

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped


def _continues(answer: httpx.Response, start: int) -> bool:
    where = answer.headers.get("content-range", "")
    return answer.status_code == _PARTIAL and where.startswith(f"bytes {start}-")


def _asked_pause(answer: httpx.Response) -> float:
    """Return the seconds that a busy server asks us to wait, at most two minutes."""
    asked = answer.headers.get("retry-after", "")
    return min(float(asked), 120.0) if asked.isdigit() else 0.0


def _reason(error: BaseException | None) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "nothing arrives any more"
    return first_line(error) if error is not None and str(error) else type(error).__name__

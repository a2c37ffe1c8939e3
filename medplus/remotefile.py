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
from functools import partial
from pathlib import Path
from threading import Event
from typing import Literal

import httpx

from medplus import atomic
from medplus.errors import DownloadError, first_line
from medplus.lock import LockHeldError, hold

log = logging.getLogger(__name__)

PART = ".part"
Outcome = Literal["present", "downloaded", "resumed"]
_GLANCE_S = 0.5
"""How often to look whether another process still fetches the same file."""


@dataclass(frozen=True)
class RemoteFile:
    """A file, where it comes from, and how to know that it is the right one.

    Attributes
    ----------
    url : str
    path : Path
        Where it is to lie.
    md5 : str
        Hexadecimal.
    """

    url: str
    path: Path
    md5: str

    @property
    def part(self) -> Path:
        """Where what has arrived stands."""
        return self.path.with_name(self.path.name + PART)

    @property
    def n_arrived(self) -> int:
        """How many bytes have arrived."""
        return self.part.stat().st_size if self.part.exists() else 0

    def is_right(self, path: Path) -> bool:
        """Tell whether a file has the digest: it identifies, and secures nothing."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))
        return digest.hexdigest() == self.md5


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

    def pause_s(self, failures: int) -> float:
        """Return how long to wait after so many failures."""
        bound = min(self.first_wait_s * 2.0 ** min(failures, 30), self.longest_wait_s)
        return random.uniform(0, bound)  # noqa: S311 - a pause, no secret


PATIENT = Patience()


class _BrokenError(Exception):
    """An attempt has failed in a way that another may not."""


class Stopped(Exception):  # noqa: N818 - it is no error: someone has asked for it
    """The transfer was ended by its `stop`; what has arrived stays."""


def remote_size(client: httpx.Client, file: RemoteFile) -> int | None:
    """Return a file's size in bytes, or None where the server does not tell."""
    with suppress(httpx.HTTPError, KeyError, ValueError):
        answer = client.head(file.url).raise_for_status()
        return int(answer.headers["content-length"])
    return None


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
    transfer = _Transfer(client, file, patience, advance, stop or Event())
    lock = file.path.with_name(f".{file.path.name}.lock")
    while not file.path.exists():
        transfer.pause(0)
        with suppress(LockHeldError), hold(lock, f"the download of {file.path}", _GLANCE_S):
            if not file.path.exists():  # another process may just have finished it
                return transfer.run()
    return "present"


@dataclass(frozen=True)
class _Transfer:
    client: httpx.Client
    file: RemoteFile
    patience: Patience
    advance: Callable[[int], None]
    stop: Event

    def run(self) -> Outcome:
        found = is_kept = self.file.n_arrived
        self.advance(found)
        self._receive_all()
        while not self.file.is_right(self.file.part):
            size = self.file.n_arrived
            self._discard()
            if not is_kept:
                raise DownloadError(
                    f"{self.file.url} is not the right file: its MD5 is not {self.file.md5} "
                    f"({size:,} bytes arrived, and were deleted); name a mirror with --base-url"
                )
            is_kept = 0  # what an earlier call left may be of another file: once, all comes anew
            self._receive_all()
        atomic.sync(self.file.part)
        self.file.part.replace(self.file.path)
        atomic.sync_folder(self.file.path.parent)
        return "resumed" if found else "downloaded"

    def pause(self, seconds: float) -> None:
        """Wait, unless the transfer is to end."""
        if self.stop.wait(seconds):
            raise Stopped

    def _receive_all(self) -> None:
        """Receive to the end, in as many attempts as it takes while something still arrives."""
        failures = 0
        while True:
            before = self.file.n_arrived
            try:
                return self._receive(before)
            except (httpx.TransportError, _BrokenError) as error:
                failures = 0 if self.file.n_arrived > before else failures + 1
                reason = first_line(error)
                if isinstance(error, httpx.TimeoutException):
                    reason = "nothing arrives any more"
            if failures >= self.patience.attempts:
                kept = self.file.n_arrived
                raise DownloadError(
                    f"{self.file.url} cannot be fetched after {failures} attempts ({reason}); "
                    f"{f'{kept:,} bytes are kept, and ' if kept else ''}the same command goes on; "
                    "behind a proxy set HTTPS_PROXY, or name a mirror with --base-url"
                )
            seconds = self.patience.pause_s(failures)
            # Minutes of silence look like a hang.
            told = "%s: %s; trying again in %.0f s (%d of %d)"
            log.warning(told, self.file.url, reason, seconds, failures + 1, self.patience.attempts)
            self.pause(seconds)

    def _receive(self, start: int) -> None:
        # Compressed on the way, ranges would count other bytes than those of the file.
        headers = {"accept-encoding": "identity"}
        if start:
            headers["range"] = f"bytes={start}-"
        with self.client.stream("GET", self.file.url, headers=headers) as answer:
            code = answer.status_code
            if code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # nothing is left; the digest tells whether it is the file
            if code in (408, 425, 429, 500, 502, 503, 504):
                asked = answer.headers.get("retry-after", "")
                self.pause(min(float(asked), 120.0) if asked.isdigit() else 0)
                raise _BrokenError(f"the server answers {code}")
            if code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
                raise DownloadError(
                    f"{self.file.url} cannot be fetched: the server answers {code} "
                    f"{answer.reason_phrase}; check the address, or name a mirror with --base-url"
                )
            where = answer.headers.get("content-range", "")
            if start and not (code == 206 and where.startswith(f"bytes {start}-")):
                self._discard()  # the server ignores ranges, and begins anew
            self._write(answer)

    def _write(self, answer: httpx.Response) -> None:
        expected, received = answer.headers.get("content-length", ""), 0
        try:
            with self.file.part.open("ab") as file:
                # As it arrives: blocks of a size would lose what a broken connection brought last.
                for block in answer.iter_raw():
                    self.pause(0)
                    file.write(block)
                    file.flush()
                    received += len(block)
                    self.advance(len(block))
        except OSError as error:
            raise DownloadError(
                f"{self.file.part} cannot be written: {error.strerror}; make room and run the same "
                "command again: it goes on"
            ) from None
        if expected.isdigit() and received < int(expected):
            raise _BrokenError(f"the connection ended after {received} of {expected} bytes")

    def _discard(self) -> None:
        self.advance(-self.file.n_arrived)
        self.file.part.unlink(missing_ok=True)

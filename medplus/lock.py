"""One writer at a time: a lock file that names its owner.

The lock is the kernel's (`flock`), so it ends with its owner, also after `kill -9`: a lock file
left behind is simply taken over. File systems shared between machines do not all carry `flock` from
one host to another; there the file's owner and its age decide.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from medplus.errors import MedplusError
from medplus.jsonfile import parse_json

log = logging.getLogger(__name__)

SILENT_S = 45.0
"""Who has not been heard of for so long is dead, where its process cannot be looked at."""
BEAT_S = 10.0
"""How often owners show that they are alive."""
_POLL_S = 0.2
_PATIENT_S = 2.0
"""Who waits for longer says so."""
_GLANCE_S = 0.05
"""`owner` holds a lock for less than this to find out whether it is held."""


class LockHeldError(MedplusError):
    """Another process holds the lock."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: a process on a host."""

    host: str
    pid: int

    def __str__(self) -> str:
        known = self.pid or self.host
        return f"process {self.pid or '?'} on {self.host or '?'}" if known else "another process"


@contextmanager
def hold(
    path: Path, what: str, timeout_s: float = 0.0, heartbeat_s: float = BEAT_S
) -> Iterator[None]:
    """Hold the lock file `path` for the duration of the block.

    Parameters
    ----------
    path : Path
        The lock file; its folder must exist.
    what : str
        What is locked, for the message.
    timeout_s : float
        How long to wait for another owner, in seconds.
    heartbeat_s : float
        How often to show other machines that the owner is alive, in seconds.

    Raises
    ------
    LockHeldError
        If another process holds it and the time is over; names host and process.
    MedplusError
        If the lock file cannot be written.
    """
    started = time.monotonic()
    deadline, told = started + max(timeout_s, _GLANCE_S), False
    while (descriptor := _try_lock(path, what)) is None:
        if not path.exists():
            continue  # its owner let go between our look and our grasp
        if time.monotonic() >= deadline:
            raise LockHeldError(
                f"{what} is in use by {_read_owner(path)}; wait for it to end, or, if that "
                f"process is certainly dead, delete {path}"
            )
        if not told and time.monotonic() >= started + _PATIENT_S:
            log.warning(
                "%s is in use by %s; waiting for it to end (if that process is certainly dead, "
                "delete %s)", what, _read_owner(path), path,
            )  # fmt: skip
            told = True
        time.sleep(min(_POLL_S, max(deadline - time.monotonic(), 0)))
    try:
        with _heartbeat(descriptor, heartbeat_s):
            yield
    finally:
        _release(path, descriptor)


def _release(path: Path, descriptor: int) -> None:
    try:
        with suppress(OSError):
            path.unlink()
    except KeyboardInterrupt:  # in this very moment: it must not leave the file
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def _heartbeat(descriptor: int, every_s: float) -> Iterator[None]:
    """Show other machines that the owner is alive, as long as the block lasts."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(every_s):
            with suppress(OSError):
                os.utime(descriptor)

    heart = threading.Thread(target=beat, name="heartbeat", daemon=True)
    heart.start()
    try:
        yield
    finally:
        over.set()
        heart.join()


def remove_stale(path: Path) -> None:
    """Delete a lock file that a killed process left; one that is held stays."""
    if path.exists():
        with suppress(MedplusError), hold(path, str(path)):
            pass  # to let go of it deletes it


def owner(path: Path) -> Owner | None:
    """Return who holds the lock file `path`, or None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return _read_owner(path) if _held_on_another_host(path) else None
    except BlockingIOError:
        return _read_owner(path)
    except OSError:  # it has just been let go
        return None
    finally:
        os.close(descriptor)


def _try_lock(path: Path, what: str) -> int | None:
    try:
        return _try_lock_file(path)
    except OSError as error:
        raise MedplusError(
            f"{what} cannot be locked: {path}: {error.strerror}; make room there, or use a folder "
            "that can be written"
        ) from None


def _try_lock_file(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The previous owner may have unlinked the file between our open and our lock.
        if os.fstat(descriptor).st_ino != path.stat().st_ino:
            raise BlockingIOError
        if _held_on_another_host(path):
            raise BlockingIOError
        _write_owner(path, descriptor)
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write_owner(path: Path, descriptor: int) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
    except OSError:
        path.unlink(missing_ok=True)  # we hold the lock, so the file is ours to remove
        raise


def _read_owner(path: Path) -> Owner:
    try:
        owner = parse_json(path.read_bytes())
        return Owner(str(owner["host"]), int(owner["pid"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Owner("", 0)


def _held_on_another_host(path: Path) -> bool:
    host = _read_owner(path).host
    if host in ("", socket.gethostname()):
        return False  # we hold the kernel's lock, so an owner on this host is dead
    return clock_of(path.parent) - path.stat().st_mtime < SILENT_S


def clock_of(folder: Path) -> float:
    """Return the time by a file system's clock, or by ours where a folder cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()

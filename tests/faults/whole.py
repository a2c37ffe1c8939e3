"""Commands as whole processes, as a user starts them, and what befalls them from outside."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Lock

FAULTS = ("none", "kill one", "kill all", "SIGINT", "SIGTERM", "full disk", "little memory")
_ALLOWED = {0, 1, 2, 130, 143, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
_BEFORE = "init_import_site"
"""Python says it where Ctrl-C comes before there is anything of ours."""
_NATIVE = {-signal.SIGABRT, -signal.SIGSEGV, 127}
"""So libraries in C++ end where memory is refused to them; 127 is the C library's own way."""
_DATA_LIMIT, _TIGHT = 2 << 30, (200 << 20, 1300 << 20)
"""RLIMIT_DATA of every process, in bytes; Python and torch hold 1.1 GiB of it."""

_HELD_S, _TIMEOUT_S, _LINGER_S = 8.0, 600.0, 60.0
_LEFT_FREE = 300 << 10
"""At most so many bytes are left on a disk that is filled up."""

_TOKEN = "MEDPLUS_LONG_RUN"


@dataclass
class Whole:
    """How a command ended.

    Attributes
    ----------
    code : int
        Its exit code, or the negative number of the signal that it died of.
    said : str
        All that it printed.
    wrong : list of (str, str)
        What must not be: an ``odd end``, ``no end``, or a process that ``stayed behind``.
    """

    code: int = 0
    said: str = ""
    wrong: list[tuple[str, str]] = field(default_factory=list)


class Runner:
    """Runs commands in folders on one disk, several at once if need be.

    Parameters
    ----------
    disk : Path
    moments : Random
        Chooses when a fault comes, and how hard it is.
    """

    def __init__(self, disk: Path, moments: random.Random) -> None:
        self._disk, self._random = disk, moments
        self._tokens, self._ballast = count(), Lock()

    def __call__(self, words: Iterable[str], folder: Path, fault: str, usual_s: float) -> Whole:
        """Run one command, which takes so many seconds if nothing befalls it."""
        token = f"{os.getpid()}-{next(self._tokens)}"
        (folder / "tmp").mkdir(exist_ok=True)
        environment = os.environ | {
            "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp"), _TOKEN: token,
            "MEDPLUS_CACHE": str(self._disk / "cache"), "MEDPLUS_DATA_ROOT": "data",
            "MEDPLUS_STORE": "embeddings", "MEDPLUS_RUNS": "runs",
        }  # fmt: skip
        limit = self._random.randint(*_TIGHT) if fault == "little memory" else _DATA_LIMIT
        ended = Whole()
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "medplus", *words], cwd=folder, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            try:
                resource.prlimit(process.pid, resource.RLIMIT_DATA, (limit, limit))
                self._befall(process, token, fault, self._random.uniform(0, 1.2 * usual_s))
                process.wait(_TIMEOUT_S)
                if not _gone(token):
                    ended.wrong.append(("stayed behind", f"{len(_processes(token))} processes"))
            except subprocess.TimeoutExpired:
                ended.wrong.append(("no end", f"in {_TIMEOUT_S:.0f} s"))
            finally:
                _signal(_processes(token), signal.SIGKILL)
            ended.code = process.wait()
            log.seek(0)
            ended.said = log.read().decode(errors="replace")
        if _BEFORE in ended.said:
            return ended
        allowed = _ALLOWED | (_NATIVE if fault == "little memory" else set())
        if ended.code not in allowed or "Traceback" in ended.said or "a bug" in ended.said:
            ended.wrong.append(("odd end", f"{ended.code}\n{ended.said}"))
        return ended

    def _befall(
        self, process: subprocess.Popen[bytes], token: str, fault: str, after_s: float
    ) -> None:
        if fault in ("none", "little memory"):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(after_s)
            return
        processes = _processes(token) or [process.pid]
        if fault == "full disk":
            with self._ballast, _full(self._disk, self._random.randint(0, _LEFT_FREE)), \
                    suppress(subprocess.TimeoutExpired):  # fmt: skip
                process.wait(_HELD_S)
        elif fault == "kill one":
            _signal([self._random.choice(processes)], signal.SIGKILL)
        elif fault == "kill all":
            _signal(processes, signal.SIGKILL)
        else:  # Ctrl-C reaches all processes, a scheduler's signal the first
            _signal(processes if fault == "SIGINT" else [process.pid], getattr(signal, fault))


def _processes(token: str) -> list[int]:
    """Return the living processes of a command: their environment has its mark."""
    found, mark = [], f"{_TOKEN}={token}\0".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _gone(token: str) -> bool:
    deadline = time.monotonic() + _LINGER_S
    while _processes(token):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _signal(processes: Iterable[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


@contextmanager
def _full(disk: Path, but: int) -> Iterator[None]:
    """Fill the disk up, but for so many bytes, for as long as the context lasts."""
    ballast, state = disk / "ballast", os.statvfs(disk)
    try:
        with ballast.open("wb") as file, suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_frsize - but, 1))
        yield
    finally:
        ballast.unlink()


@contextmanager
def small_disk(megabytes: int) -> Iterator[tuple[Path, bool]]:
    """Mount a disk of so much memory; where that is not allowed, give a folder, and say so."""
    with tempfile.TemporaryDirectory(prefix="long-run-") as place:
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", place]
        mounted = bool(shutil.which("mount")) and not subprocess.run(command).returncode
        try:
            yield Path(place), mounted
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", place], check=True)

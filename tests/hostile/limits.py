"""Trying what might eat all memory or never end: in a child process, under limits."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable
from typing import Any

from medplus.errors import MedplusError

MEMORY_MB = 64
SECONDS = 60


def outcome(call: Callable[[], Any], memory_mb: int = MEMORY_MB, seconds: int = SECONDS) -> str:
    """Call a function in a child and return what came of it.

    ``done``; ``refused: …`` for a `MedplusError`; else what went wrong: another exception, too
    much memory (more than `memory_mb` beyond what the process had), or no end.
    """
    context = multiprocessing.get_context("fork")  # the modules are loaded, and pages shared
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_try, args=(call, memory_mb, seconds, sender))
    child.start()
    sender.close()
    try:
        said: str = receiver.recv()
    except EOFError:
        said = "killed"
    child.join()
    return "no end" if child.exitcode == -signal.SIGALRM else said


def _try(call: Callable[[], Any], memory_mb: int, seconds: int, sender: Any) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    before = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (before + (memory_mb << 20),) * 2)
    try:
        call()
        said = "done"
    except MedplusError as error:
        said = f"refused: {error}"
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    sender.send(said)


def _address_space() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123 - no file that pathlib would help with
        return int(file.read().split()[0]) * resource.getpagesize()

"""A process that has imported everything, and forks a child for every command it is asked to run.

So a command is at work within milliseconds, and hundreds of trials cost what their work costs. The
children run `medplus.cli.main` as it is, except for `_shortcuts`: small chunks, frequent states.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

_COUNTER = 8
"""Bytes of shared memory that count a child's changes of the file system."""


@dataclass(frozen=True)
class Fault:
    """What befalls a command.

    Attributes
    ----------
    number : int
        A signal, or the errno that an operation fails with.
    after_s : float or None
        When the signal is sent, in seconds since the fork.
    at_change : int or None
        At which change of the file system it is sent, or which one fails; counted from 1.
    group : bool
        Whether the signal reaches all processes of the command, or only the first.
    lasting : bool
        Whether all later changes fail, too: a full disk, and no passing fault.
    """

    number: int
    after_s: float | None = None
    at_change: int | None = None
    group: bool = True
    fails: bool = False
    lasting: bool = False


@dataclass(frozen=True)
class Command:
    """A command line, where it runs, and what befalls it."""

    words: Sequence[str]
    folder: Path
    fault: Fault | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    code : int
        Its exit code, or the negative number of the signal that it died of.
    changes : int
        Changes of the file system that it began.
    said : str
        All that it printed.
    """

    code: int
    seconds: float
    changes: int
    said: str


class Warm:
    """The client of such a process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.warm"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip

    def __call__(self, *words: str, folder: Path, fault: Fault | None = None) -> Ended:
        """Run one command."""
        [ended] = self.together([Command(words, folder, fault)])
        return ended

    def together(self, commands: Sequence[Command], timeout_s: float = 120) -> list[Ended]:
        """Run commands at once; what has not ended in time is killed, and an error."""
        request = [asdict(command) | {"folder": str(command.folder)} for command in commands]
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps({"commands": request, "timeout_s": timeout_s}), file=self._process.stdin)
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise TimeoutError(answer["error"])
        return [Ended(**ended) for ended in answer["ended"]]

    def close(self) -> None:
        """End the process."""
        with self._process:  # closes its pipes, and waits
            pass


# --- in the process ------------------------------------------------------------------------------


def _serve() -> None:
    import lightning_fabric  # noqa: F401
    import timm  # noqa: F401

    import medplus.cli.extract
    import medplus.cli.finetune
    import medplus.cli.knn
    import medplus.cli.probe
    import medplus.cli.store
    import medplus.cli.sweep
    import medplus.embeddings.extract
    import medplus.heads.knn
    import medplus.heads.probe
    import medplus.sweep.engines.local
    import medplus.training.run  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        children = [_Child(command) for command in request["commands"]]
        answer: dict[str, Any]
        try:
            _watch(children, request["timeout_s"])
            answer = {"ended": [child.ended() for child in children]}
        except TimeoutError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


class _Child:
    def __init__(self, command: dict[str, Any]) -> None:
        self._command = command
        fault = command["fault"]
        self.fault = Fault(**fault) if fault else None
        self._counter = mmap.mmap(-1, _COUNTER)
        self._log = os.memfd_create("log")
        self.began = time.monotonic()
        self.signal_due = self.fault.after_s if self.fault and not self.fault.fails else None
        self.status: int | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _run(command, self.fault, self._counter, self._log)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(99)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self.pidfd = os.pidfd_open(self.pid)

    @property
    def is_due(self) -> bool:
        return self.signal_due is not None and time.monotonic() >= self.began + self.signal_due

    def kill(self, number: int, group: bool) -> None:
        try:
            (os.killpg if group else os.kill)(self.pid, number)
        except ProcessLookupError:
            os.kill(self.pid, number)  # it has not become the head of a group yet

    def reap(self) -> None:
        _, self.status = os.waitpid(self.pid, 0)
        self.seconds = time.monotonic() - self.began
        os.close(self.pidfd)

    def ended(self) -> dict[str, Any]:
        assert self.status is not None
        size = os.fstat(self._log).st_size
        said = os.pread(self._log, size, 0).decode(errors="replace")
        os.close(self._log)
        return {
            "code": os.waitstatus_to_exitcode(self.status),
            "seconds": self.seconds,
            "changes": _read_counter(self._counter),
            "said": said,
        }


_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def _watch(children: list[_Child], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while running := [child for child in children if child.status is None]:
        poll = select.poll()
        for child in running:
            poll.register(child.pidfd, select.POLLIN)
        due = [c.began + c.signal_due for c in running if c.signal_due is not None]
        wait_s = min([deadline, *due]) - time.monotonic()
        ended = {descriptor for descriptor, _ in poll.poll(max(0, wait_s) * 1000)}
        for child in running:
            if child.pidfd in ended:
                child.reap()
            elif child.fault is not None and child.is_due:
                child.kill(child.fault.number, child.fault.group)
                child.signal_due = None
        if time.monotonic() > deadline:
            for child in children:
                if child.status is None:
                    child.kill(signal.SIGKILL, True)
                    child.reap()
            raise TimeoutError(f"{len(running)} of {len(children)} commands have not ended")


def _run(command: dict[str, Any], fault: Fault | None, counter: mmap.mmap, log: int) -> None:
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, target)
    os.chdir(command["folder"])
    os.environ.update(command["environment"])
    _shortcuts()
    _count_changes(fault, counter)
    from medplus.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    except KeyboardInterrupt:
        os._exit(130)  # before the command began
    code: Any = 1
    try:
        main(list(command["words"]))
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


def _shortcuts() -> None:
    """Make much happen in little time: the files are of the same kinds, only smaller."""
    from medplus import atomic
    from medplus.embeddings import layout
    from medplus.sweep import worker
    from medplus.sweep.engines import local
    from medplus.training import folder

    def draw(path: Path, rows: object, title: str) -> None:
        atomic.write_bytes(path, b"a picture")

    layout.CHUNK_ROWS = 8
    folder._SAVE_EVERY_S = 0.0
    folder.draw_learning_curve = draw
    local._SPAWN = _ForkContext  # type: ignore[assignment]
    local.LOOK_S = worker._PAUSE_S = 0.1
    os.fsync = lambda descriptor: None  # only a power cut would show the difference


class _Worker(ForkProcess):
    """A worker of a sweep that, like a spawned one, has no open file."""

    def start(self) -> None:
        # A fork runs hooks in which Python drops the interrupts that come just then; a spawn none.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        super().start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # it is deaf to Ctrl-C
        super().run()


class _ForkContext:
    Process = _Worker


def _count_changes(fault: Fault | None, counter: mmap.mmap) -> None:
    """Count the changes of the file system, and let the fault happen at its own."""
    main = os.getpid()
    home = str(Path.cwd())

    def change(path: object) -> None:
        count = _read_counter(counter) + 1
        counter[:] = count.to_bytes(_COUNTER, "little")
        if fault is None or fault.at_change is None:
            return
        reached = count >= fault.at_change if fault.lasting else count == fault.at_change
        if fault.fails and reached:
            raise OSError(fault.number, os.strerror(fault.number), str(path))
        if not fault.fails and reached:
            (os.killpg(main, fault.number) if fault.group else os.kill(main, fault.number))

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if not (writes and isinstance(path, str | bytes)):
                return
        elif event not in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            return
        path = os.fsdecode(arguments[0])
        if str(Path.cwd() / path).startswith(home):
            removes = event in ("os.remove", "os.rmdir")
            if removes and fault is not None and fault.fails:
                return  # what a full disk still allows
            change(path)

    sys.addaudithook(audit)
    write = os.write
    halved = False

    def write_half(descriptor: int, data: Any) -> int:
        """Write every other time only the first half, so that the fault finds a write half done."""
        nonlocal halved
        halved = not halved and len(data) > 16
        change("a write")
        return write(descriptor, memoryview(data)[: len(data) // 2] if halved else data)

    os.write = write_half


def _read_counter(counter: mmap.mmap) -> int:
    return int.from_bytes(counter[:], "little")


if __name__ == "__main__":
    _serve()

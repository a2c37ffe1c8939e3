"""The local engine: worker processes on this machine, each with a GPU or a share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from medplus.errors import MedplusError, SweepError
from medplus.sweep.claims import Claims
from medplus.sweep.engines import LOOK_S, PATIENCE_S, work
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place
from medplus.sweep.resources import cores, gpus, times_out_of_memory

_SPAWN = multiprocessing.get_context("spawn")
_INTERRUPTED, _REFUSED = 130, 7


class LocalEngine:
    """Starts worker processes, and another one where one dies.

    Parameters
    ----------
    workers : int, optional
        Number of processes; one per GPU by default, one on a machine without.
    device : str
        As for `medplus.extract`; with a GPU per worker, a worker sees only its own.
    """

    def __init__(self, workers: int | None = None, device: str = "auto") -> None:
        self._gpus = [] if device == "cpu" else gpus()
        self.workers = workers or len(self._gpus) or 1
        self._out_of_memory = 0

    def run(self, grid: Grid, place: Place, most: int) -> Generator[None]:
        """Start workers; see `medplus.sweep.engines.Engine`."""
        self._out_of_memory = times_out_of_memory()
        size, claims = min(self.workers, most), Claims(Path(place.runs))
        processes: dict[str, BaseProcess] = {}
        seats = dict(_seat(number, size, self._gpus) for number in range(size))
        try:
            for name, settings in seats.items():
                processes[name] = _start(name, settings, grid, place)
            while processes:
                wait([process.sentinel for process in processes.values()], LOOK_S)
                for name, process in list(processes.items()):
                    if not process.is_alive():
                        del processes[name]
                        if self._has_died(name, process, claims):
                            processes[name] = _start(name, seats[name], grid, place)
                yield
        except BaseException:
            _stop(processes.values())
            raise

    def _has_died(self, name: str, process: BaseProcess, claims: Claims) -> bool:
        """Tell whether a process that has ended had a job, and note in its claim why it died."""
        process.join()
        if process.exitcode in (0, _INTERRUPTED):
            return False
        if process.exitcode == _REFUSED:
            raise SweepError(f"{name} could not go on, for the reason above")
        who, cause = (socket.gethostname(), process.pid), self._cause_of_death(process.exitcode)
        if not claims.bury(lambda worker: (worker.host, worker.pid) == who, cause):
            raise SweepError(f"{name} died without a job: {cause}")
        return True

    def _cause_of_death(self, code: int | None) -> str:
        before, self._out_of_memory = self._out_of_memory, times_out_of_memory()
        if code is None or code >= 0:
            return f"its process ended by itself with exit code {code}; its log may tell why"
        name = signal.Signals(-code).name
        remedy = "use fewer --workers, or a smaller batch_size in the grid"
        if code != -signal.SIGKILL:
            return f"its process was killed by {name}; its log may tell why"
        if self._out_of_memory > before:
            return f"the system ran out of memory and killed its process ({name}); {remedy}"
        return (
            f"its process was killed by {name}, which the system does when memory runs out; if so, "
            f"{remedy}"
        )


def _seat(number: int, workers: int, devices: list[str]) -> tuple[str, dict[str, str]]:
    """Return a worker's name and what must be in its environment before torch is imported.

    It is called by its GPU, and by its number on that GPU if it shares it.
    """
    threads = str(max(cores() // workers, 1))
    settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if not devices:
        return f"worker {number + 1}", settings
    device = devices[number % len(devices)]
    share = f".{number // len(devices) + 1}" if workers > len(devices) else ""
    return f"GPU {device}{share}", {**settings, "CUDA_VISIBLE_DEVICES": device}


def _start(name: str, settings: dict[str, str], grid: Grid, place: Place) -> BaseProcess:
    process = _SPAWN.Process(
        target=_work, args=(name, settings, grid, place, os.getpid()), name=f"medplus {name}"
    )
    with _deaf():
        process.start()
    return process


def _stop(processes: Collection[BaseProcess]) -> None:
    """Interrupt workers, and wait until they have saved what they can; or kill them."""
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(PATIENCE_S)
    except KeyboardInterrupt:
        pass  # whoever asks twice does not want to wait
    for process in processes:
        process.kill()
        process.join()


@contextmanager
def _deaf() -> Iterator[None]:
    """Let a process begin deaf to Ctrl-C, which reaches the whole group of processes.

    The parent alone hears it, and passes it on as SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(name: str, settings: dict[str, str], grid: Grid, place: Place, parent: int) -> None:
    """Work until nothing is left: what a worker process runs."""
    os.environ.update(settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work(grid, place, name, parent)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except (MedplusError, OSError) as error:
        print(f"{name} ends: {error}", file=sys.stderr)
        sys.exit(_REFUSED)

"""The local engine: worker processes on this machine, each with a GPU or a share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from medplus.errors import MedplusError, SweepError
from medplus.sweep.claims import Claims, Worker
from medplus.sweep.engines import work
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place
from medplus.sweep.resources import cores, gpus, times_out_of_memory

_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE_S = 60.0
_LOOK_S = 1.0
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

    def run(self, grid: Grid, place: Place, most: int) -> Generator[None]:
        """Start workers; see `medplus.sweep.engines.Engine`."""
        pool = _Pool(min(self.workers, most), self._gpus, grid, place)
        try:
            yield from pool.run()
        except BaseException:
            pool.stop()
            raise


class _Pool:
    def __init__(self, size: int, devices: list[str], grid: Grid, place: Place) -> None:
        self._size, self._devices = size, devices
        self._grid, self._place = grid, place
        self._claims = Claims(Path(place.runs))
        self._out_of_memory = times_out_of_memory()
        self._processes: dict[int, BaseProcess] = {}

    def run(self) -> Iterator[None]:
        for number in range(self._size):
            self._start(number)
        while self._processes:
            wait([process.sentinel for process in self._processes.values()], _LOOK_S)
            for number, process in list(self._processes.items()):
                if not process.is_alive():
                    del self._processes[number]
                    self._end(number, process)
            yield

    def _start(self, number: int) -> None:
        name = _name(number, self._size, self._devices)
        settings = _environment(number, self._size, self._devices)
        process = _SPAWN.Process(
            target=_work, args=(name, settings, self._grid, self._place, os.getpid()),
            name=f"medplus {name}",
        )  # fmt: skip
        with _silenced():
            process.start()
        self._processes[number] = process

    def _end(self, number: int, process: BaseProcess) -> None:
        """Note what a process died of, and start another one."""
        process.join()
        if process.exitcode in (0, _INTERRUPTED):
            return
        name, host = _name(number, self._size, self._devices), socket.gethostname()
        if process.exitcode == _REFUSED:
            raise SweepError(f"{name} could not go on, for the reason above")

        def is_it(worker: Worker) -> bool:
            return (worker.host, worker.pid) == (host, process.pid)

        cause = self._cause_of_death(process.exitcode)
        if not self._claims.bury(is_it, cause):
            raise SweepError(f"{name} died without a job: {cause}")
        self._start(number)

    def _cause_of_death(self, code: int | None) -> str:
        before, self._out_of_memory = self._out_of_memory, times_out_of_memory()
        if code is None or code >= 0:
            return f"its process ended by itself with exit code {code}; its log may tell why"
        name = signal.Signals(-code).name
        if code != -signal.SIGKILL:
            return f"its process was killed by {name}; its log may tell why"
        remedy = "use fewer --workers, or a smaller batch_size in the grid"
        if self._out_of_memory > before:
            return f"the system ran out of memory and killed its process ({name}); {remedy}"
        return (
            f"its process was killed by {name}, which the system does when memory runs out; if so, "
            f"{remedy}"
        )

    def stop(self) -> None:
        """Interrupt the workers, and wait until they have saved what they can; or kill them."""
        processes = self._processes.values()
        try:
            for process in processes:
                process.terminate()
            for process in processes:
                process.join(_PATIENCE_S)
        except KeyboardInterrupt:
            pass  # whoever asks twice does not want to wait
        for process in processes:
            process.kill()
            process.join()


def _name(number: int, workers: int, devices: list[str]) -> str:
    """Return what a worker is called: by its GPU, and its number on that GPU if it shares it."""
    if not devices:
        return f"worker {number + 1}"
    gpu = f"GPU {devices[number % len(devices)]}"
    return gpu if workers <= len(devices) else f"{gpu}.{number // len(devices) + 1}"


def _environment(number: int, workers: int, devices: list[str]) -> dict[str, str]:
    """Return what a worker's environment must hold before torch is imported."""
    threads = str(max(cores() // workers, 1))
    settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if devices:
        settings["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return settings


@contextmanager
def _silenced() -> Iterator[None]:
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

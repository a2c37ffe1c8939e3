"""The local engine: worker processes on this machine, each with a GPU or a share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from medplus.device import cores, gpus
from medplus.errors import MedplusError, SweepError
from medplus.memory import times_out_of_memory
from medplus.sweep.engines import LOOK_S, PATIENCE_S, Death, Engine, worker_here
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place

_SPAWN = multiprocessing.get_context("spawn")
_INTERRUPTED, _REFUSED = 130, 7


class LocalEngine(Engine):
    """Starts worker processes.

    Parameters
    ----------
    workers : int, optional
        Number of processes; one per GPU by default, one on a machine without.
    device : str
        As for `medplus.extract`; with a GPU per worker, a worker sees only its own.
    """

    def __init__(self, workers: int | None = None, device: str = "auto") -> None:
        self._gpus = [] if device == "cpu" else gpus()
        super().__init__(workers or len(self._gpus) or 1)
        self.living: dict[int, BaseProcess] = {}  # by their seats
        self._out_of_memory = times_out_of_memory()

    def start(self, grid: Grid, place: Place, most: int) -> None:
        """Start those workers that are missing, so that `most` work at most."""
        size = min(self.workers, most)
        # Ctrl-C reaches the whole group of processes; this one alone is to hear it. The tracker
        # that multiprocessing starts beside the first of them would undo that.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for seat in set(range(size)) - self.living.keys():
                gpu = self._gpus[seat % len(self._gpus)] if self._gpus else None
                # Claims have its name, where those of other sweeps may be, too.
                name = f"worker {seat + 1}{f' on GPU {gpu}' if gpu else ''} ({os.getpid()})"
                arguments = name, gpu, max(cores() // size, 1), grid, place
                process = _SPAWN.Process(target=_work, args=arguments, name=name)
                process.start()
                self.living[seat] = process
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def look(self) -> Iterator[Death]:
        """Wait about `LOOK_S`, and yield who has died."""
        wait([process.sentinel for process in self.living.values()], LOOK_S)
        for seat, process in list(self.living.items()):
            if process.exitcode is not None:
                del self.living[seat]
                if process.exitcode == _REFUSED:
                    raise SweepError(f"{process.name} could not go on, for the reason above")
                if process.exitcode not in (0, _INTERRUPTED):
                    yield Death(process.name, self._cause_of_death(process.exitcode))

    def stop(self) -> None:
        """Interrupt workers, and wait until they have saved what they can; or kill them."""
        processes, self.living = [*self.living.values()], {}
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

    def _cause_of_death(self, code: int) -> str:
        before, self._out_of_memory = self._out_of_memory, times_out_of_memory()
        if code >= 0:
            return f"its process ended by itself with exit code {code}; its log may tell why"
        killed = f"its process was killed by {signal.Signals(-code).name}"
        if code != -signal.SIGKILL:
            return f"{killed}; its log may tell why"
        since = "since" if self._out_of_memory > before else "perhaps since"
        return f"{killed}, {since} memory ran out; use fewer --workers, or a smaller batch_size"


def _work(name: str, gpu: str | None, threads: int, grid: Grid, place: Place) -> None:
    """Be a worker process."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch is imported
    try:
        worker_here(grid, place, name, threads).run()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except (MedplusError, OSError) as error:
        print(f"{name} ends: {error}", file=sys.stderr)
        sys.exit(_REFUSED)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends already

"""The Ray engine: workers on the nodes of a Ray cluster, which share a file system."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from medplus.errors import SweepError
from medplus.sweep.claims import ATTEMPTS, Claims
from medplus.sweep.engines import work
from medplus.sweep.engines.ray_cluster import (
    Resources,
    check_room,
    connected,
    import_ray,
    nodes,
    one_sentence,
    room,
    this_machine,
)
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place

_LOOK_S = 1.0
_PATIENCE_S = 60.0


class RayEngine:
    """Starts workers as tasks of Ray's, and another one where one dies.

    Parameters
    ----------
    workers : int, optional
        How many; by default as many as the cluster's resources take.
    address : str, optional
        ``HOST:PORT`` of a cluster, or ``auto`` for the one that this machine belongs to. By
        default one is started on this machine alone. If this process is connected to a cluster
        already, that one is used.
    cpus : int
        CPU cores, and so threads, per worker.
    gpus : float, optional
        GPUs per worker, of which one may be shared; by default 1, where the cluster has any and
        the device is not the CPU.
    memory_gb : float, optional
        Memory per worker, in 10⁹ bytes; Ray counts it, but does not enforce it.
    """

    def __init__(
        self, workers: int | None = None, address: str | None = None, cpus: int = 1,
        gpus: float | None = None, memory_gb: float | None = None,
    ) -> None:  # fmt: skip
        import_ray()
        self._limit = workers
        self._address = address
        self._cpus = cpus
        self._gpus = gpus
        self._memory_gb = memory_gb
        self.workers = workers or 1
        if address is None:
            here = [this_machine()]
            self.workers = min(room(self._request("auto", here), here) or 1, workers or 2**31)

    def run(self, grid: Grid, place: Place, most: int) -> Generator[None]:
        """Start workers; see `medplus.sweep.engines.Engine`."""
        with connected(self._address):
            request = self._request(place.device, nodes())
            check_room(request, nodes())
            self.workers = min(self._limit or room(request, nodes()), most)
            if not request["GPU"] and place.device == "auto":
                place = replace(place, device="cpu")  # a worker that is given no GPU takes none
            yield from _Pool(grid, place, request).run(self.workers)

    def _request(self, device: str, have: Sequence[Resources]) -> Resources:
        gpus = self._gpus
        if gpus is None:
            found = device == "auto" and any(node.get("GPU") for node in have)
            gpus = 1.0 if found or device.startswith("cuda") else 0.0
        return {"CPU": self._cpus, "GPU": gpus, "memory": (self._memory_gb or 0) * 1e9}


class _Pool:
    """The workers on a cluster that is connected.

    Ray's own retries stay unused: they would not tell what has ended a worker.
    """

    def __init__(self, grid: Grid, place: Place, request: Resources) -> None:
        self._ray = import_ray()
        self._place = place
        self._claims = Claims(Path(place.runs))
        self._names: dict[Any, str] = {}
        self._idle_deaths = 0
        # A process that is used again may be given another GPU than CUDA has begun with in it.
        self._start = self._ray.remote(
            num_cpus=request["CPU"], num_gpus=request["GPU"], memory=request["memory"] or None,
            max_calls=1, max_retries=0,
        )(_work)  # fmt: skip
        self._grid = self._ray.put(grid)
        self._threads = int(request["CPU"])

    def run(self, size: int) -> Iterator[None]:
        try:
            for _ in range(size):
                self._launch()
            while self._names:
                ended, _ = self._ray.wait(list(self._names), timeout=_LOOK_S)
                for task in ended:
                    self._end(task, self._names.pop(task))
                yield
        except self._ray.exceptions.RayError as error:
            raise SweepError(f"the Ray cluster is lost: {one_sentence(error)}") from None
        finally:
            self._stop()

    def _launch(self) -> None:
        name = f"ray {secrets.token_hex(4)}"
        named = self._start.options(name=f"medplus {name}")
        task = named.remote(self._grid, self._place, name, self._threads, str(Path.cwd()))
        self._names[task] = name

    def _end(self, task: Any, name: str) -> None:
        """Note what a worker died of, and start another one."""
        errors = self._ray.exceptions
        try:
            self._ray.get(task)
            return
        except errors.TaskCancelledError:
            return
        except errors.NodeDiedError:
            cause = "its node was lost"
        except errors.OutOfMemoryError:
            cause = (
                "its node ran out of memory, and Ray killed its process; ask for more memory per "
                "worker, so that fewer share a node, or use a smaller batch_size in the grid"
            )
        except errors.WorkerCrashedError:
            cause = (
                "its process was killed or crashed, or its node was lost; its log may tell why. "
                "The system kills when memory runs out; if so, ask for more memory per worker, so "
                "that fewer share a node, or use a smaller batch_size in the grid"
            )
        except errors.RayTaskError as error:
            raise _refusal(error.cause if isinstance(error.cause, Exception) else error) from None
        # A node that is lost to the cluster may still compute.
        held = self._claims.bury(lambda worker: worker.name == name, cause, certain=False)
        self._idle_deaths = 0 if held else self._idle_deaths + 1
        if self._idle_deaths >= ATTEMPTS:
            raise SweepError(f"Ray's workers die before they have a job: {cause}")
        self._launch()

    def _stop(self) -> None:
        """Interrupt the workers, wait until they have saved what they can, or kill them."""
        tasks = list(self._names)
        with suppress(self._ray.exceptions.RayError):
            for task in tasks:
                self._ray.cancel(task)
            try:
                if tasks:
                    self._ray.wait(tasks, num_returns=len(tasks), timeout=_PATIENCE_S)
            finally:
                for task in tasks:
                    self._ray.cancel(task, force=True)


def _work(grid: Grid, place: Place, name: str, threads: int, folder: str) -> None:
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    with suppress(OSError):  # without the folder only relative paths fail, and they say so
        os.chdir(folder)
    work(grid, place, name)


def _refusal(error: Exception) -> SweepError:
    text = one_sentence(error)
    if "No module named" in text:
        missing = " ".join(text[text.index("No module named") :].split()[:4]).rstrip(".")
        return SweepError(
            f"Ray's workers cannot import what they need ({missing}); install the same medplus "
            "in the Python of every node that `ray start` runs in"
        )
    return SweepError(f"Ray's workers cannot work: {text}")

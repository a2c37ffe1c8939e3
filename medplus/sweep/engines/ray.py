"""The Ray engine: workers on the nodes of a Ray cluster, which share a file system."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from medplus.errors import SweepError, optional
from medplus.sweep.engines import LOOK_S, PATIENCE_S, Death, Engine, worker_here
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place

_CAUSES = {
    "NodeDiedError": "its node was lost",
    "OutOfMemoryError": "its node ran out of memory, and Ray killed its process; ask for more "
    "--memory",
    "WorkerCrashedError": "its process was killed or its node was lost; the system kills when "
    "memory runs out: if so, ask for more --memory, or use a smaller batch_size in the grid",
}
"""What a worker has died of, by Ray's error."""
Resources = Mapping[str, float]
"""What a node has or a worker asks for, by Ray's names: CPU, GPU and memory in bytes."""


class RayEngine(Engine):
    """Starts workers as tasks of Ray's.

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
        super().__init__(workers or 1)
        self._ray = optional("ray", "the engine ray", kind=SweepError)
        self._limit, self._address = workers, address
        self._cpus, self._gpus, self._memory = cpus, gpus, (memory_gb or 0) * 1e9
        self.living: dict[Any, str] = {}  # tasks and their workers' names
        self._cluster = ExitStack()

    def start(self, grid: Grid, place: Place, most: int) -> None:
        """Start those workers that are missing, so that `most` work at most."""
        self._connect()
        have = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        request = self._request(place.device, have)
        if not room(request, have):
            asked = ", ".join(f"{name} {amount:g}" for name, amount in request.items())
            raise SweepError(
                f"no node of the Ray cluster has all that each worker asks for ({asked}); ask for "
                "less, or add a node"
            )
        self.workers = self._limit or room(request, have)
        if not request["GPU"] and place.device == "auto":
            place = replace(place, device="cpu")  # a worker that is given no GPU takes none
        # A process that is used again may be given another GPU than CUDA has begun with in it.
        remote = self._ray.remote(
            num_cpus=request["CPU"], num_gpus=request["GPU"], memory=request["memory"] or None,
            max_calls=1, max_retries=0,
        )(lambda *seat: worker_here(*seat).run())  # fmt: skip
        for _ in range(min(self.workers, most) - len(self.living)):
            name = f"ray {secrets.token_hex(4)}"
            task = remote.options(name=f"medplus {name}")
            self.living[task.remote(grid, place, name, int(request["CPU"]))] = name

    def look(self) -> Iterator[Death]:
        """Wait about `LOOK_S`, and yield who has died."""
        try:
            for task in self._ray.wait(list(self.living), timeout=LOOK_S)[0]:
                name = self.living.pop(task)
                if cause := self._cause_of_death(task):
                    yield Death(name, cause)
        except self._ray.exceptions.RayError as error:
            raise SweepError(f"the Ray cluster is lost: {_one_line(error)}") from None

    def stop(self) -> None:
        """Interrupt the workers that are left, wait until they have saved, and kill the rest."""
        tasks, self.living = [*self.living], {}
        with self._cluster, suppress(self._ray.exceptions.RayError):
            for task in tasks:
                self._ray.cancel(task)
            try:
                if tasks:
                    self._ray.wait(tasks, num_returns=len(tasks), timeout=PATIENCE_S)
            finally:
                for task in tasks:
                    self._ray.cancel(task, force=True)

    def _connect(self) -> None:
        """Connect to the cluster, or to one of this machine's own, until the engine is stopped."""
        ray, address = self._ray, self._address
        if ray.is_initialized():
            return
        # Even where RAY_ADDRESS means another one; only the grid passes through the object store.
        own = {"address": "local", "include_dashboard": False, "object_store_memory": 2**27}
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        handler = signal.getsignal(signal.SIGTERM)  # which Ray replaces by its own
        self._cluster.callback(ray.shutdown)  # it may be connected in part
        where = {"address": address} if address else own
        try:
            if address not in (None, "auto"):  # where nobody answers, Ray would try for minutes
                host, _, port = str(address).rpartition(":")
                socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            ray.init(log_to_driver=False, logging_level="ERROR", **where)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise SweepError(
                f"Ray at {address or 'this machine'} cannot be used: {_one_line(error)}; into a "
                "cluster, start the sweep on one of its nodes, with the HOST:PORT that `ray start "
                "--head` printed, or auto"
            ) from None
        finally:
            with suppress(ValueError):  # outside the main thread, which alone has handlers
                signal.signal(signal.SIGTERM, handler)
        # Ray tells of every dead worker on stdout, whatever log_to_driver says; so do we.
        ray._private.worker._worker_logs_enabled = False

    def _request(self, device: str, have: Sequence[Resources]) -> Resources:
        found = device == "auto" and any(node.get("GPU") for node in have)
        default = 1.0 if found or device.startswith("cuda") else 0.0
        gpus = default if self._gpus is None else self._gpus
        return {"CPU": self._cpus, "GPU": gpus, "memory": self._memory}

    def _cause_of_death(self, task: Any) -> str:
        errors = self._ray.exceptions
        try:
            self._ray.get(task)
        except errors.TaskCancelledError:
            return ""
        except errors.RayTaskError as error:
            cause = _one_line(error.cause if isinstance(error.cause, Exception) else error)
            raise SweepError(
                f"Ray's workers cannot work: {cause}; every node needs the same medplus in the "
                "Python that `ray start` runs in"
            ) from None
        except tuple(getattr(errors, name) for name in _CAUSES) as error:
            return _CAUSES[type(error).__name__]
        return ""


def room(request: Resources, have: Sequence[Resources]) -> int:
    """Return how many workers with a request fit on nodes at once."""
    wanted = {name: amount for name, amount in request.items() if amount}
    return sum(
        min(int(node.get(name, 0) // amount) for name, amount in wanted.items()) for node in have
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__

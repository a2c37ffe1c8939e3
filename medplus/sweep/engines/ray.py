"""The Ray engine: workers on the nodes of a Ray cluster, which share a file system."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from medplus.errors import SweepError
from medplus.sweep.claims import Claim
from medplus.sweep.engines import LOOK_S, PATIENCE_S, End, look_after, prepare, work
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place
from medplus.sweep.resources import cores, gpus

Resources = Mapping[str, float]
"""What a node has or a worker asks for, by Ray's names: CPU, GPU and memory in bytes."""


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
        self._ray = _import_ray()
        self._limit, self._address = workers, address
        self._cpus, self._gpus, self._memory = cpus, gpus, (memory_gb or 0) * 1e9
        here = [_this_machine()]
        self.workers = workers or (1 if address else room(self._request("auto", here), here) or 1)

    def run(self, grid: Grid, place: Place, most: int) -> Generator[None]:
        """Start workers; see `medplus.sweep.engines.Engine`."""
        with connected(self._address):
            have = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            request = self._request(place.device, have)
            self.workers = min(self._limit or room(request, have), most)
            if not room(request, have):
                asked = ", ".join(f"{name} {amount:g}" for name, amount in request.items())
                raise SweepError(
                    f"no node of the Ray cluster has all that each worker asks for ({asked}); ask "
                    "for less, or add a node"
                )
            if not request["GPU"] and place.device == "auto":
                place = replace(place, device="cpu")  # a worker that is given no GPU takes none
            try:
                yield from self._run(grid, place, request)
            except self._ray.exceptions.RayError as error:
                raise SweepError(f"the Ray cluster is lost: {_one_line(error)}") from None

    def _request(self, device: str, have: Sequence[Resources]) -> Resources:
        found = device == "auto" and any(node.get("GPU") for node in have)
        default = 1.0 if found or device.startswith("cuda") else 0.0
        gpus = default if self._gpus is None else self._gpus
        return {"CPU": self._cpus, "GPU": gpus, "memory": self._memory}

    def _run(self, grid: Grid, place: Place, request: Resources) -> Generator[None]:
        # A process that is used again may be given another GPU than CUDA has begun with in it.
        remote = self._ray.remote(
            num_cpus=request["CPU"], num_gpus=request["GPU"], memory=request["memory"] or None,
            max_calls=1, max_retries=0,
        )(_work)  # fmt: skip
        threads, folder, tasks = int(request["CPU"]), str(Path.cwd()), {}

        def start(name: str) -> None:
            named = remote.options(name=f"medplus {name}")
            tasks[named.remote(grid, place, name, threads, folder)] = name

        def ended() -> Iterator[End]:
            for task in self._ray.wait(list(tasks), timeout=LOOK_S)[0]:
                name = tasks.pop(task)
                # A node that is lost to the cluster may still compute.
                yield End(name, self._cause_of_death(task), _worker_is(name), certain=False)

        try:
            names = [f"ray {secrets.token_hex(4)}" for _ in range(self.workers)]
            yield from look_after(names, start, ended, place)
        finally:
            self._stop(list(tasks))

    def _cause_of_death(self, task: Any) -> str:
        errors = self._ray.exceptions
        try:
            self._ray.get(task)
        except errors.TaskCancelledError:
            pass
        except errors.RayTaskError as error:
            cause = _one_line(error.cause if isinstance(error.cause, Exception) else error)
            raise SweepError(
                f"Ray's workers cannot work: {cause}; every node needs the same medplus in the "
                "Python that `ray start` runs in"
            ) from None
        except errors.NodeDiedError:
            return "its node was lost"
        except errors.OutOfMemoryError:
            return "its node ran out of memory, and Ray killed its process; ask for more --memory"
        except errors.WorkerCrashedError:
            return (
                "its process was killed or its node was lost; the system kills when memory runs "
                "out: if so, ask for more --memory, or use a smaller batch_size in the grid"
            )
        return ""

    def _stop(self, tasks: list[Any]) -> None:
        """Interrupt workers, wait until they have saved what they can, or kill them."""
        with suppress(self._ray.exceptions.RayError):
            for task in tasks:
                self._ray.cancel(task)
            try:
                if tasks:
                    self._ray.wait(tasks, num_returns=len(tasks), timeout=PATIENCE_S)
            finally:
                for task in tasks:
                    self._ray.cancel(task, force=True)


def _work(grid: Grid, place: Place, name: str, threads: int, folder: str) -> None:
    with suppress(OSError):  # without the folder only relative paths fail, and they say so
        os.chdir(folder)
    prepare(threads)  # this process serves no other task
    work(grid, place, name)


def _worker_is(name: str) -> Callable[[Claim], bool]:
    return lambda claim: claim.worker == name


def room(request: Resources, have: Sequence[Resources]) -> int:
    """Return how many workers with a request fit on nodes at once."""
    wanted = {name: amount for name, amount in request.items() if amount}
    return sum(
        min(int(node.get(name, 0) // amount) for name, amount in wanted.items()) for node in have
    )


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Use the cluster at an address, or one of this machine's own, for the duration of the block.

    Raises
    ------
    SweepError
        If there is no cluster, or it cannot be used.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address}
    if address is None:
        have = _this_machine()
        options = {
            "address": "local",  # even where RAY_ADDRESS or a running cluster suggests another one
            "num_cpus": have["CPU"], "num_gpus": have["GPU"], "include_dashboard": False,
            "object_store_memory": 2**27,  # only the grid passes through it
        }  # fmt: skip
    else:
        check_address(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    handler = signal.getsignal(signal.SIGTERM)  # which Ray replaces by its own
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **options)
        # Ray tells of every dead worker on stdout, whatever log_to_driver says; so do we.
        ray._private.worker._worker_logs_enabled = False
        _put_back(handler)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        ray.shutdown()  # it may be connected in part
        where = f"Ray at {address}" if address else "Ray on this machine"
        raise SweepError(f"{where} cannot be used: {_one_line(error)}") from None
    try:
        yield
    finally:
        ray.shutdown()
        _put_back(handler)


def check_address(address: str) -> None:
    """Refuse an address at which nobody answers; Ray itself would try for minutes.

    Raises
    ------
    SweepError
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if address.startswith("ray://") or not host or not port.isdigit():
        raise SweepError(
            f"the Ray address '{address}' is not HOST:PORT; start the sweep on a node of the "
            "cluster, with the address that `ray start --head` printed, or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        raise SweepError(f"no Ray cluster answers at {address} ({_one_line(error)})") from None


def _put_back(handler: Any) -> None:
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)


def _this_machine() -> Resources:
    return {"CPU": cores(), "GPU": len(gpus())}


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise SweepError("the engine ray needs Ray; run: pip install 'medplus[ray]'") from None
    return ray


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__

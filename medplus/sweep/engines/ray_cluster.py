"""Ray clusters: reaching one or starting one, and what it has to compute with."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from medplus.errors import SweepError
from medplus.sweep.resources import cores, gpus

Resources = Mapping[str, float]
"""What a node has or a worker asks for, by Ray's names: CPU, GPU and memory in bytes."""


def import_ray() -> Any:
    """Return the module.

    Raises
    ------
    SweepError
        If Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise SweepError("the engine ray needs Ray; run: pip install 'medplus[ray]'") from None
    return ray


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Use a cluster for the duration of the block.

    Parameters
    ----------
    address : str or None
        ``HOST:PORT`` of a cluster, or ``auto`` for the one that this machine belongs to; None
        starts one on this machine alone, that ends with the block. If this process has connected
        to a cluster already, that one is used, and left as it is.

    Raises
    ------
    SweepError
        If there is no cluster, or it cannot be used.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    if address is not None:
        check_address(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        with _signals_kept():
            ray.init(log_to_driver=False, logging_level="ERROR", **_options(address))
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        ray.shutdown()  # it may be connected in part
        what = "Ray cannot start here" if address is None else f"Ray at {address} cannot be used"
        raise SweepError(f"{what}: {one_sentence(error)}") from None
    # Ray tells of every dead worker on stdout, whatever log_to_driver says; so do we, in our way.
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        with _signals_kept():
            ray.shutdown()


def check_address(address: str, timeout_s: float = 5.0) -> None:
    """Refuse an address at which no Ray answers; Ray itself would try for minutes.

    Parameters
    ----------
    timeout_s : float
        How long to wait for an answer, in seconds.

    Raises
    ------
    SweepError
    """
    if address == "auto":
        return
    if address.startswith("ray://"):
        raise SweepError(
            f"the Ray address {address} is one for clients; start the sweep on a node of the "
            "cluster, where its files are, with the address HOST:PORT or auto"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) >= 2**16:
        raise SweepError(f"the Ray address '{address}' is not HOST:PORT; Ray's usual port is 6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except OSError as error:
        reason = error.strerror or one_sentence(error)
        raise SweepError(
            f"no Ray cluster answers at {address} ({reason.lower()}); "
            "`ray start --head` on its first node prints its address"
        ) from None


def nodes() -> list[Resources]:
    """Return what each living node of the cluster has in all."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def this_machine() -> Resources:
    """Return what a cluster started on this machine alone would have."""
    return {"CPU": cores(), "GPU": len(gpus())}


def room(request: Resources, have: Sequence[Resources]) -> int:
    """Return how many workers with a request fit on nodes at once."""
    wanted = {name: amount for name, amount in request.items() if amount}
    return sum(
        min(int(node.get(name, 0) // amount) for name, amount in wanted.items()) for node in have
    )


def check_room(request: Resources, have: Sequence[Resources]) -> None:
    """Refuse a request that no node can ever fulfil: Ray would wait for such a node.

    Raises
    ------
    SweepError
    """
    if room(request, have):
        return
    for name, amount in request.items():
        most = max((node.get(name, 0) for node in have), default=0)
        if most < amount:
            raise SweepError(
                f"each worker asks for {_words(name, amount)}, and the most that a node of the Ray "
                f"cluster has is {_words(name, most)}; ask for less, or add a node"
            )
    together = ", ".join(_words(name, amount) for name, amount in request.items() if amount)
    raise SweepError(
        f"no node of the Ray cluster has all that each worker asks for ({together}); ask for less, "
        "or add a node"
    )


def one_sentence(error: BaseException) -> str:
    """Return an error's text without its line breaks and closing stop."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _options(address: str | None) -> dict[str, Any]:
    if address is not None:
        return {"address": address}
    have = this_machine()
    return {
        "address": "local",  # even where RAY_ADDRESS or a running cluster suggests another one
        "num_cpus": have["CPU"],
        "num_gpus": have["GPU"],
        "object_store_memory": 2**27,  # only the grid passes through it
        "include_dashboard": False,
    }


def _words(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 1e9:.3g} GB of memory"
    word = {"CPU": "CPU core"}.get(name, name)
    return f"{amount:g} {word}" if amount == 1 else f"{amount:g} {word}s"


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Put back the handler of SIGTERM, which Ray replaces by its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)

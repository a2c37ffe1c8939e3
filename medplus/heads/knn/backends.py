"""What finds the nearest candidates, and which of it is fastest here.

A backend is a function of train rows and queries (float32), a width and a device. It returns, for
every query, squared Euclidean distances (float32) and row numbers (int64) of the `width` nearest
rows, ascending, both of shape (n_queries, width). Distances are good to about 1e-6 of the norms,
and to the same accuracy no other row is nearer than the last: on that rests the certificate.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast, get_args

import numpy as np

from medplus.device import describe_device, resolve_training_precision
from medplus.errors import UsageError
from medplus.remembered import machine, recall, remember
from medplus.vocabulary import SearchBackend

if TYPE_CHECKING:
    import torch

Backend = Callable[
    [np.ndarray, np.ndarray, int, "torch.device"],
    tuple[np.ndarray, np.ndarray],
]
WORTH_TIMING = 8_000_000_000
"""Multiplications of a search below which timing would take longer than it could save."""
SAMPLE = 4096, 512
"""Train rows and queries on which backends are timed."""
_WIDTH, _ROUNDS = 16, 2
_SUBJECT = "knn-backends"


def check_backend(name: str) -> None:
    """Refuse a word that names no backend.

    Raises
    ------
    UsageError
    """
    if name not in ("auto", *get_args(SearchBackend)):
        raise UsageError(f"unknown backend '{name}'; use auto, faiss, torch or bf16")


def get_backend(name: SearchBackend) -> Backend:
    """Return the function that a backend's name stands for."""
    from medplus.heads.knn.bf16 import search_bf16
    from medplus.heads.knn.fp32 import search_faiss, search_torch

    backends: dict[SearchBackend, Backend] = {
        "faiss": search_faiss, "torch": search_torch, "bf16": search_bf16,
    }  # fmt: skip
    return backends[name]


def fastest_backend(train: np.ndarray, queries: np.ndarray, device: torch.device) -> SearchBackend:
    """Return what searches such points fastest on this device, by a measurement.

    That depends on the libraries at hand more than on the processor (wheels of faiss bring
    OpenBLAS, those of torch MKL or oneDNN), and for bf16 on the points too. It is remembered on
    this machine, per device and number of dimensions. Neighbours are the same.

    Parameters
    ----------
    train, queries : ndarray of float32, shape (n, dim)
        A sample of the points that are to be searched, of `SAMPLE` rows at most.
    """
    names = _candidates(device)
    dims = 1 << (train.shape[1] - 1).bit_length()
    key = f"{describe_device(device)} · {machine()} · {' '.join(names)} · {dims} dimensions"
    kept = (recall(_SUBJECT, key) or {}).get("backend")
    if kept in names:
        return cast("SearchBackend", kept)
    taken = dict.fromkeys(names, float("inf"))
    for _ in range(_ROUNDS):  # the first warms all up
        for name in taken:
            start = time.perf_counter()
            get_backend(name)(train, queries, min(_WIDTH, len(train)), device)
            taken[name] = min(taken[name], time.perf_counter() - start)
    fastest = min(taken, key=lambda name: taken[name])
    remember(_SUBJECT, key, {"backend": fastest})
    return fastest


def _candidates(device: torch.device) -> list[SearchBackend]:
    """Return the backends that can use what the device has."""
    from medplus.heads.knn.fp32 import import_faiss

    names: list[SearchBackend] = ["torch"]
    if find_spec("faiss") and (device.type == "cpu" or import_faiss().get_num_gpus()):
        names.append("faiss")
    if resolve_training_precision("auto", device) == "bf16":  # multiplied natively
        names.append("bf16")
    return names

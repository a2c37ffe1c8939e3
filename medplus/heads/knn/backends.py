"""Two ways to find nearest candidates: faiss, and plain torch as alternative and cross-check."""

from __future__ import annotations

import time
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from medplus.device import resolve_device
from medplus.errors import UsageError
from medplus.vocabulary import SearchBackend

if TYPE_CHECKING:
    import torch

_TORCH_QUERIES, _TORCH_DISTANCES = 1024, 1 << 26
_WORTH_TIMING = 2_000_000_000
"""Multiplications of a search below which timing would take longer than it could save."""
_SAMPLE, _SAMPLE_WIDTH = (4096, 128), 16
GPU_MAX_K = 2048
"""The most neighbours that faiss finds on a GPU."""


def import_faiss() -> Any:
    """Return faiss: the only place that imports it.

    torch comes first: faiss-gpu and torch bring different CUDA runtimes, and the other order has
    crashed.
    """
    import torch  # noqa: F401

    import faiss  # isort: skip

    return faiss


def check_backend(name: str) -> None:
    """Refuse a word that names no backend.

    Raises
    ------
    UsageError
    """
    if name not in ("auto", *get_args(SearchBackend)):
        raise UsageError(f"unknown backend '{name}'; use auto, faiss or torch")


def resolve_backend(
    name: str, device: torch.device, shape: tuple[int, int, int] = (0, 0, 0)
) -> SearchBackend:
    """Return the backend for ``auto``, ``faiss`` or ``torch``.

    ``auto`` is what is fastest here. Of a CPU that depends on the libraries at hand more than on
    the processor (wheels of faiss bring OpenBLAS, those of torch MKL or oneDNN), so both are timed
    once, on a sample of such rows; a search that takes milliseconds is left to torch, since it is
    there already. A CUDA device is faiss's where its build can use it. Neighbours are the same.

    Parameters
    ----------
    shape : (int, int, int)
        Train rows, queries and dimensions.
    """
    check_backend(name)
    if name != "auto":
        return cast("SearchBackend", name)
    if device.type == "cuda":
        return "faiss" if find_spec("faiss") and import_faiss().get_num_gpus() else "torch"
    n_train, n_queries, dim = shape
    if n_train * n_queries * dim < _WORTH_TIMING:
        return "torch"
    return _fastest_on_cpu(1 << (dim - 1).bit_length())


@cache
def _fastest_on_cpu(dim: int) -> SearchBackend:
    rng = np.random.default_rng(0)
    train, queries = (rng.standard_normal((n, dim), np.float32) for n in _SAMPLE)
    ways: tuple[SearchBackend, ...] = ("torch", "faiss")
    taken = dict.fromkeys(ways, float("inf"))
    for _ in range(3):  # the first round warms both up
        for way in ways:
            start = time.perf_counter()
            nearest_candidates(train, queries, _SAMPLE_WIDTH, way, "cpu")
            taken[way] = min(taken[way], time.perf_counter() - start)
    return min(ways, key=lambda way: taken[way])


def nearest_candidates(
    train: np.ndarray, queries: np.ndarray, width: int, backend: SearchBackend, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return squared Euclidean distances and row numbers of the `width` nearest, ascending.

    Distances come from ‖x‖² + ‖q‖² − 2⟨x, q⟩ in float32 and are good to about 1e-6 of the norms;
    the order of near-equals is not to be relied on.

    Parameters
    ----------
    train : ndarray of float32, shape (n_train, dim)
    queries : ndarray of float32, shape (n_queries, dim)
    width : int
        At most n_train.

    Returns
    -------
    distances : ndarray of float32, shape (n_queries, width)
    indices : ndarray of int64, shape (n_queries, width)
    """
    target = resolve_device(device)
    if backend == "torch":
        return _search_torch(train, queries, width, target)
    faiss = import_faiss()
    on_gpu = target.type == "cuda" and faiss.get_num_gpus() > 0 and width <= GPU_MAX_K
    if on_gpu:
        resources = faiss.StandardGpuResources()
        found: tuple[Any, Any] = faiss.knn_gpu(
            resources, queries, train, width, device=target.index or 0
        )
    else:
        found = faiss.knn(queries, train, width)
    return found[0], found[1]


def _search_torch(
    train: np.ndarray, queries: np.ndarray, width: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    import torch

    x = torch.from_numpy(train).to(device)
    norms = torch.linalg.vector_norm(x, dim=1).square()  # without a copy
    distances, indices = [], []
    block = max(1, min(_TORCH_QUERIES, _TORCH_DISTANCES // len(train)))
    for start in range(0, len(queries), block):
        q = torch.from_numpy(queries[start : start + block]).to(device)
        squared = torch.addmm(norms, q, x.T, alpha=-2).add_(q.square().sum(1, keepdim=True))
        nearest = squared.topk(width, dim=1, largest=False)
        distances.append(nearest.values.clamp_(min=0).cpu())
        indices.append(nearest.indices.cpu())
    return torch.cat(distances).numpy(), torch.cat(indices).numpy()

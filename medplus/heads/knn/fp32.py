"""Nearest candidates by one product of matrices in float32: with faiss, and with plain torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

_QUERIES, _DISTANCES = 1024, 1 << 26
GPU_MAX_K = 2048
"""The most neighbours that faiss finds on a GPU."""


def import_faiss() -> Any:
    """Return faiss: the only place that imports it.

    This module imports torch before: faiss-gpu and torch bring different CUDA runtimes, and the
    other order has crashed.
    """
    import faiss

    return faiss


def search_faiss(
    train: np.ndarray, queries: np.ndarray, width: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Search with faiss, on a GPU where its build can use it."""
    faiss = import_faiss()
    found: tuple[Any, Any]
    if device.type == "cuda" and faiss.get_num_gpus() > 0 and width <= GPU_MAX_K:
        resources = faiss.StandardGpuResources()
        found = faiss.knn_gpu(resources, queries, train, width, device=device.index or 0)
    else:
        found = faiss.knn(queries, train, width)
    return found[0], found[1]


def search_torch(
    train: np.ndarray, queries: np.ndarray, width: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Search with torch."""
    x = torch.from_numpy(train).to(device)
    norms = torch.linalg.vector_norm(x, dim=1).square()  # without a copy
    distances, indices = [], []
    for part in query_blocks(queries, len(train)):
        q = torch.from_numpy(part).to(device)
        squared = torch.addmm(norms, q, x.T, alpha=-2).add_(q.square().sum(1, keepdim=True))
        nearest = squared.topk(width, dim=1, largest=False)
        distances.append(nearest.values.clamp_(min=0).cpu())
        indices.append(nearest.indices.cpu())
    return torch.cat(distances).numpy(), torch.cat(indices).numpy()


def query_blocks(queries: np.ndarray, n_train: int) -> list[np.ndarray]:
    """Return the queries in parts whose distances to all train rows fit into memory."""
    block = max(1, min(_QUERIES, _DISTANCES // n_train))
    return [queries[start : start + block] for start in range(0, len(queries), block)]

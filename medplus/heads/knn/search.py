"""Exact nearest neighbours in a defined order: by distance, then by row number.

A matrix product finds candidates fast but knows distances only to rounding, and leaves the order of
equals open. Wherever that could matter, the candidates' distances are computed again from the
differences in float64; wherever equal distances run past the last candidate, more are fetched.
The result therefore does not depend on backend, device or number of threads.

Train rows that are too many for the memory at hand are searched block by block: exact neighbours
in each block are exact neighbours of the whole once they are merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from medplus.device import resolve_device
from medplus.errors import RunError, UsageError
from medplus.heads.features import HeldFeatures, Rows
from medplus.heads.knn.backends import (
    SAMPLE,
    WORTH_TIMING,
    Backend,
    check_backend,
    fastest_backend,
    get_backend,
)
from medplus.heads.knn.points import (
    MOST_CANDIDATES,
    Points,
    centre,
    search_distinct,
    squared_distances,
)
from medplus.memory import spare_memory
from medplus.vocabulary import Metric, SearchBackend

_EXTRA = 5
_WIDEN = 8
_COPIES = 6  # of a block: read, scaled, centred, and three more where thousands are equally far
_SMALLEST_BLOCK, _LARGEST_BLOCK = 1 << 23, 1 << 30


@dataclass(frozen=True)
class Neighbours:
    """The nearest training rows of every query.

    Attributes
    ----------
    distances : ndarray of float64, shape (n_queries, k)
        Euclidean or cosine distances, ascending.
    indices : ndarray of int64, shape (n_queries, k)
        Rows of the train split; equal distances are ordered by row.
    backend : {"faiss", "torch", "bf16"}
        What found the candidates.
    """

    distances: np.ndarray
    indices: np.ndarray
    backend: SearchBackend


def search(
    train: np.ndarray | Rows,
    queries: np.ndarray | Rows,
    k: int,
    *,
    metric: Metric = "l2",
    backend: str = "auto",
    device: str = "auto",
    exact_distances: bool = True,
) -> Neighbours:
    """Find the `k` nearest training rows of every query.

    Parameters
    ----------
    train : ndarray of float, shape (n_train, dim), or Rows
        Searched in blocks where it, with the copies that a search takes, exceeds the memory to
        spare on host or GPU, and on a CPU from 1 GiB on.
    queries : ndarray of float, shape (n_queries, dim), or Rows
    k : int
        Number of neighbours.
    metric : {"l2", "cosine"}
        Euclidean distance, or 1 − cosine similarity; a row of zeros has the similarity 0 with any.
    backend : {"auto", "faiss", "torch", "bf16"}
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    exact_distances : bool
        Whether all returned distances must be exact; if not, only the order is, and distances that
        do not decide the order are good to about 1e-6 of the norms.

    Raises
    ------
    RunError
        If embeddings are not finite, or `k` exceeds the number of training rows.
    """
    everything, targets = _rows(train), _rows(queries)
    _check(len(everything), k)
    target = resolve_device(device)
    chosen = _choose(backend, everything, targets, metric, target)
    most = _most_rows(everything.shape, target)
    # Blocks of equal length; merging needs their exact distances.
    length = -(-len(everything) // -(-len(everything) // most))
    exact = exact_distances or length < len(everything)
    squared = np.empty((len(targets), k))
    indices = np.empty((len(targets), k), np.int64)
    for at, some in targets.blocks(most):
        q = Points.of(some, metric)
        merged = np.empty((len(q), 0)), np.empty((len(q), 0), np.int64)
        for start, rows in everything.blocks(length):
            x = Points.of(rows, metric)
            found = _search_block(x, q, min(k, len(x)), get_backend(chosen), target, exact)
            merged = _merge(merged, (found[0], found[1] + start), k)
        squared[at : at + len(q)], indices[at : at + len(q)] = merged
    # For unit vectors ‖x − q‖² = 2 (1 − cos).
    distances = squared / 2 if metric == "cosine" else np.sqrt(squared)
    return Neighbours(distances, indices, chosen)


def _choose(
    name: str, train: Rows, queries: Rows, metric: Metric, device: torch.device
) -> SearchBackend:
    """Return what is to search; a search that takes milliseconds is left to torch."""
    check_backend(name)
    if name != "auto":
        return cast("SearchBackend", name)
    n, dim = train.shape
    if n * dim * len(queries) < WORTH_TIMING:
        return "torch"
    x, q = (
        Points.of(next(iter(rows.blocks(most)))[1], metric)
        for rows, most in zip((train, queries), SAMPLE, strict=True)
    )
    try:
        return fastest_backend(*centre(x, q)[:2], device)
    except RunError:  # of numbers that the search may refuse in its turn
        return "torch"


def _most_rows(shape: tuple[int, int], device: torch.device) -> int:
    """Return how many of a split's rows may be searched as one block."""
    n, dim = shape
    if n * dim * 4 <= _SMALLEST_BLOCK:
        return n
    nbytes = spare_memory(device) // _COPIES
    if device.type == "cpu":  # where more blocks cost nothing, so that large copies are not needed
        nbytes = min(nbytes, _LARGEST_BLOCK)
    return max(1, max(_SMALLEST_BLOCK, nbytes) // (4 * max(1, dim)))


def _rows(rows: np.ndarray | Rows) -> Rows:
    return HeldFeatures(rows) if isinstance(rows, np.ndarray) else rows


_Found = tuple[np.ndarray, np.ndarray]
"""Squared distances, float64, and rows, int64, both of shape (n_queries, k) and in order."""


def _merge(a: _Found, b: _Found, k: int) -> _Found:
    """Return the `k` nearest of both, or all if they are fewer; rows of `a` come before `b`'s."""
    if not a[0].shape[1]:
        return b
    squared, rows = (np.concatenate(pair, axis=1) for pair in zip(a, b, strict=True))
    # Stable: equal distances stay in the order of rows.
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, order, 1), np.take_along_axis(rows, order, 1)


def _search_block(
    x: Points, q: Points, k: int, find: Backend, device: torch.device, exact: bool
) -> _Found:
    x, q = Points.with_zeros_apart(x, q)
    x_centred, q_centred, rounding = centre(x, q)
    squared = np.empty((len(q), k))
    indices = np.empty((len(q), k), np.int64)
    pending = np.arange(len(q))
    width = min(k + _EXTRA, len(x))
    while len(pending):
        some = q_centred if len(pending) == len(q) else q_centred[pending]
        found, rows = find(x_centred, some, width, device)
        settled = _settle(
            x, q, pending, found, rows, rounding[pending], exact, squared, indices,
            complete=width == len(x),
        )  # fmt: skip
        pending = pending[~settled]
        if len(pending) and width >= min(MOST_CANDIDATES, len(x)):
            del x_centred
            squared[pending], indices[pending] = search_distinct(x, q.at(pending), k)
            break
        width = min(width * _WIDEN, len(x), MOST_CANDIDATES)
    return squared, indices


def _check(n_train: int, k: int) -> None:
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    if k > n_train:
        raise RunError(f"k = {k} exceeds the {n_train} rows of the train split; use a smaller k")


def _settle(
    x: Points,
    q: Points,
    pending: np.ndarray,
    found: np.ndarray,
    rows: np.ndarray,
    rounding: np.ndarray,
    exact: bool,
    squared: np.ndarray,
    indices: np.ndarray,
    *,
    complete: bool,
) -> np.ndarray:
    """Write the results of all queries whose candidates decide them; return which those are.

    `complete` says that the candidates are all there is, so that nothing can lie beyond them.
    """
    k = squared.shape[1]
    gaps = np.diff(found[:, : k + 1].astype(np.float64), axis=1)
    unclear = (gaps <= 2 * rounding[:, None]).any(axis=1) | exact
    squared[pending] = np.maximum(found[:, :k], 0)
    indices[pending] = rows[:, :k]
    doubtful = np.flatnonzero(unclear)
    distances, order = _rank_exactly(x, q.at(pending[doubtful]), rows[doubtful])
    squared[pending[doubtful]] = distances[:, :k]
    indices[pending[doubtful]] = order[:, :k]
    settled = np.ones(len(pending), bool)
    if not complete:
        # A row beyond the candidates is at least as far as the last one, to rounding.
        settled[doubtful] = distances[:, k - 1] < found[doubtful, -1] - 2 * rounding[doubtful]
    return settled


def _rank_exactly(x: Points, q: Points, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order candidates by exact squared distance, then by row."""
    distances = squared_distances(x, q, rows)
    order = np.lexsort((rows, distances), axis=1)
    return np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)

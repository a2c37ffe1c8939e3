"""Exact nearest neighbours in a defined order: by distance, then by row number.

A matrix product finds candidates fast but knows distances only to rounding, and leaves the order of
equals open. Wherever that could matter, the candidates' distances are computed again from the
differences in float64; wherever equal distances run past the last candidate, more are fetched.
The result therefore does not depend on backend, device or number of threads.

Train rows that are too many for the memory at hand are searched block by block: exact neighbours
in each block are exact neighbours of the whole once they are merged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from medplus.device import resolve_device
from medplus.errors import RunError, UsageError
from medplus.heads.features import HeldFeatures, Rows
from medplus.heads.knn.backends import nearest_candidates, resolve_backend
from medplus.memory import spare_memory
from medplus.vocabulary import Metric, SearchBackend

_EXTRA = 5
_WIDEN = 8
_WIDEST = 2048
_BLOCK_BYTES = 1 << 21  # stays in the processor's cache
_COPIES = 6  # of a block: read, scaled, centred, and three more where thousands are equally far
_SMALLEST_BLOCK, _LARGEST_BLOCK = 1 << 23, 1 << 30
_SAMPLE = 512
_LARGEST = 2.0**124
"""Squared norms below this have squared distances that float32 can hold."""
_TINY = 2.0**-100
"""Squared norms between 0 and this would lose their products in float32."""
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Neighbours:
    """The nearest training rows of every query.

    Attributes
    ----------
    distances : ndarray of float64, shape (n_queries, k)
        Euclidean or cosine distances, ascending.
    indices : ndarray of int64, shape (n_queries, k)
        Rows of the train split; equal distances are ordered by row.
    backend : {"faiss", "torch"}
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
    backend : {"auto", "faiss", "torch"}
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
    n, dim = everything.shape
    chosen = resolve_backend(backend, target, (n, len(targets), dim))
    most = _most_rows(everything.shape, target)
    # Blocks of equal length; merging needs their exact distances.
    length = -(-len(everything) // -(-len(everything) // most))
    exact = exact_distances or length < len(everything)
    squared = np.empty((len(targets), k))
    indices = np.empty((len(targets), k), np.int64)
    for at, some in targets.blocks(most):
        q = _Points.of(some, metric)
        merged = np.empty((len(q), 0)), np.empty((len(q), 0), np.int64)
        for start, rows in everything.blocks(length):
            x = _Points.of(rows, metric)
            found = _search_block(x, q, min(k, len(x)), chosen, device, exact)
            merged = _merge(merged, (found[0], found[1] + start), k)
        squared[at : at + len(q)], indices[at : at + len(q)] = merged
    # For unit vectors ‖x − q‖² = 2 (1 − cos).
    distances = squared / 2 if metric == "cosine" else np.sqrt(squared)
    return Neighbours(distances, indices, chosen)


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
    x: _Points, q: _Points, k: int, backend: SearchBackend, device: str, exact: bool
) -> _Found:
    x, q = _Points.with_zeros_apart(x, q)
    x_centred, q_centred, rounding = _centre(x, q)
    squared = np.empty((len(q), k))
    indices = np.empty((len(q), k), np.int64)
    pending = np.arange(len(q))
    width = min(k + _EXTRA, len(x))
    while len(pending):
        some = q_centred if len(pending) == len(q) else q_centred[pending]
        found, rows = nearest_candidates(x_centred, some, width, backend, device)
        settled = _settle(
            x, q, pending, found, rows, rounding[pending], exact, squared, indices,
            complete=width == len(x),
        )  # fmt: skip
        pending = pending[~settled]
        if len(pending) and width >= min(_WIDEST, len(x)):
            del x_centred
            squared[pending], indices[pending] = _search_distinct(x, q.at(pending), k)
            break
        width = min(width * _WIDEN, len(x), _WIDEST)
    return squared, indices


def _check(n_train: int, k: int) -> None:
    if k < 1:
        raise UsageError(f"k must be at least 1, not {k}")
    if k > n_train:
        raise RunError(f"k = {k} exceeds the {n_train} rows of the train split; use a smaller k")


@dataclass(frozen=True)
class _Points:
    """Embeddings as points whose Euclidean distances are wanted.

    Attributes
    ----------
    rows : ndarray of float32, shape (n, dim)
    scale : ndarray of float64, shape (n, 1), or None
        What each row is to be multiplied by: 1 / norm for the cosine metric.
    """

    rows: np.ndarray
    scale: np.ndarray | None = None

    @classmethod
    def of(cls, rows: np.ndarray, metric: Metric) -> _Points:
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        if metric == "l2":
            return cls(rows)
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
        return cls(rows, 1 / np.where(norms == 0, 1, norms))

    @staticmethod
    def with_zeros_apart(x: _Points, q: _Points) -> tuple[_Points, _Points]:
        """Give rows of zeros, which have no direction, one at a right angle to all others.

        So their cosine similarity is 0, as in scikit-learn, also between a zero row and a zero
        query: of two further dimensions each takes one.
        """
        if x.scale is None or q.scale is None or all(p.rows.any(axis=1).all() for p in (x, q)):
            return x, q
        extended = []
        for place, points in enumerate((x, q)):
            rows = np.pad(points.rows, ((0, 0), (0, 2)))
            rows[~points.rows.any(axis=1), place - 2] = 1
            extended.append(replace(points, rows=rows))
        return extended[0], extended[1]

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, index: np.ndarray) -> _Points:
        """Return some of the points."""
        return _Points(self.rows[index], None if self.scale is None else self.scale[index])

    def rounded(self) -> np.ndarray:
        """Return the coordinates in float32."""
        if self.scale is None:
            return self.rows
        unit = np.empty_like(self.rows)
        with np.errstate(invalid="ignore"):  # what is not finite is refused later
            np.multiply(self.rows, self.scale, out=unit, casting="same_kind")
        return unit

    def exact(self, index: np.ndarray | slice) -> np.ndarray:
        """Return the coordinates of some points in float64."""
        coordinates = self.rows[index].astype(np.float64)
        if self.scale is not None:
            coordinates *= self.scale[index]
        return coordinates


def _centre(x: _Points, q: _Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift both by a train mean where that helps, and bound the error of squared distances.

    Distances do not change under a shift, but a common offset larger than the spread costs a
    float32 matrix product its digits. Any point near the middle serves: that of a sample is found
    in no time.

    Returns
    -------
    x, q : ndarray of float32
    rounding : ndarray of float64, shape (n_queries,)
    """
    points, targets = (torch.from_numpy(p.rounded()) for p in (x, q))  # torch uses every core
    x_norms = _squared_norms(points)
    centre = points[:: -(-len(points) // _SAMPLE)].mean(0)
    if 2 * centre.double().square().sum() > x_norms.mean():
        points, targets = points - centre, targets - centre
        x_norms = _squared_norms(points)
    q_norms = _squared_norms(targets)
    is_tiny = 0 < max(float(x_norms.max()), float(q_norms.max())) < _TINY
    for name, norms in (("train", x_norms), ("query", q_norms)):
        # Negated, so that NaN counts as too large.
        if not bool((norms < _LARGEST).all()) or is_tiny:
            raise RunError(
                f"the {name} embeddings are not finite, or too large or too small to be compared; "
                "extract them again with --precision fp32"
            )
    # At least five times the largest error seen for 16 to 4096 dimensions with either backend.
    units = 0.25 * x.rows.shape[1] ** 0.5 + 6
    bound = units * _EPS * (q_norms + x_norms.max())
    if x.scale is not None:
        # Coordinates of unit vectors were rounded before they were centred: each point has moved by
        # up to eps / 2, and a squared distance d² by 2 d eps + eps², where d ≤ ‖q‖ + ‖x‖.
        bound += 2 * _EPS * (q_norms.sqrt() + x_norms.max().sqrt()) + _EPS**2
    return points.numpy(), targets.numpy(), bound.numpy()


def _squared_norms(points: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(points, dim=1)
    return norms.double().square()


def _settle(
    x: _Points,
    q: _Points,
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


def _rank_exactly(x: _Points, q: _Points, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order candidates by exact squared distance, then by row."""
    distances = _exact_distances(x, q, rows)
    order = np.lexsort((rows, distances), axis=1)
    return np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)


def _exact_distances(x: _Points, q: _Points, rows: np.ndarray) -> np.ndarray:
    """Return squared distances in float64 of every query to its candidates, shape as `rows`."""
    distances = np.empty(rows.shape)
    block = max(1, _BLOCK_BYTES // (rows.shape[1] * x.rows.shape[1] * 8))
    for start in range(0, len(q), block):
        part = slice(start, start + block)
        difference = x.exact(rows[part])
        difference -= q.exact(part)[:, None]
        np.einsum("qcd,qcd->qc", difference, difference, out=distances[part])
    return distances


def _search_distinct(x: _Points, q: _Points, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Search exhaustively where thousands of rows are equally far, as in collapsed embeddings.

    Equal rows are compared once, so that even a constant embedding takes no time.
    """
    values, first, member = np.unique(x.rows, axis=0, return_index=True, return_inverse=True)
    distinct = _Points(values, None if x.scale is None else x.scale[first])
    parts = np.array_split(np.arange(len(distinct)), -(-len(distinct) // _WIDEST))
    squared = np.empty((len(q), k))
    indices = np.empty((len(q), k), np.int64)
    for i in range(len(q)):
        query = q.at(np.array([i]))
        found = [_exact_distances(distinct, query, part[None])[0] for part in parts]
        of_row = np.concatenate(found)[member.reshape(-1)]
        indices[i] = np.argsort(of_row, kind="stable")[:k]
        squared[i] = of_row[indices[i]]
    return squared, indices

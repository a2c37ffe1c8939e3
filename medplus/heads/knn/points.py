"""Embeddings as points whose exact distances are wanted: scaled, centred, compared in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from medplus.errors import RunError
from medplus.vocabulary import Metric

MOST_CANDIDATES = 2048
"""Candidates of one query that are worth fetching; beyond, all rows are compared."""
_BLOCK_BYTES = 1 << 21  # stays in the processor's cache
_SAMPLE = 512
_LARGEST = 2.0**124
"""Squared norms below this have squared distances that float32 can hold."""
_TINY = 2.0**-100
"""Squared norms between 0 and this would lose their products in float32."""
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Points:
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
    def of(cls, rows: np.ndarray, metric: Metric) -> Points:
        """Return rows as points whose Euclidean distances order as the metric does."""
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        if metric == "l2":
            return cls(rows)
        norms = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))[:, None]
        return cls(rows, 1 / np.where(norms == 0, 1, norms))

    @staticmethod
    def with_zeros_apart(x: Points, q: Points) -> tuple[Points, Points]:
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

    def at(self, index: np.ndarray) -> Points:
        """Return some of the points."""
        return Points(self.rows[index], None if self.scale is None else self.scale[index])

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


def centre(x: Points, q: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
    middle = points[:: -(-len(points) // _SAMPLE)].mean(0)
    if 2 * middle.double().square().sum() > x_norms.mean():
        points, targets = points - middle, targets - middle
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


def squared_distances(x: Points, q: Points, rows: np.ndarray) -> np.ndarray:
    """Return squared distances in float64 of every query to its candidates, shape as `rows`."""
    distances = np.empty(rows.shape)
    block = max(1, _BLOCK_BYTES // (rows.shape[1] * x.rows.shape[1] * 8))
    for start in range(0, len(q), block):
        part = slice(start, start + block)
        difference = x.exact(rows[part])
        difference -= q.exact(part)[:, None]
        np.einsum("qcd,qcd->qc", difference, difference, out=distances[part])
    return distances


def search_distinct(x: Points, q: Points, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Search exhaustively where thousands of rows are equally far, as in collapsed embeddings.

    Equal rows are compared once, so that even a constant embedding takes no time.
    """
    values, first, member = np.unique(x.rows, axis=0, return_index=True, return_inverse=True)
    distinct = Points(values, None if x.scale is None else x.scale[first])
    parts = np.array_split(np.arange(len(distinct)), -(-len(distinct) // MOST_CANDIDATES))
    squared = np.empty((len(q), k))
    indices = np.empty((len(q), k), np.int64)
    for i in range(len(q)):
        query = q.at(np.array([i]))
        found = [squared_distances(distinct, query, part[None])[0] for part in parts]
        of_row = np.concatenate(found)[member.reshape(-1)]
        indices[i] = np.argsort(of_row, kind="stable")[:k]
        squared[i] = of_row[indices[i]]
    return squared, indices

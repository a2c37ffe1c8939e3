"""Copies and near-duplicates: candidates by embedding and spectrum, confirmed on pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse, stats
from scipy.sparse.csgraph import connected_components

from medplus.auditing.pool import Pool
from medplus.heads.features import Rows

CANDIDATES = 6
"""Nearest images per image and way of looking that may be compared on pixels."""
COMPARED = 4
"""Of these, how many are: those with the most similar spectra."""
CHANCE = 0.05
"""Images that may pass the threshold by chance, in expectation."""
_LARGEST = 1 - 1e-6
_SURE = 0.95
"""What chance does not reach where it spreads little, whatever the skewed bound says."""
_GUMBEL_BELOW = 0.73
"""Root mean square distance to the mode of a standard Gumbel variable's values below it."""


@dataclass(frozen=True)
class Pair:
    """Two images that are one.

    Attributes
    ----------
    row, partner : int
        Rows of the pool.
    score : float
        How alike they are, at most 1.
    copy : bool
        Whether every pixel is equal.
    """

    row: int
    partner: int
    score: float
    copy: bool


@dataclass(frozen=True, eq=False)
class Twins:
    """What was found.

    Attributes
    ----------
    threshold : float
        Pairs are as alike as that.
    by : {"pixels", "embeddings"}
        What was compared.
    given : bool
        Whether the threshold was set by the user.
    pairs : list of Pair
        All confirmed pairs.
    cluster : ndarray of int64, shape (n,)
        Images of one number are one; an image without a twin has a number of its own.
    """

    threshold: float
    by: str
    given: bool
    pairs: list[Pair]
    cluster: np.ndarray

    @property
    def clusters(self) -> list[np.ndarray]:
        """The rows of every cluster of at least two images."""
        order = np.argsort(self.cluster, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(self.cluster[order])) + 1)
        return [rows for rows in parts if len(rows) > 1]


def find_twins(
    pool: Pool,
    features: Sequence[np.ndarray],
    neighbours: Sequence[np.ndarray],
    threshold: float | None = None,
) -> Twins:
    """Find images that are there more than once.

    Parameters
    ----------
    pool : Pool
        Without images, embeddings alone decide.
    features : sequence of ndarray, shape (n, dim)
        Reduced embeddings of every store.
    neighbours : sequence of ndarray of int, shape (n, k)
        The nearest other rows of every row, per store.
    threshold : float, optional
        By default from the data: see `chance_threshold`.
    """
    n = len(pool)
    near = [found[:, :CANDIDATES] for found in neighbours]
    if pool.images is None:
        pairs = _pairs_of(near)
        score = np.max([_cosines(values, *pairs) for values in features], axis=0)
        equal = np.zeros(len(score), bool)
    else:
        from medplus.auditing import pixels

        images = pixels.bands(pool)
        spectra = pixels.spectra(images)
        near.append(nearest(spectra, CANDIDATES, "l2")[0])
        first, second = _most_similar(spectra, *_pairs_of(near))
        score = pixels.compare(images, first, second)
        pairs, score, equal = _with_copies(pixels.digests(pool), (first, second), score)
    best = np.full(n, -1.0)
    for rows in pairs:
        np.maximum.at(best, rows, score)
    limit = chance_threshold(best) if threshold is None else threshold
    found = np.flatnonzero((score >= limit) | equal)
    first, second = pairs
    graph = sparse.coo_matrix((np.ones(len(found)), (first[found], second[found])), (n, n))
    return Twins(
        limit,
        "embeddings" if pool.images is None else "pixels",
        threshold is not None,
        [Pair(int(first[i]), int(second[i]), float(score[i]), bool(equal[i])) for i in found],
        connected_components(graph, directed=False)[1].astype(np.int64),
    )


def nearest(features: np.ndarray | Rows, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` nearest other rows of every row, and their distances, both (n, k)."""
    from medplus.heads.knn.search import search

    k = min(k, len(features) - 1)
    found = search(features, features, k + 1, metric=metric, exact_distances=False)  # type: ignore[arg-type]
    others = found.indices != np.arange(len(features))[:, None]
    others[others.all(1), -1] = False  # a row whose equals came before it
    shape = (len(features), k)
    return found.indices[others].reshape(shape), found.distances[others].reshape(shape)


def chance_threshold(best: np.ndarray) -> float:
    """Return from where on a likeness is not by chance: in the widest gap beyond the bulk.

    Images that are no twins have a likeness to their nearest that spreads about one mode, once it
    is Fisher-transformed. Below the mode there are no twins, so the spread there tells how far
    chance reaches above it, however many twins there are (short of outnumbering the rest): at
    least as far as if the spread above were the same, at most as far as of a largest value of
    many, which is skewed (Gumbel). Between the two, twins and others lie thinnest at the threshold.

    Parameters
    ----------
    best : ndarray of float, shape (n,)
        Each image's likeness to the one most like it.

    Examples
    --------
    >>> import numpy as np
    >>> alone = np.tanh(np.random.default_rng(0).normal(0.5, 0.1, 1000))
    >>> 0.65 < chance_threshold(np.append(alone, np.linspace(0.95, 0.99, 300))) < 0.95
    True
    """
    z = np.arctanh(np.clip(best, -_LARGEST, _LARGEST))
    mode = _mode(np.unique(z))  # many copies, all as alike, are no bulk
    below = z[z <= mode]
    spread = float(np.sqrt(np.mean((below - mode) ** 2)))
    p = min(0.5, CHANCE / len(z))
    low = mode + spread * stats.norm.isf(p)
    high = min(mode + spread / _GUMBEL_BELOW * stats.gumbel_r.isf(p), np.arctanh(_SURE))
    if low < high:
        inside = np.sort(z[(z > low) & (z < high)])
        edges = np.concatenate([[low], inside, [high]])
        widest = int(np.diff(edges).argmax())
        low = float(edges[widest : widest + 2].mean())
    return float(min(np.tanh(low), _LARGEST))


def _mode(values: np.ndarray) -> float:
    """Return where values lie densest, by a Gaussian kernel of Silverman's width.

    The spread is taken from the lower quarter, where there are no twins.
    """
    from scipy.ndimage import gaussian_filter1d

    low, quarter = np.quantile(values, [0.05, 0.25])
    spread = (quarter - low) / (stats.norm.ppf(0.25) - stats.norm.ppf(0.05))
    if spread == 0:
        return float(np.median(values))
    width = 0.9 * spread * len(values) ** -0.2
    grid = np.arange(values.min() - 4 * width, values.max() + 4 * width, width / 8)
    counts, _ = np.histogram(values, grid)
    dense = gaussian_filter1d(counts.astype(float), 8, mode="constant")
    return float(grid[dense.argmax()] + width / 16)


def _pairs_of(near: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return every pair once, the smaller row first."""
    n = len(near[0])
    rows = [np.repeat(np.arange(n), found.shape[1]) for found in near]
    a, b = np.concatenate(rows), np.concatenate([found.ravel() for found in near])
    codes = np.unique(np.minimum(a, b) * n + np.maximum(a, b))
    return codes // n, codes % n


def _most_similar(
    spectra: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs that are among the `COMPARED` most similar ones of either image."""
    likeness = np.einsum("nd,nd->n", spectra[first], spectra[second])
    rows = np.concatenate([first, second])
    order = np.lexsort((-np.tile(likeness, 2), rows))
    rank = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
    among = np.zeros(len(first), bool)
    among[order[rank < COMPARED] % len(first)] = True
    return first[among], second[among]


def _with_copies(
    digests: list[bytes], pairs: tuple[np.ndarray, np.ndarray], score: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
    """Add pairs of equal pixels that are no candidates, and tell which pairs are equal."""
    _, content = np.unique(np.array(digests), return_inverse=True)
    first, second = pairs
    order = np.argsort(content, kind="stable")
    same = np.flatnonzero(np.diff(content[order]) == 0)
    more = np.minimum(order[same], order[same + 1]), np.maximum(order[same], order[same + 1])
    n = len(content)
    new = ~np.isin(more[0] * n + more[1], first * n + second)
    first, second = (np.append(a, b[new]) for a, b in zip(pairs, more, strict=True))
    score = np.append(score, np.ones(new.sum(), score.dtype))
    equal = content[first] == content[second]
    return (first, second), np.where(equal, 1.0, score), equal


def _cosines(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1)
    unit = features / np.where(norms == 0, 1, norms)[:, None]
    cosines: np.ndarray = np.einsum("nd,nd->n", unit[first], unit[second])
    return cosines

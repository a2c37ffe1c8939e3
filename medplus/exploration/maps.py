"""From embeddings to places on a plane, and to clusters; the same whenever they are computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from medplus.auditing.pool import Pool

MapKind = Literal["pca", "tsne"]
_PERPLEXITY = 30
_FOR_TSNE = 50
_ANGLE = 0.8
"""How coarsely far points are taken together: two fifths less time than at 0.5, and a KL
divergence that is 0.3 % higher."""
_PATIENT = 5_000
"""Images up to which 1000 steps are taken; half of them have 6 % more KL divergence."""
_CLUSTERS = (8, 24)
_EVERY_ROW = 50_000
"""Rows up to which k-means reads all of them in each step."""


def pca_map(features: np.ndarray) -> np.ndarray:
    """Return the first two principal components, float32, shape (n, 2).

    Parameters
    ----------
    features : ndarray of float32, shape (n, dim)
        On their principal components already, as `medplus.auditing.pool.reduce` returns them.

    Examples
    --------
    >>> pca_map(np.array([[3.0], [4.0]], np.float32)).tolist()
    [[3.0, 0.0], [4.0, 0.0]]
    """
    flat = np.zeros((len(features), 2), np.float32)
    flat[:, : features.shape[1]] = features[:, :2]
    return flat


def tsne_map(features: np.ndarray) -> np.ndarray | None:
    """Return the images' places by t-SNE, float32, shape (n, 2), or None for fewer than 5.

    It keeps neighbourhoods and begins from the PCA, so that equal embeddings give equal maps; the
    distances between far groups mean little.

    Parameters
    ----------
    features : ndarray of float32, shape (n, dim)
        As for `pca_map`; the first 50 components are used.

    References
    ----------
    .. [1] van der Maaten, Hinton: Visualizing data using t-SNE. JMLR 9, 2008.
    .. [2] Kobak, Berens: The art of using t-SNE for single-cell transcriptomics. Nature
       Communications 10, 2019.
    """
    from sklearn.manifold import TSNE

    n = len(features)
    if n < 5:
        return None
    perplexity = min(_PERPLEXITY, (n - 1) / 3)
    start = pca_map(features)
    spread = float(start[:, 0].std())
    start = start * (1e-4 / spread) if spread > 0 else start
    steps = 1000 if n <= _PATIENT else 500
    model = TSNE(perplexity=perplexity, init=start, angle=_ANGLE, max_iter=steps, random_state=0)
    return np.asarray(model.fit_transform(features[:, :_FOR_TSNE]), np.float32)


def to_grid(places: np.ndarray) -> np.ndarray:
    """Return places on a grid of 65,536 steps, uint16, shape (n, 2), their proportions kept."""
    low, high = places.min(0), places.max(0)
    extent = float((high - low).max()) or 1.0
    steps = np.rint((places - (low + high) / 2) / extent * 65535 + 32767.5)
    return np.asarray(steps.clip(0, 65535), np.uint16)


def how_many(n_classes: int) -> int:
    """Return how many clusters are sought unless it is said: twice the classes, from 8 to 24."""
    return min(max(2 * n_classes, _CLUSTERS[0]), _CLUSTERS[1])


def cluster(features: np.ndarray, how: int | Literal["hdbscan"]) -> np.ndarray:
    """Return the cluster of every row, int64, shape (n,), the largest first; −1 is none.

    Parameters
    ----------
    features : ndarray of float32, shape (n, dim)
    how : int or "hdbscan"
        So many by k-means; or as many as HDBSCAN finds, which leaves out what lies alone.
    """
    from sklearn.cluster import HDBSCAN, KMeans, MiniBatchKMeans

    n = len(features)
    if how == "hdbscan":
        smallest = max(5, n // 200)
        found = HDBSCAN(min_cluster_size=min(smallest, n), copy=True).fit_predict(features)
    else:
        method = KMeans if n <= _EVERY_ROW else MiniBatchKMeans
        found = method(min(how, n), n_init=4, random_state=0).fit_predict(features)
    numbers, counts = np.unique(found[found >= 0], return_counts=True)
    rank = np.full(n + 1, -1, np.int64)
    rank[numbers[np.argsort(-counts, kind="stable")]] = np.arange(len(numbers))
    return np.asarray(rank[np.where(found >= 0, found, n)])


def name_clusters(pool: Pool, clusters: np.ndarray) -> tuple[str, ...]:
    """Return names that say what prevails in each cluster: ``1 · malignant 81 %``."""
    names = []
    for number in range(int(clusters.max(initial=-1)) + 1):
        rows, counts = np.unique(pool.labels[clusters == number], axis=0, return_counts=True)
        most = int(counts.argmax())
        share = counts[most] / counts.sum()
        names.append(f"{number + 1} · {pool.in_words(rows[most]) or 'no label'} {share:.0%}")
    return tuple(name.replace("%", " %") for name in names)

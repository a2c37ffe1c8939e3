"""Nearest candidates by a product in bfloat16 that bounds distances, and distances of what is left.

Where a processor multiplies bfloat16 natively, it does so two to five times as fast as float32, but
a number keeps 8 bits. So the product is not taken for the distances: it bounds them, and what the
bound cannot exclude is computed in float32 (filter and refine [1]_). Write every point as x = x̂ + r
with x̂ in bfloat16. By Cauchy and Schwarz

    ⟨q, x⟩ = ⟨q̂, x̂⟩ + ⟨q, r_x⟩ + ⟨r_q, x̂⟩ ≤ ⟨q̂, x̂⟩ + ‖q‖ ‖r_x‖ + ‖r_q‖ ‖x̂‖,

and each of these products is one more column of the matrices, as is −‖x‖² / 2. One product thus
gives U ≥ ⟨q, x⟩ − ‖x‖² / 2 = (‖q‖² − d²) / 2 for every pair. The sum of n terms in float32 errs by
at most γₙ = n u / (1 − n u) times the sum of their magnitudes, whatever its order [2]_; a multiple
of that is added to the columns. Rounding U to bfloat16 is monotone, so U is compared with a
threshold that is rounded too.

The threshold is the largest distance to any `width` rows: no row beyond it is among the `width`
nearest. They are the best of those groups of rows whose best U is largest, so that nothing is
sorted but the maxima of groups. Queries for which the bound excludes too little are searched in
float32.

References
----------
.. [1] T. Seidl, H.-P. Kriegel. Optimal multi-step k-nearest neighbor search. SIGMOD 1998.
.. [2] N. J. Higham. Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from medplus.heads.knn.fp32 import import_faiss, query_blocks, search_torch

_GROUP = 32
"""Rows of which only the best is looked at first."""
_EXTRA = 8
"""Columns beside the coordinates: five are used, and 16 bytes keep rows aligned."""
_FEW = 4
"""Queries are left to float32 where more than one in so many groups may hold a neighbour."""
_CHUNK = 512  # rows that stay in the processor's cache
_SLACK = 2.0**-100  # more than all that underflows: points are scaled to norms of at most 1
_NEVER = -1e30


def search_bf16(
    train: np.ndarray, queries: np.ndarray, width: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Search with bounds in bfloat16 and distances in float32.

    Few rows, or many neighbours, leave nothing to exclude, and are searched in float32.
    """
    n = len(train)
    groups = -(-n // _GROUP)
    if groups < 2 * width:
        return search_torch(train, queries, width, device)
    x = torch.from_numpy(train).to(device)
    largest = max(_largest_norm(x), _largest_norm(torch.from_numpy(queries)))
    scale = 2.0 ** -math.ceil(math.log2(largest)) if largest > 0 else 1.0
    columns = _train_columns(x, scale, groups * _GROUP)
    distances = np.empty((len(queries), width), np.float32)
    rows = np.empty((len(queries), width), np.int64)
    start, is_weak = 0, False
    for part in query_blocks(queries, n):
        left = np.ones(len(part), bool)
        stop = start + len(part)
        if not is_weak:
            q = torch.from_numpy(part).to(device)
            found = _search_part(x, columns, q, width, scale)
            left = found[2].cpu().numpy()
            distances[start:stop], rows[start:stop] = found[0].cpu(), found[1].cpu()
            is_weak = left.mean() > 0.5
        if left.any():
            at = start + np.flatnonzero(left)
            distances[at], rows[at] = search_torch(train, part[left], width, device)
        start = stop
    return distances, rows


def _search_part(
    x: torch.Tensor, columns: torch.Tensor, q: torch.Tensor, width: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return distances, rows, and which queries have no result since the bound is too weak."""
    with _sums_in_float32():
        bounds = _query_columns(q, scale) @ columns.T
    by_group = bounds.view(len(q), _GROUP, -1)  # row i is in group i mod n_groups
    n_groups = by_group.shape[2]
    best = by_group.amax(1)
    first = best.topk(width, dim=1).indices
    members = by_group.gather(2, first[:, None].expand(-1, _GROUP, -1)).argmax(1)
    rows = members * n_groups + first
    every = torch.arange(len(q), device=q.device)
    known = _distances(x, q, rows.flatten(), every.repeat_interleave(width)).view(rows.shape)
    threshold = _threshold(q, known.amax(1), scale)[:, None]
    bounds[every[:, None], rows] = _NEVER  # these are known
    may_hold = best >= threshold
    is_weak = may_hold.sum(1) > width + n_groups // _FEW
    may_hold[is_weak] = False
    query, group = may_hold.nonzero(as_tuple=True)
    pair, member = (by_group[query, :, group] >= threshold[query]).nonzero(as_tuple=True)
    query, more = query[pair], member * n_groups + group[pair]
    # One line per query, filled up with distances that are never among the nearest.
    query, order = query.sort(stable=True)
    more = more[order]
    counts = query.bincount(minlength=len(q))
    place = torch.arange(len(query), device=q.device) - (counts.cumsum(0) - counts)[query] + width
    shape = len(q), width + int(counts.max())
    distances = torch.full(shape, torch.inf, device=q.device)
    candidates = torch.zeros(shape, dtype=torch.int64, device=q.device)
    distances[:, :width], candidates[:, :width] = known, rows
    distances[query, place], candidates[query, place] = _distances(x, q, more, query), more
    nearest = distances.topk(width, dim=1, largest=False)
    return nearest.values, candidates.gather(1, nearest.indices), is_weak


def _distances(
    x: torch.Tensor, q: torch.Tensor, rows: torch.Tensor, query: torch.Tensor
) -> torch.Tensor:
    """Return squared distances of pairs from their differences, shape (n_pairs,)."""
    found = torch.empty(len(rows), device=x.device)
    if x.device.type == "cpu":  # without copies of the rows
        faiss = import_faiss()
        arrays = (t.numpy() for t in (x, rows, q, query, found))
        pointers = [faiss.swig_ptr(array) for array in arrays]
        faiss.pairwise_indexed_L2sqr(x.shape[1], len(rows), *pointers)
        return found
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        difference = x[rows[part]].sub_(q[query[part]])
        found[part] = difference.square_().sum(1)
    return found


def _gamma(dim: int) -> float:
    """Return four times γₙ: tensor cores cut off what float32's sums would round."""
    return 4 * (dim + _EXTRA) * 2.0**-24


def _train_columns(x: torch.Tensor, scale: float, n_rows: int) -> torch.Tensor:
    """Return x̂, ‖r_x‖, a bound of ‖x̂‖, and −‖x‖² / 2 in three terms, per row.

    Rows beyond those of `x`, which fill the last group, are never near.
    """
    n, dim = x.shape
    columns = torch.empty(n_rows, dim + _EXTRA, dtype=torch.bfloat16, device=x.device)
    columns[:, dim:] = 0
    for start in range(0, n, _CHUNK):
        part = x[start : start + _CHUNK] * scale
        out = columns[start : start + len(part)]
        out[:, :dim] = part
        norms = _norms(part)
        halves = norms.double().square() * (2 * _gamma(dim) - 1) / 2 + _SLACK
        for term in range(3):
            out[:, dim + 2 + term] = halves
            halves = halves - out[:, dim + 2 + term].double()
        lost = _norms(part.sub_(out[:, :dim]))
        out[:, dim], out[:, dim + 1] = _up(lost, dim), _up(norms + lost, dim)
    columns[n:, :dim], columns[n:, dim + 2] = 0, _NEVER
    return columns


def _query_columns(q: torch.Tensor, scale: float) -> torch.Tensor:
    """Return q̂, ‖q‖, ‖r_q‖ with the sum's error, and three times 1."""
    n, dim = q.shape
    columns = torch.zeros(n, dim + _EXTRA, dtype=torch.bfloat16, device=q.device)
    q = q * scale
    norms = _norms(q)
    columns[:, :dim] = q
    columns[:, dim] = _up(norms, dim)
    columns[:, dim + 1] = _up(_norms(q.sub_(columns[:, :dim])) + _gamma(dim) * norms, dim)
    columns[:, dim + 2 : dim + 5] = 1
    return columns


def _threshold(q: torch.Tensor, squared: torch.Tensor, scale: float) -> torch.Tensor:
    """Return what U is at least for every row as near as `squared`, rounded down to bfloat16."""
    error = _gamma(q.shape[1])
    lost = q.shape[1] * 2.0**-125  # squares of differences that underflow
    farthest = (squared.double() * (1 + error) + lost) * scale**2
    least = ((_norms(q).double() * scale).square() * (1 - error) - farthest) / 2
    return (least - least.abs() * (2.0**-8 + 2.0**-14)).bfloat16()


def _up(norms: torch.Tensor, dim: int) -> torch.Tensor:
    """Return bfloat16 numbers that are not below the true norms."""
    return (norms * (1 + _gamma(dim) + 2.0**-7)).bfloat16()


def _norms(points: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(points, dim=1)
    return norms


def _largest_norm(points: torch.Tensor) -> float:
    return float(_norms(points).max())


@contextmanager
def _sums_in_float32() -> Iterator[None]:
    """Keep a GPU from adding partial sums in bfloat16, which it does by default."""
    flags = torch.backends.cuda.matmul
    before = flags.allow_bf16_reduced_precision_reduction
    flags.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        flags.allow_bf16_reduced_precision_reduction = before

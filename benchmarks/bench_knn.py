"""Search and vote against raw faiss, torch, scikit-learn's trees, and the matrix product alone."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from benchmarks.measure import Result, compare, interleave, seconds
from medplus.heads.knn.fp32 import import_faiss
from medplus.heads.knn.search import search
from medplus.heads.knn.vote import vote_shares

SIZES = {2_000: 9, 20_000: 7, 100_000: 3}
"""Train rows, and rounds."""
N_QUERIES = {2_000: 1_000, 20_000: 1_000, 100_000: 2_000}
FASTER = {20_000: "≥ 3", 100_000: "≥ 5"}
"""Times as fast as faiss, where the processor has AMX."""
DIM, N_CLASSES, K = 768, 9, 11
KS = tuple(range(1, 21, 2))
TREE_QUERIES = 50


def run() -> list[Result]:
    return [result for n, rounds in SIZES.items() for result in _at(n, rounds)]


def _at(n: int, rounds: int) -> list[Result]:
    rng = np.random.default_rng(0)
    train = rng.standard_normal((n, DIM), dtype=np.float32)
    queries = rng.standard_normal((N_QUERIES[n], DIM), dtype=np.float32)
    labels = rng.integers(0, N_CLASSES, (n, 1))
    x, q = torch.from_numpy(train), torch.from_numpy(queries)

    def ours(ks: tuple[int, ...], backend: str = "auto") -> None:
        found = search(train, queries, max(ks), backend=backend, exact_distances=False)
        for k in ks:
            vote_shares(labels, found.indices[:, :k], found.distances[:, :k], N_CLASSES)

    # Where there is no faiss (a machine for make gpu), torch alone is the other.
    raw = {"faiss": lambda: import_faiss().knn(queries, train, K)} if find_spec("faiss") else {}
    times = interleave(
        {
            "ours": lambda: ours((K,)),
            **raw,
            "torch": lambda: _plain_torch(x, q),
            "product": lambda: q @ x.T,
            "ours, torch": lambda: ours((K,), "torch"),
            "ours, bf16": lambda: ours((K,), "bf16"),
            "many": lambda: ours(KS),
            "one": lambda: ours(KS[-1:]),
        },
        rounds,
    )
    rivals = [times[name] for name in (*raw, "torch")]
    better = [min(one) for one in zip(*rivals, strict=True)]
    what = f"{n:,} × {N_QUERIES[n]:,} × {DIM}"
    results = [
        compare(f"kNN search and vote ÷ the better of faiss and torch, {what}",
                times["ours"], better, "≤ 1.05"),
        *(compare(f"kNN search and vote ÷ raw faiss search, {what}",
                  times["ours"], times[name], "") for name in raw),
        compare(f"kNN search and vote ÷ the matrix product alone, {what}",
                times["ours"], times["product"], ""),
        compare(f"kNN torch backend ÷ torch.cdist and topk, {what}",
                times["ours, torch"], times["torch"], ""),
        *(compare(f"raw faiss search ÷ kNN bf16 backend, {what}",
                  times[name], times["ours, bf16"], FASTER.get(n, "")) for name in raw),
        compare(f"{len(KS)} values of k ÷ one, {what}", times["many"], times["one"], "≤ 1.05"),
    ]  # fmt: skip
    if n <= 20_000:
        results += _scikit_learn(train, queries, labels[:, 0], times["ours"], what)
    return results


def _plain_torch(x: torch.Tensor, q: torch.Tensor) -> None:
    distances = x.square().sum(1) - 2 * (q @ x.T)
    distances.topk(K, largest=False)


def _scikit_learn(train, queries, labels, ours, what) -> list[Result]:
    """Time 50 queries of the tree, which takes its time per query, and scale them."""
    tree = KNeighborsClassifier(K, algorithm="ball_tree").fit(train, labels)
    brute = NearestNeighbors(n_neighbors=K, algorithm="brute").fit(train)
    scale = len(queries) / TREE_QUERIES
    slow = [scale * seconds(lambda: tree.predict(queries[:TREE_QUERIES])) for _ in range(3)]
    plain = [seconds(lambda: brute.kneighbors(queries)) for _ in range(3)]
    goal = "≥ 130" if len(train) == 20_000 else ""
    return [
        compare(f"scikit-learn ball tree ÷ kNN search and vote, {what}", slow, ours[:3], goal),
        compare(f"scikit-learn brute force ÷ kNN search and vote, {what}", plain, ours[:3], ""),
    ]

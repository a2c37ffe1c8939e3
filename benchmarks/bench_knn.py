"""Search and vote against the raw faiss search and against scikit-learn's ball tree."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.measure import Result, compare, interleave, seconds
from medplus.heads.knn import search, vote_shares
from medplus.heads.knn.backends import faiss

N_TRAIN, N_QUERIES, DIM, N_CLASSES, K = 20_000, 1_000, 768, 9, 11
ROUNDS = 9
TREE_QUERIES = 100


def run() -> list[Result]:
    rng = np.random.default_rng(0)
    train = rng.standard_normal((N_TRAIN, DIM), dtype=np.float32)
    queries = rng.standard_normal((N_QUERIES, DIM), dtype=np.float32)
    labels = rng.integers(0, N_CLASSES, (N_TRAIN, 1))
    tree = KNeighborsClassifier(K, algorithm="ball_tree").fit(train, labels[:, 0])

    def ours() -> None:
        found = search(train, queries, K, exact_distances=False)
        vote_shares(labels, found.indices, found.distances, N_CLASSES)

    def torch_backend() -> None:
        found = search(train, queries, K, backend="torch", exact_distances=False)
        vote_shares(labels, found.indices, found.distances, N_CLASSES)

    times = interleave(
        {"ours": ours, "faiss": lambda: faiss.knn(queries, train, K), "torch": torch_backend},
        ROUNDS,
    )
    # The tree takes its time per query; a tenth of them says enough.
    scale = N_QUERIES / TREE_QUERIES
    slow = [scale * seconds(lambda: tree.predict(queries[:TREE_QUERIES])) for _ in range(3)]
    size = f"{N_TRAIN:,} × {N_QUERIES:,} × {DIM}"
    return [
        compare(f"kNN search and vote ÷ raw faiss search, {size}", times["ours"], times["faiss"],
                "≤ 1.15"),
        compare(f"kNN torch backend ÷ raw faiss search, {size}", times["torch"], times["faiss"],
                ""),
        compare(f"scikit-learn ball tree ÷ kNN search and vote, {size}", slow, times["ours"][:3],
                "≥ 100"),
    ]  # fmt: skip

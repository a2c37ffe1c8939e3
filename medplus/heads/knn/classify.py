"""The kNN protocol on embedding stores: one search, every k, val and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from medplus.config import KnnRecipe, make_recipe
from medplus.cost import measure_cost
from medplus.device import check_device_name, resolve_device
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import RunError
from medplus.heads.features import JoinedRows
from medplus.heads.folded import Made
from medplus.heads.knn.backends import check_backend
from medplus.heads.knn.vote import vote_shares
from medplus.heads.stored import Stores, plan_head, read_splits, run_heads
from medplus.run.folds import Folds
from medplus.run.plan import RunPlan
from medplus.run.record import RunRecord
from medplus.run.scoring import EVALUATED, score_splits
from medplus.vocabulary import MULTI_LABEL, PAPER_K, Split


def knn(
    stores: Stores,
    k: int | Sequence[int] = PAPER_K,
    *,
    metric: str = "l2",
    vote: str = "majority",
    backend: str = "auto",
    device: str = "auto",
    runs: str | Path = "runs",
    overwrite: bool = False,
    exclude: str | Path | None = None,
    folds: Folds | None = None,
) -> list[RunRecord]:
    """Classify val and test by the nearest training embeddings; one record per store and k.

    The defaults are the paper's protocol: k = 11, Euclidean distance, majority vote, ties to the
    smallest class; multi-label by the mean of the neighbours' labels > 0.5. Runs that exist are
    not computed again.

    Parameters
    ----------
    stores : EmbeddingStore, path, or several of them
    k : int or sequence of int
        Numbers of neighbours; one search serves them all.
    metric : {"l2", "cosine"}
    vote : {"majority", "distance"}
    backend : {"auto", "faiss", "torch", "bf16"}
        What searches. It decides the speed and nothing else: results are equal, and so is the run.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    runs : str or Path
        Root of the runs.
    overwrite : bool
        Compute again what exists.
    exclude : str or Path, optional
        A ``suspects.csv`` of `medplus.audit`: rows whose verdict says exclude take no part.
    folds : medplus.run.folds.Folds, optional
        Cross-validate: one record per repeat, each fold with the best k on its val rows.

    Returns
    -------
    list of RunRecord
        In the order of stores and k; `selected` marks each store's best k by val accuracy.

    Raises
    ------
    UsageError, StoreError, RunError
        If an option is not allowed, a store cannot be read, or `k` exceeds the train split.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> [run.k for run in medplus.knn(store, k=[1, 5])]
    [1, 5]
    """
    recipe = make_recipe(KnnRecipe, {"k": k, "metric": metric, "vote": vote})
    check_backend(backend)
    check_device_name(device)

    def plan(store: EmbeddingStore) -> list[RunPlan]:
        return [
            plan_head(store, "knn", f"k{number}-{metric}-{vote}", fields, fields, runs)
            for number in dict.fromkeys(recipe.k)
            for fields in [{"k": number, "metric": metric, "vote": vote}]
        ]

    def run(store: EmbeddingStore, plans: list[RunPlan]) -> Iterator[Made]:
        return _run(store, recipe, plans, backend, device)

    return run_heads(stores, plan, run, overwrite, exclude, folds=folds)


def _run(
    store: EmbeddingStore, recipe: KnnRecipe, plans: list[RunPlan], backend: str, device: str
) -> Iterator[Made]:
    from medplus.heads.knn.search import search

    info = store.info
    splits = read_splits(store)
    train = splits["train"]
    largest = max(plan.fields["k"] for plan in plans)
    if largest > len(train.labels):
        raise RunError(
            f"{store.path}: k = {largest} exceeds the {len(train.labels)} rows of its train split; "
            "use a smaller k"
        )
    with measure_cost(resolve_device(device)) as meter:
        # Val and test in one search; neighbours come nearest first, so the largest k serves all.
        found = search(
            train.embeddings,
            JoinedRows(tuple(splits[split].embeddings for split in EVALUATED)),
            largest,
            metric=recipe.metric,
            backend=backend,
            device=device,
            exact_distances=recipe.vote == "distance",
        )
        shares = [
            vote_shares(
                train.labels,
                found.indices[:, : plan.fields["k"]],
                found.distances[:, : plan.fields["k"]],
                len(info.classes),
                recipe.vote,
                multi_label=info.task == MULTI_LABEL,
            )
            for plan in plans
        ]
    queries = len(found.indices)
    cost = {
        **meter.cost(images=queries),
        "backend": found.backend,
        "shared_by": len(plans),
        "queries": queries,
    }
    boundary = len(splits["val"].labels)
    for plan, share in zip(plans, shares, strict=True):
        scores: dict[Split, np.ndarray] = {"val": share[:boundary], "test": share[boundary:]}
        metrics, predictions = score_splits(splits, scores, info.task)
        yield plan.record(metrics, meter.seconds, cost), predictions, {}

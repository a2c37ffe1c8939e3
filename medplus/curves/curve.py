"""Learning curves on embedding stores: from stores to points, fits, a figure and a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from medplus.config import as_tuple, probe_recipe
from medplus.curves.draws import draw
from medplus.datasets.exclusion import read_exclusion
from medplus.device import check_device_name, resolve_device
from medplus.embeddings.derived import without
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import UsageError
from medplus.heads.stored import Stores, identity_of, open_stores, read_splits
from medplus.progress import Progress, silent
from medplus.run.folds import Folds

if TYPE_CHECKING:
    from medplus.curves.kept import Curve
    from medplus.curves.points import Data, Point, Tune

PROTOCOLS = ("probe", "knn")


def curve(
    stores: Stores,
    shots: int | Sequence[int] | None = None,
    fractions: float | Sequence[float] | None = None,
    *,
    episodes: int = 10,
    seeds: int | Sequence[int] = 1,
    protocols: str | Sequence[str] = "probe",
    tune: Tune = "val",
    target: float = 0.9,
    lr: float | Sequence[float] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    patience: int | None = None,
    device: str = "auto",
    runs: str | Path | None = "runs",
    exclude: str | Path | None = None,
    folds: Folds | None = None,
    progress: Progress = silent,
) -> Curve:
    """Score heads that learn from few images of each class, and say what more would bring.

    Episodes draw the images; within one, smaller amounts lie in larger ones, and all backbones get
    the same. A head is what `medplus.probe` or `medplus.knn` would make of the subset.

    Parameters
    ----------
    stores : EmbeddingStore, path, or several of them
        Of one dataset at one size, one per backbone.
    shots : int or sequence of int, optional
        Images of each class; by default 1, 2, 5, 10, … as far as the smallest class has them,
        unless there are fractions.
    fractions : float or sequence of float, optional
        Shares of each class, above 0 and at most 1.
    episodes : int
    seeds : int or sequence of int
        Of the probes' initial weights and orders.
    protocols : {"probe", "knn"} or both
    tune : {"val", "shots"}
        Who chooses the learning rate or k: the val split, or folds within the subset, which is all
        that somebody with so few labels has.
    target : float
        The accuracy for which the number of labels is wanted.
    lr, epochs, batch_size, patience
        By default those of the probe's recipe ``grid``: 13 learning rates.
    device : str
    runs : str, Path or None
        Root of the runs, below which the curve is kept for reports; None keeps it nowhere.
    exclude : str or Path, optional
        A ``suspects.csv`` of `medplus.audit`: rows whose verdict says exclude take no part.
    folds : medplus.run.folds.Folds, optional
        Draw within the train rows of every fold, and test on its test rows; intervals are then over
        folds.
    progress : Progress

    Raises
    ------
    UsageError, StoreError, RunError
        If an option is not allowed or a store cannot be read.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> found = medplus.curve(store, shots=[1, 5], episodes=2)
    >>> found.series[0].n.tolist()  # train images: two classes
    [2, 10]
    """
    from medplus.curves.kept import Curve, keep
    from medplus.curves.neighbours import knn_points
    from medplus.curves.probes import probe_points
    from medplus.curves.summary import to_series

    protocols, shots, fractions = as_tuple(protocols) or (), as_tuple(shots), as_tuple(fractions)
    _check(episodes, protocols, tune, target, fractions)
    check_device_name(device)
    opened = open_stores(stores)
    if exclude is not None:
        exclusion = read_exclusion(exclude)
        opened = [without(store, exclusion) for store in opened]
    first = _one_dataset(opened)
    recipe = probe_recipe(
        "grid",
        seeds=seeds,
        lr=lr,
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
    )
    draws = draw(first, shots, fractions, episodes, tune, folds)
    points: list[Point] = []
    for store in opened:
        name = store.info.backbone
        heads = sum(len(recipe.seeds) if p == "probe" else 1 for p in protocols)
        total = heads * sum(len(one.subsets) for one in draws)
        with progress(f"{store.info.dataset} · {name}", total, "head") as advance:
            for one in draws:
                data = _data(one.of(store), device)
                for protocol in protocols:
                    found = (
                        probe_points(data, name, one.subsets, recipe, tune, advance)
                        if protocol == "probe"
                        else knn_points(data, name, one.subsets, tune, advance)
                    )
                    points += [one.placed(point) for point in found]
    info = first.info
    made = Curve(
        info.dataset, info.size, info.dataset_digest, tune, target,
        sum(one.n_test for one in draws if not one.repeat),
        to_series(points, draws[0].n_train, draws[0].ratio),
        {store.info.backbone: store.key for store in opened},
        {
            "stores": [[store.key, identity_of(store)] for store in opened],
            "amounts": sorted({str(amount) for one in draws for _, amount in one.subsets}),
            "episodes": episodes, "protocols": list(protocols), "tune": tune, "target": target,
            "recipe": recipe.model_dump(mode="json"),
            "folds": folds and [folds.n, folds.repeats, folds.pool],
        },
        points=points,
    )  # fmt: skip
    return made if runs is None else replace(made, path=keep(made, Path(runs)))


def _check(
    episodes: int,
    protocols: Sequence[str],
    tune: str,
    target: float,
    fractions: Sequence[float] | None,
) -> None:
    from medplus.curves.points import Tune

    if episodes < 1:
        raise UsageError(f"--episodes {episodes} must be at least 1")
    for name in protocols:
        if name not in PROTOCOLS:
            raise UsageError(f"unknown protocol '{name}' ({', '.join(PROTOCOLS)})")
    if tune not in get_args(Tune):
        raise UsageError(f"--tune '{tune}' is none of {', '.join(get_args(Tune))}")
    if not 0 < target < 1:
        raise UsageError(f"--target {target:g} must be an accuracy between 0 and 1, such as 0.9")
    for fraction in fractions or ():
        if not 0 < fraction <= 1:
            raise UsageError(f"--fractions {fraction:g} must be above 0 and at most 1")


def _one_dataset(stores: Sequence[EmbeddingStore]) -> EmbeddingStore:
    if not stores:
        raise UsageError("a curve needs at least one store")
    first = stores[0].info
    for store in stores[1:]:
        info = store.info
        if (info.dataset_digest, info.size) != (first.dataset_digest, first.size):
            raise UsageError(
                f"a curve is of one dataset at one size, not of {first.dataset} at {first.size} px "
                f"and {info.dataset} at {info.size} px; name one --dataset and one --size"
            )
    names = [store.info.backbone for store in stores]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"two stores are of backbone '{twice}'; name one with --key")
    return stores[0]


def _data(store: EmbeddingStore, device: str) -> Data:
    from medplus.curves.points import Data

    splits = read_splits(store)
    return Data(
        {split: own.embeddings.whole() for split, own in splits.items()},
        {split: own.labels for split, own in splits.items()},
        len(store.info.classes),
        store.info.task,
        str(resolve_device(device)),
    )

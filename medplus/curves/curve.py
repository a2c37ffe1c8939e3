"""Learning curves on embedding stores: from stores to points, fits, a figure and a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from medplus import atomic
from medplus.config import probe_recipe
from medplus.curves.subsets import Amount, check_amounts, draw_subsets
from medplus.device import check_device_name, resolve_device
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import RunError, UsageError
from medplus.heads.stored import StoredSplit, Stores, open_stores, read_splits
from medplus.progress import Progress, silent
from medplus.vocabulary import MULTI_LABEL, Split

if TYPE_CHECKING:
    from medplus.curves.points import Point, Tune
    from medplus.curves.powerlaw import PowerLaw
    from medplus.curves.summary import Crossing, Series

SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Images per class where none are named, as far as the smallest class has them."""
PROTOCOLS = ("probe", "knn")


@dataclass(frozen=True)
class Curve:
    """The curves of some backbones on one dataset at one size.

    Attributes
    ----------
    dataset : str
    size : int
    tune : {"val", "shots"}
    target : float
        The accuracy asked for.
    n_test : int
    points : list of Point
    series : list of Series
    crossings : list of Crossing
    laws : list of PowerLaw
        In the order of series.
    files : list of Path
    """

    dataset: str
    size: int
    tune: Tune
    target: float
    n_test: int
    points: list[Point]
    series: list[Series]
    crossings: list[Crossing]
    laws: list[PowerLaw]
    files: list[Path]

    def sentences(self) -> list[str]:
        """Return what the curves say: fits, crossings, and what the test split leaves open."""
        from medplus.curves.sentences import of_crossings, of_law, of_test

        return [
            *(of_law(one, law) for one, law in zip(self.series, self.laws, strict=True)),
            *of_crossings(self.crossings),
            of_test(self.series, self.n_test),
            *(["Files: " + ", ".join(map(str, self.files))] if self.files else []),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "dataset": self.dataset,
            "size": self.size,
            "tune": self.tune,
            "target": self.target,
            "n_test": self.n_test,
            "points": [point.to_dict() for point in self.points],
            "summary": [row for one in self.series for row in one.to_dict()],
            "crossings": [asdict(crossing) for crossing in self.crossings],
            "fits": [
                {**one.named, **law.to_dict()}
                for one, law in zip(self.series, self.laws, strict=True)
            ],
            "sentences": self.sentences(),
            "files": [str(path) for path in self.files],
        }


def curve(
    stores: Stores,
    shots: Sequence[int] | None = None,
    fractions: Sequence[float] | None = None,
    *,
    episodes: int = 10,
    seeds: Sequence[int] = (1,),
    protocols: Sequence[str] = ("probe",),
    tune: Tune = "val",
    target: float = 0.9,
    lr: Sequence[float] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    patience: int | None = None,
    device: str = "auto",
    out: str | Path | None = None,
    progress: Progress = silent,
) -> Curve:
    """Score heads that learn from few images of each class, and say what more would bring.

    Episodes draw the images; within one, smaller amounts lie in larger ones, and all backbones get
    the same. A head is what `medplus.probe` or `medplus.knn` would make of the subset.

    Parameters
    ----------
    stores : EmbeddingStore, path, or several of them
        Of one dataset at one size, one per backbone.
    shots : sequence of int, optional
        Images of each class; by default 1, 2, 5, 10, … as far as the smallest class has them,
        unless there are fractions.
    fractions : sequence of float, optional
        Shares of each class, above 0 and at most 1.
    episodes : int
    seeds : sequence of int
        Of the probes' initial weights and orders.
    protocols : sequence of {"probe", "knn"}
    tune : {"val", "shots"}
        Who chooses the learning rate or k: the val split, or folds within the subset, which is all
        that somebody with so few labels has.
    target : float
        The accuracy for which the number of labels is wanted.
    lr, epochs, batch_size, patience
        By default those of the probe's recipe ``grid``: 13 learning rates.
    device : str
    out : str or Path, optional
        Folder of ``curve.json`` and of the figure ``curve.png``, ``.svg`` and ``.pdf``.
    progress : Progress

    Raises
    ------
    UsageError, StoreError, RunError
        If an option is not allowed or a store cannot be read.
    """
    from medplus.curves.neighbours import knn_points
    from medplus.curves.probes import probe_points
    from medplus.curves.summary import find_crossings, fit, to_series

    _check(episodes, protocols, tune, target, fractions)
    check_device_name(device)
    opened = open_stores(stores)
    first = _one_dataset(opened)
    recipe = probe_recipe(
        "grid",
        seeds=tuple(seeds),
        lr=None if lr is None else tuple(lr),
        epochs=epochs,
        batch_size=batch_size,
        patience=patience,
    )
    amounts: list[Amount] = []
    subsets: dict[tuple[int, Amount], np.ndarray] = {}
    points: list[Point] = []
    n_test = first.info.n_samples["test"]
    for store in opened:
        splits = read_splits(store)
        if not amounts:
            amounts, subsets = _subsets(store, splits, shots, fractions, episodes, tune)
        data = _data(store, splits, device)
        name = store.info.backbone
        total = len(subsets) * sum(len(recipe.seeds) if p == "probe" else 1 for p in protocols)
        with progress(f"{store.info.dataset} · {name}", total, "head") as advance:
            for protocol in protocols:
                points += (
                    probe_points(data, name, subsets, recipe, tune, advance)
                    if protocol == "probe"
                    else knn_points(data, name, subsets, tune, advance)
                )
    series = to_series(points, first.info.n_samples["train"])
    laws = [fit(one, target, n_test) for one in series]
    made = Curve(
        first.info.dataset, first.info.size, tune, target, n_test, points, series,
        find_crossings(series), laws, [],
    )  # fmt: skip
    if out is not None:
        _write(made, Path(out))
    return made


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


def _subsets(
    store: EmbeddingStore,
    splits: dict[Split, StoredSplit],
    shots: Sequence[int] | None,
    fractions: Sequence[float] | None,
    episodes: int,
    tune: str,
) -> tuple[list[Amount], dict[tuple[int, Amount], np.ndarray]]:
    """Return the amounts and the rows of every episode and amount, once they can be had."""
    info = store.info
    labels = splits["train"].labels
    many = info.task == MULTI_LABEL
    if many and (shots or not fractions):
        raise UsageError(
            f"{info.dataset} has several labels per image, so that there are no images per class; "
            "use --fractions instead of --shots"
        )
    strata = np.zeros(len(labels), np.int64) if many else labels[:, 0].astype(np.int64)
    if not shots and not fractions:
        smallest = np.unique(strata, return_counts=True)[1].min()
        shots = [n for n in SHOTS if n <= smallest]
    amounts = [Amount(shots=n) for n in sorted(set(shots or ()))]
    amounts += [Amount(fraction=share) for share in sorted(set(fractions or ()))]
    if not many:
        check_amounts(amounts, strata, info.classes)
    subsets = draw_subsets(strata, amounts, episodes)
    for amount in amounts if tune == "shots" else ():
        taken = subsets[0, amount]
        if np.unique(strata[taken], return_counts=True)[1].min() < 2:
            raise UsageError(
                f"--tune shots needs two images of each class for its folds, and {amount} "
                "gives one; leave it out, or use --tune val"
            )
    return amounts, subsets


def _data(store: EmbeddingStore, splits: dict[Split, StoredSplit], device: str) -> Any:
    from medplus.curves.points import Data

    return Data(
        {split: own.embeddings.whole() for split, own in splits.items()},
        {split: own.labels for split, own in splits.items()},
        len(store.info.classes),
        store.info.task,
        str(resolve_device(device)),
    )


def _write(made: Curve, folder: Path) -> None:
    from medplus.curves.figure import draw_curve
    from medplus.reporting.figures import FORMATS, render

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise RunError(f"--out {folder} is a file; name a folder") from None
    title = f"{made.dataset} at {made.size} px: how many labels?"
    figure = draw_curve(made.series, made.laws, title, made.target)
    for ending in FORMATS:
        path = folder / f"curve.{ending}"
        atomic.write_bytes(path, render(figure, ending))
        made.files.append(path)
    document = folder / "curve.json"
    made.files.append(document)
    atomic.write_json(document, made.to_dict())

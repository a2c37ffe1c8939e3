"""What a curve learns from and is tested on: a store as it is, or every fold of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from medplus.curves.subsets import Amount, check_amounts, draw_subsets
from medplus.embeddings.derived import view_of
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import UsageError
from medplus.heads.folded import deal_store
from medplus.run.folds import Folds, parts_of
from medplus.vocabulary import MULTI_LABEL, Split

if TYPE_CHECKING:
    from medplus.curves.points import Point

SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Images per class where none are named, as far as the smallest class has them."""


@dataclass(frozen=True)
class Draw:
    """The subsets of one train split.

    Attributes
    ----------
    subsets : mapping of (episode, amount) to ndarray of int64
        Rows of train.
    n_train, n_test : int
    repeat, fold : int or None
    rows : mapping of split to ndarray of int64, or None
        The fold's rows of the store; None is the store as it is.
    """

    subsets: Mapping[tuple[int, Amount], np.ndarray]
    n_train: int
    n_test: int
    repeat: int | None = None
    fold: int | None = None
    rows: Mapping[Split, np.ndarray] | None = None

    @property
    def ratio(self) -> float | None:
        """Test rows to train rows of a fold."""
        return None if self.rows is None else self.n_test / self.n_train

    def of(self, store: EmbeddingStore) -> EmbeddingStore:
        """Return what the subsets are of."""
        return store if self.rows is None else view_of(store, self.rows)

    def placed(self, point: Point) -> Point:
        """Return a point with its fold, and its rows as the store counts them."""
        if self.rows is None:
            return point
        rows = self.rows["train"][point.rows]
        return replace(point, rows=rows, repeat=self.repeat, fold=self.fold)


def draw(
    store: EmbeddingStore,
    shots: Sequence[int] | None,
    fractions: Sequence[float] | None,
    episodes: int,
    tune: str,
    folds: Folds | None,
) -> list[Draw]:
    """Draw the rows of every episode and amount, of train or of every fold's train.

    Parameters
    ----------
    shots, fractions, episodes, tune, folds
        As for `medplus.curve`.

    Raises
    ------
    UsageError
        If there are not so many images.
    """
    info = store.info
    many = info.task == MULTI_LABEL
    if many and (shots or not fractions):
        raise UsageError(
            f"{info.dataset} has several labels per image, so that there are no images per class; "
            "use --fractions instead of --shots"
        )
    blank = Draw({}, info.layout("train").shape[0], info.n_samples["test"])
    empty = [blank] if folds is None else list(_folds(store, folds))
    strata = [_strata(one.of(store), many) for one in empty]
    if not shots and not fractions:
        smallest = min(np.unique(own, return_counts=True)[1].min() for own in strata)
        shots = [n for n in SHOTS if n <= smallest]
    amounts = [Amount(shots=n) for n in sorted(set(shots or ()))]
    amounts += [Amount(fraction=share) for share in sorted(set(fractions or ()))]
    found = []
    for one, own in zip(empty, strata, strict=True):
        if not many:
            check_amounts(amounts, own, info.classes)
        subsets = draw_subsets(own, amounts, episodes)
        for amount in amounts if tune == "shots" else ():
            if np.unique(own[subsets[0, amount]], return_counts=True)[1].min() < 2:
                raise UsageError(
                    f"--tune shots needs two images of each class for its folds, and {amount} "
                    "gives one; leave it out, or use --tune val"
                )
        found.append(replace(one, subsets=subsets))
    return found


def _folds(store: EmbeddingStore, folds: Folds) -> list[Draw]:
    found = []
    for repeat in range(folds.repeats):
        dealt = deal_store(store, folds, repeat)
        for number in range(folds.n):
            rows = parts_of(dealt, number)
            sizes = len(rows["train"]), len(rows["test"])
            found.append(Draw({}, *sizes, repeat, number, rows))
    return found


def _strata(store: EmbeddingStore, many: bool) -> np.ndarray:
    labels = store.labels("train")
    return np.zeros(len(labels), np.int64) if many else labels[:, 0].astype(np.int64)

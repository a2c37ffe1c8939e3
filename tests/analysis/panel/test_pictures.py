"""Nearest train images: those of a fold, and of embeddings that were made of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from medplus.analysis.panel import panel
from medplus.analysis.panel.errors import confident_mistakes
from medplus.analysis.panel.pictures import neighbours_of
from medplus.embeddings.derived import DerivedStore
from medplus.embeddings.transform import Transform
from medplus.heads.knn import knn
from medplus.run.folds import Folds

pytestmark = pytest.mark.usefixtures("fast_disk")
SIZES = (60, 24, 30)


@pytest.fixture(scope="module")
def store(write_store):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, n) for n in SIZES]
    values = [(rng.normal(size=(n, 5)) + y[:, None] / 3).astype("f4") for n, y in
              zip(SIZES, labels, strict=True)]  # fmt: skip
    return write_store(values, labels)


def test_the_nearest_of_a_folds_case_are_among_what_its_fold_learned_from(store, tmp_path):
    [record] = knn(store, 3, runs=tmp_path, folds=Folds(4))
    found = panel(record.path)
    cases = confident_mistakes(found)
    x = np.concatenate([store.embeddings(split) for split in ("train", "val")])
    y = np.concatenate([store.labels(split) for split in ("train", "val")])[:, 0]
    tests = [test for _, test in StratifiedKFold(4, shuffle=True, random_state=0).split(x, y)]
    names = [f"train/{i}" for i in range(60)] + [f"val/{i}" for i in range(24)]
    assert cases
    for case, near in zip(cases, neighbours_of(found, cases, 2), strict=True):
        fold = next(i for i, test in enumerate(tests) if case.row in test)
        rest = [tests[i] for i in range(4) if i not in (fold, (fold + 1) % 4)]
        learned = np.sort(np.concatenate(rest))
        far = ((x[learned] - x[case.row]) ** 2).sum(1)
        expected = [names[i] for i in learned[far.argsort()[:2]]]
        assert [text.partition(" ")[0] for text in near] == expected


def test_the_nearest_of_derived_embeddings_are_so_in_them(store, tmp_path):
    derived = DerivedStore([store], Transform.parse("l2"))
    [record] = knn(derived, 3, runs=tmp_path)
    assert Path(record.path).exists()
    found = panel(record.path)
    cases = confident_mistakes(found)
    train, test = (derived.embeddings(split) for split in ("train", "test"))
    for case, near in zip(cases, neighbours_of(found, cases, 1), strict=True):
        at = ((train - test[case.row]) ** 2).sum(1).argmin()
        assert near[0].startswith(f"train/{at} ")

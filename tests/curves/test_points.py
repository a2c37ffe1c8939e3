"""Points of a curve: each is what a plain loop, or scikit-learn, makes of the same rows."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from medplus.curves.curve import curve as curve_of
from medplus.errors import UsageError
from medplus.vocabulary import MULTI_LABEL

pytestmark = [
    pytest.mark.usefixtures("fast_disk"),
    pytest.mark.filterwarnings("ignore:The epoch parameter in:UserWarning"),
]
curve = partial(curve_of, runs=None)
RATES = (1e-3, 1e-2, 1e-1)
QUICK = {"epochs": 12, "patience": 3, "batch_size": 8, "lr": RATES}
SIZES = (90, 40, 50)


def clouds(seed=0, dim=6, n_classes=3, sizes=SIZES):
    rng = np.random.default_rng(seed)
    centres = 1.2 * rng.normal(size=(n_classes, dim))
    labels = [rng.integers(0, n_classes, n) for n in sizes]
    return [(centres[y] + rng.normal(size=(len(y), dim))).astype("f4") for y in labels], labels


@pytest.fixture(scope="module")
def store(write_store):
    return write_store(*clouds())


def plain(x, y, val, recipe, seed, lr, stop=True):
    """Train one head as the paper's code does; without `stop` for all epochs, val unseen."""
    torch.manual_seed(seed)
    head = nn.Linear(x.shape[1], 3)
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=recipe["epochs"])
    best, least, waited = head, float("inf"), 0
    for epoch in range(recipe["epochs"]):
        for rows in torch.randperm(len(x)).split(recipe["batch_size"]):
            optimiser.zero_grad()
            nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            optimiser.step()
        schedule.step(epoch)
        if not stop:
            continue
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(head(val[0]), val[1]))
        if loss < least:
            best, least, waited = copy.deepcopy(head), loss, 0
        else:
            waited += 1
            if waited == recipe["patience"]:
                break
    return best


def tensors(store, split):
    labels = store.labels(split)[:, 0].astype("i8")
    return torch.from_numpy(store.embeddings(split)), torch.from_numpy(labels)


def share(head, x, y):
    with torch.no_grad():
        return float((head(x).argmax(1) == y).float().mean())


def test_a_probe_is_the_plain_loops_on_the_same_rows_with_the_rate_that_val_chooses(store):
    made = curve(store, (2, 5, 9), (0.5,), episodes=2, seeds=(3, 4), **QUICK)
    (x, y), val, test = (tensors(store, split) for split in ("train", "val", "test"))
    assert len(made.points) == 4 * 2 * 2
    for point in made.points:
        heads = [plain(x[point.rows], y[point.rows], val, QUICK, point.seed, lr) for lr in RATES]
        accuracies = [share(head, *val) for head in heads]
        at = RATES.index(point.lr)
        assert accuracies[at] == max(accuracies)
        assert point.val_acc == pytest.approx(accuracies[at])
        assert point.test_acc == pytest.approx(share(heads[at], *test))


def test_tuned_within_its_shots_a_probe_never_sees_val(store):
    made = curve(store, (4,), episodes=2, seeds=(3,), tune="shots", **QUICK)
    (x, y), val, test = (tensors(store, split) for split in ("train", "val", "test"))
    for point in made.points:
        folds = StratifiedKFold(4, shuffle=True, random_state=0)
        loss = np.zeros(len(RATES))
        own, truth = x[point.rows], y[point.rows]
        for kept, held in folds.split(own, truth):
            for i, lr in enumerate(RATES):
                head = plain(own[kept], truth[kept], None, QUICK, 3, lr, stop=False)
                with torch.no_grad():
                    loss[i] += float(
                        nn.functional.cross_entropy(head(own[held]), truth[held], reduction="sum")
                    )
        assert point.lr == RATES[loss.argmin()]
        head = plain(own, truth, None, QUICK, 3, point.lr, stop=False)
        assert point.test_acc == pytest.approx(share(head, *test))
        assert point.val_acc == pytest.approx(share(head, *val))


def test_neighbours_are_scikit_learns_on_the_same_rows(store):
    made = curve(store, (3, 9), episodes=2, protocols=("knn",))
    for point in made.points:
        model = KNeighborsClassifier(point.k, algorithm="brute")
        model.fit(store.embeddings("train")[point.rows], store.labels("train")[point.rows, 0])
        for split, found in (("val", point.val_acc), ("test", point.test_acc)):
            expected = model.score(store.embeddings(split), store.labels(split)[:, 0])
            assert found == pytest.approx(expected)


@pytest.mark.parametrize("tune", ["val", "shots"])
def test_no_test_row_trains_or_chooses_even_where_an_oracle_is_planted(write_store, tune):
    embeddings, labels = clouds()
    planted, wrong = embeddings[2].copy(), (labels[2] + 1) % 3
    planted[:, :3] += 1000 * np.eye(3, dtype="f4")[wrong]
    honest = write_store(embeddings, labels)
    oracle = write_store([*embeddings[:2], planted], [*labels[:2], wrong])
    options = {**QUICK, "episodes": 2, "protocols": ("probe", "knn"), "tune": tune}
    one, other = (curve(each, (2, 6), **options) for each in (honest, oracle))
    assert [p.test_acc for p in one.points] != [p.test_acc for p in other.points]
    for a, b in zip(one.points, other.points, strict=True):
        assert (a.lr, a.k, a.val_acc) == (b.lr, b.k, b.val_acc)
        np.testing.assert_array_equal(a.rows, b.rows)
        assert a.rows.max() < SIZES[0]


def test_subsets_are_nested_balanced_and_the_same_for_every_backbone(write_store):
    embeddings, labels = clouds()
    stores = [write_store(embeddings, labels, backbone=name) for name in ("one", "other")]
    made = curve(stores, (1, 4), (0.5, 1.0), episodes=2, protocols=("knn",))
    rows = {
        (p.backbone, p.episode, p.amount.shots, p.amount.fraction): set(p.rows.tolist())
        for p in made.points
    }
    for episode in range(2):
        assert rows["one", episode, 1, None] < rows["one", episode, 4, None]
        assert rows["one", episode, None, 0.5] < rows["one", episode, None, 1.0]
        assert len(rows["one", episode, None, 1.0]) == SIZES[0]
    for (backbone, *rest), own in rows.items():
        assert own == rows["one", *rest], backbone
    counts = np.bincount(labels[0][sorted(rows["one", 0, 4, None])])
    np.testing.assert_array_equal(counts, 4)
    assert rows["one", 0, 4, None] != rows["one", 1, 4, None]


def test_images_of_several_labels_have_fractions_and_no_shots(write_store):
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 2, (n, 4)) for n in SIZES]
    embeddings = [(y @ rng.normal(size=(4, 6)) + rng.normal(size=(len(y), 6))) for y in labels]
    store = write_store([e.astype("f4") for e in embeddings], labels, task=MULTI_LABEL)
    with pytest.raises(UsageError, match="several labels per image"):
        curve(store, (2,))
    made = curve(store, fractions=(0.2,), episodes=2, tune="shots", **QUICK)
    assert [len(p.rows) for p in made.points] == [18, 18]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": (500,)}, "exceeds the smallest class of train, 'class .' with .. images"),
        ({"shots": (1,), "tune": "shots"}, "two images of each class"),
        ({"fractions": (1.5,)}, "above 0 and at most 1"),
        ({"shots": (2,), "target": 90.0}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(store, options, message):
    with pytest.raises(UsageError, match=message):
        curve(store, **options)


def test_one_value_stands_for_several(store):
    one = curve(store, 2, episodes=1, seeds=3, protocols="probe", **{**QUICK, "lr": 0.01})
    assert [(point.amount.shots, point.seed, point.lr) for point in one.points] == [(2, 3, 0.01)]
    [share] = curve(store, fractions=0.5, episodes=1, protocols="knn").points
    assert share.amount.fraction == 0.5

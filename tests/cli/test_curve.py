"""`medplus curve`: points, a table, a figure, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

QUICK = ("--epochs", 3, "--lr", "0.01,0.1")


@pytest.fixture(scope="module")
def root(write_store, new_folder):
    rng = np.random.default_rng(0)
    folder = new_folder()
    for name, noise in (("one", 1.0), ("other", 3.0)):
        labels = [rng.integers(0, 2, n) for n in (60, 30, 30)]
        embeddings = [(2 * y[:, None] + noise * rng.normal(size=(len(y), 4))) for y in labels]
        embeddings = [e.astype("f4") for e in embeddings]
        write_store(embeddings, labels, classes=2, backbone=name, root=folder,
                    task="binary-class")  # fmt: skip
    return folder


def test_points_and_files_as_json(cli, root, tmp_path):
    store = next(root.rglob("one-*.zarr"))
    done = cli("curve", "--store", store, "--shots", "1,5", "--episodes", 2, "--seed", "1,2",
               "--out", tmp_path / "out", "--json", *QUICK)  # fmt: skip
    assert done.code == 0, done.err
    points = done.document["points"]
    assert len(points) == 2 * 2 * 2
    fields = {"backbone", "shots", "episode", "seed", "lr", "val_acc", "test_acc", "rows"}
    assert fields <= set(points[0])
    assert [len(p["rows"]) for p in points] == [2 * p["shots"] for p in points]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["curve.json", "curve.pdf", "curve.png", "curve.svg"]


def test_the_table_is_followed_by_what_it_says(cli, root):
    store = next(root.rglob("one-*.zarr"))
    done = cli("curve", "--store", store, "--shots", "1,2,5,10", "--episodes", 3, *QUICK)
    assert done.code == 0, done.err
    assert "test ACC" in done.out
    assert "train images" in done.out or "cannot be said" in done.out
    assert "30 test images" in done.out


def test_too_many_shots_are_refused_in_a_sentence(cli, root):
    store = next(root.rglob("one-*.zarr"))
    done = cli("curve", "--store", store, "--shots", 5000)
    assert done.code == 2
    assert "smallest class" in done.err
    assert "Traceback" not in done.err


def test_backbones_are_joined_and_transformed_by_name(cli, root):
    done = cli("knn", "--dataset", "/data/toy.npz", "--size", 28, "--backbone", "one,one+other",
               "--transform", "l2", "--store", root, "--k", 3, "--folds", 3, "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert [run["backbone"] for run in done.document["runs"]] == ["one@l2", "one+other@l2"]
    assert [row["folds"] for row in done.document["folds"]] == [3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--transform", "pca:x"), "none of pca:N"),
        (("--repeats", 2), "goes with --folds"),
        (("--folds", 20, "--pool", "--k", 200), "exceeds"),
    ],
)
def test_what_cannot_be_derived_or_dealt_is_refused_in_a_sentence(cli, root, options, message):
    store = next(root.rglob("one-*.zarr"))
    done = cli("knn", "--store", store, *options)
    assert done.code in (1, 2)
    assert message in done.err
    assert "Traceback" not in done.err

"""The audit as a user runs it: planted faults are found, and verdicts are heeded."""

from __future__ import annotations

import csv
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from medplus.auditing.audit import audit
from medplus.errors import RunError, UsageError
from medplus.heads.knn import knn
from medplus.metrics import score
from medplus.run.ledger import read_predictions
from medplus.vocabulary import MULTI_LABEL, SPLITS
from tests.auditing.planted import FAULTS, scenes

pytestmark = pytest.mark.usefixtures("fast_disk")

SIZES = (120, 40, 60)
N_PLANTED = 10


@pytest.fixture(scope="module")
def made(write_npz, write_store, new_folder):
    """A dataset whose last test images are train images stored again, with store and runs."""
    rng = np.random.default_rng(0)
    pictures = scenes(sum(SIZES))
    labels = rng.integers(0, 2, sum(SIZES)).astype(np.uint8)
    faults = [*FAULTS.values()]
    for k in range(N_PLANTED):
        pictures[-1 - k] = faults[k % 5](pictures[k], rng) if k else pictures[0]
        labels[-1 - k] = labels[k]
    labels[5] ^= 1  # wrong beside its twin, and against what its embedding tells
    cuts = np.cumsum(SIZES)[:2]
    parts = dict(zip(SPLITS, np.split(pictures, cuts), strict=True))
    truth = dict(zip(SPLITS, np.split(labels[:, None], cuts), strict=True))
    folder = new_folder()
    npz = write_npz("toy", n=SIZES, size=28, folder=folder,
                    **{f"{s}_images": parts[s] for s in SPLITS},
                    **{f"{s}_labels": truth[s] for s in SPLITS})  # fmt: skip
    return folder, npz, parts, truth


@pytest.fixture(scope="module")
def store(made, write_store):
    from medplus.datasets.sources import load_dataset

    folder, npz, _, truth = made
    rng = np.random.default_rng(1)
    right = {s: y.copy() for s, y in truth.items()}
    right["train"][5] ^= 1
    embeddings = {
        s: (rng.normal(size=(len(y), 8)) + 6 * np.eye(8)[y[:, 0]]).astype(np.float32)
        for s, y in right.items()
    }
    digest = load_dataset(str(npz)).digest
    return write_store(
        embeddings, truth, root=folder / "embeddings", dataset_path=str(npz), classes=2,
        task="binary-class", dataset_digest=digest, warnings=["val has no image of a"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(made, store):
    folder = made[0]
    knn(store, k=3, runs=folder / "runs")
    return audit(store, out=folder / "audit", runs=folder / "runs")


def table(found):
    with (found.out / "suspects.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_what_was_stored_again_is_found_and_nothing_else(found):
    rows = [row for row in table(found) if row["kind"] in ("copy", "twin")]
    expected = {(str(SIZES[2] - 1 - k), f"train/{k}") for k in range(N_PLANTED)}
    assert {(row["index"], row["partner"]) for row in rows} == expected
    assert {row["split"] for row in rows} == {"test"}
    assert [row["partner"] for row in rows if row["kind"] == "copy"] == ["train/0"]


def test_the_wrong_label_ranks_first(found):
    first = next(row for row in table(found) if row["kind"] == "label")
    assert (first["name"], first["given"] != first["suggested"]) == ("train/5", True)


def test_scores_without_leaks_are_scikit_learns_on_the_rest(found):
    one = next(c for c in found.consequences if "twin" in c.what)
    predictions = read_predictions(found.out.parent / one.run)
    keep = predictions["test_index"] < SIZES[2] - N_PLANTED
    true, scores = predictions["test_true"][keep, 0], predictions["test_score"][keep]
    assert one.n_left_out == N_PLANTED
    assert one.acc.without == pytest.approx(accuracy_score(true, scores[:, 1] > 0.5))
    assert one.auc.without == pytest.approx(roc_auc_score(true, scores[:, 1]))
    low, high = one.acc.change_interval
    assert low <= one.acc.change <= high


def test_the_page_needs_nothing_else_and_shows_the_pairs(found):
    page = unescape(found.page.read_text())
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png") >= 2 * N_PLANTED
    assert "Read with care: val has no image of a." in page


def test_verdicts_stay_when_the_audit_is_repeated_and_heads_heed_them(made, store, found):
    folder = made[0]
    path = found.out / "suspects.csv"
    rows = table(found)
    for row in rows:
        row["verdict"] = "exclude" if row["kind"] in ("copy", "twin") else "keep"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    audit(store, out=folder / "audit", runs=folder / "runs")
    assert [row["verdict"] for row in table(found)] == [row["verdict"] for row in rows]
    audit(store, out=folder / "audit", runs=folder / "runs", threshold=1.0)  # finds only the copy
    decided = [{(r["split"], r["index"], r["kind"], r["verdict"]) for r in some}
               for some in (table(found), rows)]  # fmt: skip
    assert decided[0] == decided[1]

    (whole,) = knn(store, k=3, runs=folder / "runs")
    (record,) = knn(store, k=3, runs=folder / "runs", exclude=path)
    assert record.run_id != whole.run_id
    assert f"{N_PLANTED} images (10 of test) left out" in record.warnings[-1]
    predictions = read_predictions(folder / record.path)
    every = read_predictions(folder / whole.path)
    keep = np.arange(SIZES[2]) < SIZES[2] - N_PLANTED
    assert np.array_equal(predictions["test_index"], np.flatnonzero(keep))
    assert np.array_equal(predictions["test_score"], every["test_score"][keep])
    rest = score(every["test_true"][keep], every["test_score"][keep], "binary-class")
    assert record.metrics["test"]["acc"] == rest.acc


def test_without_images_embeddings_decide_and_it_is_said(write_store, tmp_path):
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(n, 16)).astype(np.float32) for n in (80, 20, 30)]
    x[2][4] = x[0][7] + 1e-4
    gone = write_store(x, [np.arange(len(part)) % 2 for part in x], classes=2)
    found = audit(gone, out=tmp_path / "audit", runs=tmp_path / "runs")
    assert "no images at hand" in found.notes[0]
    twins = [row for row in table(found) if row["kind"] == "twin"]
    assert [(row["split"], row["index"], row["partner"]) for row in twins] == [
        ("test", "4", "train/7")
    ]


def test_several_labels_per_image(write_store, tmp_path):
    rng = np.random.default_rng(0)
    y = [rng.integers(0, 2, (n, 3)) for n in (120, 40, 40)]
    x = [(rng.normal(size=(len(t), 8)) / 4 + np.pad(t, ((0, 0), (0, 5)))) for t in y]
    y[0][3, 1] ^= 1
    store = write_store([part.astype(np.float32) for part in x], y, task=MULTI_LABEL)
    found = audit(store, out=tmp_path / "audit", runs=tmp_path / "runs")
    first = next(row for row in table(found) if row["kind"] == "label")
    assert (first["split"], first["index"]) == ("train", "3")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"folds": 200}, UsageError, "--folds 200"),
        ({"folds": 1}, UsageError, "--folds 1: at least 2"),
        ({"threshold": 2.0}, UsageError, "--threshold 2"),
        ({"groups": "nowhere.csv"}, UsageError, "nowhere.csv is no table that can be read"),
    ],
)
def test_what_cannot_be_done_is_refused(store, tmp_path, options, error, words):
    with pytest.raises(error, match=words):
        audit(store, out=tmp_path / "audit", runs=tmp_path / "runs", **options)


def test_stores_of_other_images_or_of_hardly_any_are_refused(store, write_store, tmp_path):
    small = write_store([np.eye(4, dtype=np.float32)] * 3, [[0, 1, 2, 0]] * 3)
    with pytest.raises(UsageError, match="other images"):
        audit([store, small], out=tmp_path)
    with pytest.raises(RunError, match="12 images are too few"):
        audit(small, out=tmp_path)


def test_a_group_in_train_and_test_leaks(store, found, tmp_path):
    groups = tmp_path / "map.csv"
    lines = [f"{s},{i},{'p' if (s, i) in (('train', 9), ('test', 2)) else f'{s}{i}'}"
             for s, n in zip(SPLITS, SIZES, strict=True) for i in range(n)]  # fmt: skip
    groups.write_text("split,index,lesion\n" + "\n".join(lines) + "\n")
    again = audit(store, out=tmp_path / "audit", runs=tmp_path / "runs", groups=groups)
    new = np.setdiff1d(again.leaked, found.leaked)
    assert new.tolist() == [SIZES[0] + SIZES[1] + 2]


def test_the_command_prints_what_the_api_returns(cli, store, made):
    ran = cli("audit", "--store", store.path, "--runs", made[0] / "none", "--json")
    assert ran.code == 0
    assert ran.document["found"]["copy"] == 1
    assert ran.document["files"][0].endswith("audit/toy/28/suspects.csv")
    missing = cli(
        "audit", "--dataset", "toy", "--backbone", "nonet", "--store", made[0] / "embeddings"
    )
    assert missing.code in (1, 2) and "Traceback" not in missing.err


def test_runs_whose_predictions_are_damaged_take_no_part(store, tmp_path):
    runs = tmp_path / "runs"
    whole, damaged = knn(store, k=[3, 1], runs=runs)
    (Path(damaged.path) / "predictions.npz").write_bytes(b"PK")
    found = audit(store, out=tmp_path / "audit", runs=runs)
    assert {one.run for one in found.consequences} == {whole.path}

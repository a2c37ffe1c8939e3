"""A table of predictions: what is in it, what of it cannot be read, and how it is resumed."""

from __future__ import annotations

import csv
import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import medplus
from medplus.errors import UsageError
from medplus.metrics.temperature import scale
from medplus.prediction import predict as module
from medplus.run.ledger import read_predictions

pytestmark = pytest.mark.usefixtures("fast_disk")


@pytest.fixture
def predict(house, tmp_path):
    """Return a function that predicts with a run, and returns the rows and what is told of them."""

    def call(name, images, **options):
        out = tmp_path / "out" / "predictions.csv"
        given = {"store": house.store, "device": "cpu", **options}
        found = medplus.predict(house.runs[name].path, images, out, **given)
        return rows_of(out), found

    return call


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores_of(rows, dtype=np.float32):
    names = [name for name in rows[0] if name.startswith("p_")]
    return np.array([[dtype(row[name]) for name in names] for row in rows])


@pytest.fixture
def files(house, tmp_path):
    """The test images of the toy dataset as PNG files."""
    folder = tmp_path / "scans" / "deep"
    folder.mkdir(parents=True)
    for i, image in enumerate(np.load(house.npz("probe"))["test_images"]):
        Image.fromarray(image).save(folder / f"{i:02}.png")
    return folder.parent


@pytest.mark.parametrize("name", ["knn", "probe", "labels", "finetune"])
def test_an_npz_file_gives_the_runs_own_scores(name, house, predict):
    rows, found = predict(name, house.npz(name))
    saved = read_predictions(Path(house.runs[name].path))
    np.testing.assert_allclose(scores_of(rows), saved["test_score"], atol=1e-6)
    assert rows[3]["name"] == f"{house.npz(name).as_posix()}/test/3"
    assert found.document["n_predicted"] == len(rows) == len(saved["test_score"])


def test_files_give_what_the_array_of_them_gives(files, house, predict):
    rows, _ = predict("probe", files)
    again, _ = predict("probe", house.npz("probe"), overwrite=True)
    assert [row["name"] for row in rows][:2] == [
        (files / "deep" / f"{i:02}.png").as_posix() for i in (0, 1)
    ]
    for row in (*rows, *again):
        row.pop("name")
    assert rows == again


def test_a_folder_dataset_is_read_as_it_was(pictures, tmp_path):
    """Images of several shapes, in colour and grey, are brought to the run's size by its policy."""
    where = {"store": tmp_path, "device": "cpu"}
    store = medplus.extract(str(pictures), 8, "pixels", **where)
    [run] = medplus.probe(store, 1, lr=0.01, epochs=2, runs=tmp_path / "runs", device="cpu")
    found = medplus.predict(run.path, pictures / "test", tmp_path / "p.csv", **where)
    saved = read_predictions(Path(run.path))
    place = {name: i for i, name in enumerate(saved["test_name"].tolist())}
    rows = rows_of(found.path)
    order = [place[Path(row["name"]).relative_to(pictures).as_posix()] for row in rows]
    np.testing.assert_allclose(scores_of(rows), saved["test_score"][order], atol=1e-6)
    assert sorted(order) == list(range(12))
    assert found.document["notes"] == []


def test_what_is_predicted_is_what_the_run_would_say(house, predict):
    rows, _ = predict("probe", house.npz("probe"))
    assert [row["predicted"] for row in rows] == [str(i) for i in scores_of(rows).argmax(1)]
    rows, _ = predict("labels", house.npz("labels"), overwrite=True)
    expected = ["; ".join(str(i) for i in np.flatnonzero(row > 0.5)) for row in scores_of(rows)]
    assert [row["predicted"] for row in rows] == expected


def test_calibrated_scores_are_at_the_temperature(house, predict):
    rows, _ = predict("probe", house.npz("probe"))
    scaled, found = predict("probe", house.npz("probe"), calibrated=True, overwrite=True)
    expected = scale(scores_of(rows), "multi-class", found.document["temperature"])
    np.testing.assert_array_equal(scores_of(scaled, float), expected)


def test_decisions_are_made_where_a_class_is_named(house, predict):
    rows, _ = predict("two", house.npz("two"))
    assert "decision" not in rows[0]
    rows, found = predict("two", house.npz("two"), positive="1", threshold=0.5, overwrite=True)
    called = ["positive" if score >= 0.5 else "negative" for score in scores_of(rows)[:, 1]]
    assert [row["decision"] for row in rows] == called
    assert found.document["decided"] == {name: called.count(name) for name in dict.fromkeys(called)}
    with pytest.raises(UsageError, match="name it with --positive"):
        predict("two", house.npz("two"), threshold=0.5, overwrite=True)


def test_what_is_unlike_train_is_told(house, predict, tmp_path):
    train = np.load(house.npz("probe"))["train_images"]
    np.savez(tmp_path / "new.npz", images=np.stack([train[4], np.full((8, 8), 255, np.uint8)]))
    rows, found = predict("probe", tmp_path / "new.npz")
    assert [row["unlike"] for row in rows] == ["false", "true"]
    assert float(rows[0]["distance"]) == 0
    assert rows[0]["nearest"].split("; ")[0] == "train/4"
    assert found.document["n_unlike"] == 1


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(files, predict, caplog):
    (files / "deep" / "05.png").write_bytes(b"no image")
    (files / "deep" / "06.png").write_bytes((files / "deep" / "07.png").read_bytes()[:40])
    Image.fromarray(np.zeros((8, 12), np.uint8)).save(files / "deep" / "08.png")
    (files / "notes.txt").write_text("of no kind")
    rows, found = predict("probe", [files, files / "notes.txt"])
    bad = {Path(row["name"]).name: row["error"] for row in rows if row["error"]}
    assert list(bad) == ["05.png", "06.png", "08.png", "notes.txt"]
    assert "12 × 8 px" in bad["08.png"]
    assert all(row["predicted"] == "" for row in rows if row["error"])
    assert (found.document["n_predicted"], found.document["n_unreadable"]) == (27, 4)
    assert "4 images cannot be read" in caplog.text
    rows, found = predict("probe", files / "deep" / "08.png", policy="pad", overwrite=True)
    assert not rows[0]["error"]


def test_of_a_damaged_npz_file_what_comes_before_is_predicted(house, predict, tmp_path):
    path = tmp_path / "cut.npz"
    images = np.random.default_rng(0).integers(0, 256, (3000, 8, 8), dtype=np.uint8)
    np.savez(path, images=images)
    content = bytearray(path.read_bytes())
    content[-5000] ^= 255
    path.write_bytes(content)
    rows, _ = predict("probe", path)
    assert len(rows) == 3000
    assert not rows[0]["error"]
    assert "damaged" in rows[-1]["error"]


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_table_equals_an_uninterrupted_one(
    after, house, predict, tmp_path, monkeypatch
):
    images = np.random.default_rng(0).integers(0, 256, (700, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", images=images)
    whole, _ = predict("knn", tmp_path / "many.npz")
    rows = module.rows_in_blocks

    def interrupted(*given):
        yield from islice(rows(*given), after)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "rows_in_blocks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict("knn", tmp_path / "many.npz", overwrite=True)
    assert len(list((tmp_path / "out" / "predictions.csv.partial").glob("*-*.csv"))) == 1
    read = []

    def watched(columns, images, start, batch_size):
        read.append(start)
        return rows(columns, images, start, batch_size)

    monkeypatch.setattr(module, "rows_in_blocks", watched)
    (tmp_path / "out" / "predictions.csv").unlink(missing_ok=True)
    resumed, found = predict("knn", tmp_path / "many.npz")
    assert resumed == whole
    assert found.status == "resumed"
    assert read == [256 * after]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "predictions.csv", "predictions.json",
    ]  # fmt: skip
    assert predict("knn", tmp_path / "many.npz")[1].status == "skipped"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "knn"}, "is of another run"),
        ({"calibrated": True}, "is of other calibration"),
        ({"positive": "1", "threshold": 0.3}, "is of other columns, decision"),
    ],
)
def test_a_table_of_something_else_is_left_alone(change, told, house, predict):
    predict("probe", house.npz("probe"))
    options = {"name": "probe", **change}
    with pytest.raises(UsageError, match="--overwrite") as refusal:
        predict(images=house.npz("probe"), **options)
    assert told in str(refusal.value)


def test_a_file_of_ones_own_is_left_alone(house, predict, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_text("mine")
    with pytest.raises(UsageError, match="is no table of predictions"):
        predict("probe", house.npz("probe"))
    assert (tmp_path / "out" / "predictions.csv").read_text() == "mine"


def test_the_command_writes_the_table_and_tells_of_it(house, cli):
    (Path("broken.png")).write_bytes(b"x")
    ran = cli(
        "predict", house.runs["two"].path, house.npz("two"), "--store", house.store,
        "--positive", "1", "--threshold", "0.5", "--json",
    )  # fmt: skip
    assert ran.code == 0
    assert ran.document["n_predicted"] == 30
    assert json.loads(Path("predictions.json").read_text())["decision"]["threshold"] == 0.5
    shown = cli("predict", house.runs["two"].path, house.npz("two"), "--store", house.store,
                "--positive", "1", "--threshold", "0.5")  # fmt: skip
    assert "30 images predicted" in shown.out
    assert "it was there already" in shown.out
    ran = cli("predict", house.runs["two"].path, "broken.png", "--out", "b.csv")
    assert ran.code == 1
    assert "1 image cannot be read (broken.png)" in ran.err
    assert cli("predict", house.runs["two"].path, "nothing.png").code == 2
    assert "name one of them" in cli("predict", house.root / "runs", "broken.png").err

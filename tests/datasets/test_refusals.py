"""Folders that cannot be a dataset: one sentence, counts and names, and nothing half-cached."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from medplus.errors import DatasetError, UsageError
from medplus.vocabulary import SPLITS
from tests.datasets.folders import describe, load, refusal, write_table

pytestmark = pytest.mark.usefixtures("fast_disk")


def test_empty_folder(tmp_path):
    (tmp_path / "data").mkdir()
    assert "holds no images; medplus reads .png, .jpg" in refusal(tmp_path / "data", DatasetError)
    (tmp_path / "data/x.heic").write_bytes(b"")
    assert "(other files: .heic 1)" in refusal(tmp_path / "data")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"a": 3, "b": 3, ".": 2}, "2 images (0.png, 1.png) in the folder itself"),
        ({"train/a": 3, "extra/a": 3}, "folders of splits (train) lie beside others (extra)"),
        ({"train/a": 3, "test": 2}, "2 images (test/0.png, test/1.png) in a split's folder"),
        ({"a/train": 3, "a/x": 3, "b/train": 3}, "folders of splits (train) lie beside other"),
        ({"fold1/a": 2, "fold2/b": 2}, "(fold1, fold2) look like folds"),
        ({"A_train": 3, "A_test": 3}, "(A_test, A_train) look like parts of splits"),
        ({"data/a": 3, "data/b": 3}, "'data'; a classifier needs at least two classes"),
        ({"data/a": 3, "data/b": 3}, "if its folders are the classes, name "),
        ({"a": 9, "b": 1, "c": 2}, "2 classes (b, c) with fewer than 3 images cannot be split"),
        ({"a": 9}, "all 9 images are of the class 'a'"),
    ],
)
def test_layouts_that_do_not_fit(fill, images, message):
    assert message in refusal(fill(images), UsageError)


def test_unreadable_and_animated_images_are_counted_and_named(fill, save):
    root = fill({"a": 5, "b": 5})
    (root / "a/0.png").write_bytes(b"no image")
    save("b/1.png", np.zeros((6, 6), np.uint8), save_all=True,
         append_images=[Image.new("L", (6, 6), 9)])  # fmt: skip
    message = refusal(root, DatasetError)
    assert "2 images cannot be used: a/0.png: it is damaged, of no format" in message
    assert "the others: (b/1.png)" in message


def test_image_cut_short_is_found_when_it_is_decoded(fill):
    root = fill({"a": 5, "b": 5}, size=(64, 64))
    whole = (root / "b/2.png").read_bytes()
    (root / "b/2.png").write_bytes(whole[:2000])
    assert "1 image cannot be used: b/2.png" in refusal(root)


def test_newline_in_a_name_stays_out_of_the_message(fill, tmp_path):
    root = fill({"a": 5, "b": 5})
    (root / "a/x\ny.png").write_bytes(b"")
    assert r"a/x\ny.png" in refusal(root)


@pytest.mark.parametrize("target", ["outside.png", "outside", "nowhere"])
def test_links_that_lead_out_are_refused(fill, tmp_path, target):
    root = fill({"a": 5, "b": 5})
    (tmp_path / "outside").mkdir()
    Image.new("L", (6, 6)).save(tmp_path / "outside.png")
    (root / "a/link.png").symlink_to(tmp_path / target)
    assert "1 link (a/link.png)" in refusal(root, DatasetError)


def test_link_within_the_folder_is_followed(fill):
    root = fill({"a": 5, "b": 5})
    (root / "a/link.png").symlink_to(root / "a/0.png")
    assert sum(len(load(root).splits[s]) for s in SPLITS) == 11


HEAD = ["path", "split", "label"]
GOOD = [[f"i/{n}.png", SPLITS[n % 3], n % 2] for n in range(6)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([HEAD, *GOOD, ["i/7.png", "test", 1]], "1 row of 7 without an image"),
        ([HEAD, *GOOD, ["../x.png", "test", 1]], "1 row of 7 without an image"),
        ([HEAD, *GOOD, GOOD[0]], "1 path (i/0.png) on several rows"),
        ([HEAD, *GOOD[:5], ["i/5.png", "", 1]], "1 row without split (rows 7)"),
        ([HEAD, *GOOD[:5], ["i/5.png", "test", ""]], "1 row without label (rows 7)"),
        ([HEAD, *GOOD[:5], ["i/5.png", "2", 1]], "unknown split '2'"),
        ([["pth", "split", "label"], *GOOD], "no column 'path'"),
        (
            [["path", "split", "kind"], *[[*row[:2], "x"] for row in GOOD]],
            "are of the class 'x'",
        ),
        ([HEAD], "has no rows"),
    ],
)
def test_tables_that_do_not_fit(fill, rows, message):
    root = fill({"i": 6})
    write_table(root, rows)
    assert message in refusal(root, UsageError)


def test_commas_at_the_ends_of_lines_and_numbers_of_rows_shift_no_column(fill):
    """Programs write both: a comma behind the last field; row names that have no heading (R)."""
    root, found = fill({"i": 6}), []
    ended = [HEAD, *[[*row, ""] for row in GOOD]]
    numbered = [HEAD, *[[n, *row] for n, row in enumerate(GOOD)]]
    for rows in ([HEAD, *GOOD], ended, numbered):
        write_table(root, rows)
        splits = load(root).splits
        found.append({s: (list(part.names), part.labels.tolist()) for s, part in splits.items()})
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("polcy: pad", "line 1: unknown key 'polcy'; did you mean 'policy'?"),
        ("seed: 1\npolicy: stretch", "line 2: policy: "),
        ("fractions: {train: 0.9, val: 0.2, test: 0.2}", "must add up to 1"),
        ("fractions: {trian: 0.9}", "unknown key 'trian'; did you mean 'train'?"),
        ("value_range: [9, 3]", "low < high"),
        ("classes: [a, a]", "names something twice"),
        ("classes: [a, c]", "1 class (b) not among the classes of dataset.yaml"),
        ("task: binary", "task"),
        ("task: multi-label", "each image has one class"),
        ("group_column: patient", "has no table whose group_column could be meant"),
        ("label_columns: [a, b]", "has no table whose label_columns could be meant"),
        ("table: gone.csv", "gone.csv does not exist"),
        ("seed: [", "is not valid YAML"),
    ],
)
def test_descriptions_that_do_not_fit(fill, text, message):
    root = fill({"a": 5, "b": 5})
    describe(root, text)
    assert message in refusal(root, UsageError)


def test_written_splits_that_a_spreadsheet_saved_are_read(fill):
    root = fill({"a": 5, "b": 5})
    before = load(root).splits
    file = root / "splits.csv"
    rows = list(csv.reader(file.open(newline="")))
    with file.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, delimiter=";").writerows(rows)
    for split, part in load(root).splits.items():
        assert list(part.names) == list(before[split].names)


def test_written_splits_that_no_longer_fit(fill, save, caplog):
    root = fill({"a": 5, "b": 5})
    load(root)
    save("a/new.png", np.zeros((6, 6), np.uint8))
    with pytest.raises(UsageError, match=r"does not name 1 image \(a/new.png\)"):
        load(root)
    (root / "a/new.png").unlink()
    describe(root, "seed: 3")
    with pytest.raises(UsageError, match=r"was made with seed=0 .* delete it to split anew"):
        load(root)
    (root / "splits.csv").unlink()
    load(root)
    train = next(r["path"] for r in csv.DictReader((root / "splits.csv").open())
                 if r["split"] == "train")  # fmt: skip
    (root / train).unlink()
    load(root)
    assert "names what is gone: 1 image" in caplog.text

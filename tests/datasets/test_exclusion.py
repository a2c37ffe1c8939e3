"""Verdicts: what is left out, and what is refused."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from medplus.datasets.exclusion import read_exclusion
from medplus.datasets.sources import load_dataset
from medplus.embeddings.extract import extract
from medplus.errors import UsageError

HEADER = "name,split,index,kind,score,partner,partner_split,given,suggested,verdict"


@pytest.fixture
def suspects(tmp_path):
    def write(*verdicts, header=HEADER, end="\n", delimiter=","):
        path = tmp_path / "suspects.csv"
        rows = [f"{split}/{index},{split},{index},twin,0.9,,,,,{verdict}"
                for split, index, verdict in verdicts]  # fmt: skip
        path.write_text(end.join([header, *rows]).replace(",", delimiter) + end)
        return path

    return write


@pytest.mark.parametrize(("end", "delimiter"), [("\n", ","), ("\r\n", ";")])
def test_rows_whose_verdict_says_so_are_left_out(suspects, end, delimiter):
    said = [("train", 3, "exclude"), ("test", 1, " Drop "), ("test", 2, "keep"), ("val", 0, "")]
    found = read_exclusion(suspects(*said, end=end, delimiter=delimiter))
    assert {split: set(rows) for split, rows in found.rows.items()} == {
        "train": {3}, "val": set(), "test": {1}
    }  # fmt: skip
    assert (
        found.sentence
        == "2 images (1 of train, 1 of test) left out by the verdicts of suspects.csv"
    )


def test_names_with_ends_of_lines_in_them_stay_as_they_are(tmp_path):
    names = ["a\nb.png", "a\r\nb.png", "a\u2028b.png", "a\x85b.png", "a\x1cb.png"]
    path = tmp_path / "suspects.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER.split(","))
        writer.writerows([n, "train", i, "twin", *[""] * 5, "drop"] for i, n in enumerate(names))
    assert list(read_exclusion(path).rows["train"].values()) == names


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([("train", 0, "maybe")], "line 2: the verdict 'maybe' is neither exclude nor keep"),
        ([("train", 0, "keep")], "leaves nothing out"),
        ([("nowhere", 0, "exclude")], "no split and index"),
    ],
)
def test_what_cannot_be_meant_is_refused(suspects, said, words):
    with pytest.raises(UsageError, match=words):
        read_exclusion(suspects(*said))


def test_another_table_is_refused(suspects, tmp_path):
    with pytest.raises(UsageError, match="has no column index"):
        read_exclusion(suspects(header="name,split,verdict,kind"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_exclusion(tmp_path / "none.csv")


def test_a_dataset_without_some_images_is_other_data(write_npz, suspects):
    npz = write_npz()
    path = suspects(("train", 3, "exclude"), ("test", 0, "exclude"))
    whole, rest = load_dataset(str(npz)), load_dataset(str(npz), exclude=path)
    kept = np.delete(np.arange(len(whole.splits["train"])), 3)
    assert np.array_equal(rest.splits["train"].images, whole.splits["train"].images[kept])
    assert np.array_equal(rest.splits["train"].labels, whole.splits["train"].labels[kept])
    assert rest.splits["train"].names[3] == "train/4"
    assert rest.digest != whole.digest
    assert "2 images" in rest.card.warnings[-1]


def test_a_table_of_other_images_is_refused(write_npz, suspects):
    with pytest.raises(UsageError, match="the table is of other images"):
        load_dataset(str(write_npz()), exclude=suspects(("train", 99, "exclude")))


@pytest.mark.usefixtures("fast_disk")
def test_a_store_knows_what_was_left_out_and_where_its_rows_came_from(
    write_npz, suspects, tmp_path
):
    npz = write_npz()
    path = suspects(("test", 1, "exclude"))
    root = tmp_path / "embeddings"
    whole = extract(str(npz), backbone="pixels", store=root)
    rest = extract(str(npz), backbone="pixels", store=root, exclude=str(path))
    assert rest.key != whole.key
    assert np.array_equal(rest.index("test"), np.delete(whole.index("test"), 1))
    assert np.array_equal(rest.embeddings("test"), np.delete(whole.embeddings("test"), 1, 0))
    assert "--exclude" in rest.info.spec.command()

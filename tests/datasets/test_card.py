"""The data card: what was read is said, and what may be wrong with it is never silent."""

from __future__ import annotations

import logging
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from medplus.datasets.card import Card, copies
from medplus.datasets.files import split_of
from medplus.datasets.sources import load_dataset
from medplus.errors import DatasetError, UsageError
from tests.datasets.folders import SPLIT_FOLDERS, describe, load, write_table

pytestmark = pytest.mark.usefixtures("fast_disk")


def warnings_of(root, **options):
    return " | ".join(load_dataset(str(root), 6, **options).card.warnings)


def table(fill, head, rows, n=12):
    """Return a folder of n images in i/, and a table of the rows without their paths."""
    root = fill({"i": n})
    lines = [[f"i/{i}.png", *row] for i, row in enumerate(rows)]
    write_table(root, [["path", *head], *lines])
    return root


# --- what is said ---------------------------------------------------------------------------------


def test_the_card_tells_task_classes_splits_images_and_unused_columns(fill):
    rows = [(("train", "val", "test")[i % 3], "ab"[i // 6], 40 + i) for i in range(12)]
    root = table(fill, ["Split", "label", "age"], rows)
    card = load(root).card
    assert (card.task, card.task_from) == ("binary-class", "column 'label'")
    assert card.split_from == "column 'Split'"
    assert card.classes == ["a", "b"]
    assert card.counts["train"] == {"images": 4, "classes": [2, 2]}
    assert card.unused_columns == ["age"]
    assert card.warnings == []
    assert card.images == "files of 6 × 6 px (grey 8 bits)"
    assert any("columns not used: age" in line for line in card.lines())


def test_what_was_said_at_the_first_read_is_said_again_and_stands_in_stores_and_records(
    cli, fill, caplog
):
    root = fill(SPLIT_FOLDERS)
    shutil.copy(root / "train/a/0.png", root / "test/a/0.png")
    words = ("--dataset", str(root), "--size", "6", "--backbone", "pixels")
    for _ in range(2):
        assert "the same content as one of train" in cli("extract", *words).err
    ran = cli("knn", *words, "--k", "1", "--json")
    assert "the same content as one of train" in ran.err
    [record] = ran.document["runs"]
    assert any("the same content" in text for text in record["warnings"])
    assert record["card_digest"] == load(root).card.digest


def test_the_command_line_shows_a_card_alone(cli, fill):
    root = fill(SPLIT_FOLDERS)
    ran = cli("datasets", str(root), "--size", "6", "--json")
    [card] = ran.document["cards"]
    assert (card["path"], card["size"]) == (str(root), 6)
    assert card["counts"]["test"]["images"] == 6
    shown = cli("datasets", str(root), "--size", "6")
    assert "given by folders" in shown.out


# --- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "odd"), [(["diagnosis", "male"], "a"), (["edema", "mass"], ""), (["a", "b"], "-1")]
)
def test_a_column_of_labels_is_never_guessed_where_there_is_a_choice(fill, head, odd):
    rows = [(odd if i == 3 else i % 2, i % 2) for i in range(12)]
    with pytest.raises(UsageError, match=rf"not clear \({', '.join(head)}\).*label_columns"):
        load(table(fill, head, rows))


def test_columns_of_which_exactly_one_is_1_are_classes(fill):
    rows = [tuple(int(i % 3 == k) for k in range(3)) for i in range(12)]
    data = load(table(fill, ["mel", "nev", "bkl"], rows))
    assert (data.task, data.classes) == ("multi-class", ("bkl", "mel", "nev"))


def test_labels_that_exclude_each_other_may_be_classes(fill):
    root = table(fill, ["mel", "nev"], [(int(i % 3 == 0), int(i % 3 == 1)) for i in range(12)])
    assert "and 4 of 12 have none; if they are classes" in warnings_of(root)


def test_one_hot_labels_of_a_file_are_classes(write_npz):
    hot = {f"{s}_labels": np.eye(3, dtype=np.uint8)[np.arange(n) % 3]
           for s, n in (("train", 7), ("val", 3), ("test", 5))}  # fmt: skip
    data = load_dataset(str(write_npz("mine.npz", **hot)))
    assert (data.task, data.splits["train"].labels[:, 0].tolist()) == (
        "multi-class", [0, 1, 2, 0, 1, 2, 0],
    )  # fmt: skip
    assert "exactly one" in data.card.task_from


def test_labels_from_1_on_are_the_names_of_classes(write_npz):
    sizes = {"train": 7, "val": 3, "test": 5}
    counted = {f"{split}_labels": 1 + np.arange(n) % 3 for split, n in sizes.items()}
    data = load_dataset(str(write_npz("mine.npz", **counted)))
    assert (data.classes, data.splits["val"].labels[:, 0].tolist()) == (("1", "2", "3"), [0, 1, 2])


@pytest.mark.parametrize("odd", [255, -1, 2**63])
def test_labels_that_stand_for_missing_ones_are_refused(write_npz, odd):
    dtype = np.uint64 if odd > 255 else np.int64
    labels = np.array([0, 1, odd, 0, 1, odd, 0], dtype)
    with pytest.raises(DatasetError, match=f"2 images have the label {odd}"):
        load_dataset(str(write_npz("mine.npz", train_labels=labels)))


def test_cells_of_several_labels_are_multi_label(fill):
    words = ["edema", "mass", "edema|mass", "none"] * 3
    data = load(table(fill, ["label"], [(word,) for word in words]))
    assert data.classes == ("edema", "mass", "none")
    assert sorted(data.splits["train"].labels.sum(1)) >= [1]
    assert data.task.startswith("multi-label")
    data = load(table(fill, ["label"], [(word,) for word in ["a|b", "c"] * 6]))
    assert data.classes == ("a|b", "c")  # a bar in one name is no list


def test_names_that_look_alike_or_missing_are_named(fill):
    told = warnings_of(fill({"Cat": 4, "cat": 4, "NA": 4, "1": 4, "01": 4}))
    assert "Cat, cat look alike" in told
    assert "01, 1 look alike" in told or "1, 01 look alike" in told
    assert "the class NA looks like a missing value" in told


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (["benign", "benign ", "malignant"], "the classes benign, 'benign ' look alike"),
        (["a b", "a  b", "c"], "the classes a b, a  b look alike"),
        (["0", "1", "1.0"], "the classes 1, 1.0 look alike"),
        (["-1", "0", "1"], "the class -1 looks like a missing value"),
        (["0", "1", "255"], "the class 255 looks like a missing value"),
        (["edema", "mass", "edema, mass"], "the class edema, mass looks like several labels"),
        (["benign", "benign?", "c"], "the classes benign, benign? look alike"),
        (["unlabeled", "b"], "the class unlabeled looks like a missing value"),
        (["-1", "1"], ""),
        (["98", "99", "1"], ""),
        (["carcinoma", "carcinoma, ductal"], ""),
    ],
)
def test_typos_and_codes_among_the_classes_are_named(classes, told):
    card = Card("multi-class")
    rows = [[i] for i in range(len(classes))]
    card.describe(classes, dict.fromkeys(("train", "val", "test"), rows))
    assert [warning[: len(told)] for warning in card.warnings] == ([told] if told else [])


def test_a_column_of_a_class_that_no_row_is_of_is_named(fill):
    data = load(table(fill, ["mel", "nev", "bkl"], [(i % 2, 1 - i % 2, 0) for i in range(12)]))
    assert data.classes == ("mel", "nev")
    assert "no row is of 1 column (bkl)" in "".join(data.card.warnings)


def test_blank_images_and_folders_without_any_are_told(fill):
    root = fill({"a": 4, "b": 5})
    Image.new("L", (8, 8), 7).save(root / "a/0.png")
    (root / "cyst").mkdir()
    told = warnings_of(root)
    assert "1 of 9 images is of one value only" in told
    assert "(cyst): no class is made of it" in told


def test_grades_are_sorted_by_value_and_words_only_as_said(fill):
    root = fill({"10": 4, "9": 4, "-1": 4})
    describe(root, "task: ordinal-regression")
    assert load(root).classes == ("-1", "9", "10")
    root = fill({"mild": 4})
    with pytest.raises(UsageError, match="in which order"):
        load(root)


def test_classes_that_a_split_lacks_are_named(fill):
    told = warnings_of(fill({**SPLIT_FOLDERS, "test/zoster": 2}))
    assert "train has no image of zoster, which nothing can learn" in told


# --- splits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "split"),
    [("Training", "train"), ("train_images", "train"), ("VALID", "val"), ("dev", "val"),
     ("test_set", "test"), ("testing", "test"), ("holdout", "test"), ("testis", None),
     ("images", None), ("train_val", None), ("0", None)],
)  # fmt: skip
def test_words_for_splits(word, split):
    assert split_of(word) == split


def test_splits_below_the_classes_are_used(fill):
    data = load(fill({f"{c}/{s}": 2 for c in "ab" for s in ("train", "val", "test")}))
    assert data.classes == ("a", "b")
    assert [len(data.splits[s]) for s in ("train", "val", "test")] == [4, 4, 4]


@pytest.mark.parametrize("head", ["split ", "Train_Val_Test", "set"])
def test_a_column_of_splits_is_used_however_it_is_spelled(fill, head):
    rows = [(("training", "validation", "holdout")[i % 3], "ab"[i // 6]) for i in range(12)]
    data = load(table(fill, [head, "label"], rows))
    assert len(data.splits["test"]) == 4


# --- patients -------------------------------------------------------------------------------------


def test_a_column_that_is_there_twice_is_refused(fill):
    root = table(fill, ["label", " label"], [("ab"[i % 2], "ab"[i % 3 // 2]) for i in range(12)])
    with pytest.raises(UsageError, match=r"1 column \(label\) twice; keep one"):
        load(root)


@pytest.mark.parametrize("head", ["Patient ID", "PatientenNr", "StudyInstanceUID"])
def test_what_looks_like_patients_is_kept_together_and_said(fill, head):
    rows = [("ab"[i // 2 % 2], f"P{i // 2}") for i in range(24)]
    root = table(fill, ["label", head], rows, 24)
    data = load(root)
    assert f"12 groups by '{head}' (it looks like patients" in data.card.groups
    of = [{int(name[2:-4]) // 2 for name in data.splits[s].names} for s in ("train", "val", "test")]
    assert not (of[0] & of[1] or of[0] & of[2] or of[1] & of[2])


def test_given_splits_that_tear_patients_apart_are_refused_unless_allowed(fill):
    rows = [(("train", "val", "test")[i % 3], "ab"[i // 6], f"P{i // 2}") for i in range(12)]
    root = table(fill, ["split", "label", "patient_id"], rows)
    with pytest.raises(UsageError, match="stand in several splits"):
        load(root)
    describe(root, "allow_shared_groups: true")
    assert "stand in several splits" in warnings_of(root)
    describe(root, "group_column: none")
    assert warnings_of(root) == ""


@pytest.mark.parametrize("by", ["flag", "description"])
def test_groups_are_found_in_names_of_files(fill, by):
    root = fill({f"{c}/p{i}": 3 for c in "ab" for i in range(8)})
    if by == "flag":
        data = load_dataset(str(root), 6, group_column=r"path~/(p\d+)/")
    else:
        describe(root, r"group_pattern: '/(p\d+)/'")
        data = load(root)
    where = [{n.split("/")[1] for n in data.splits[s].names} for s in ("train", "val", "test")]
    assert not (where[0] & where[1] or where[0] & where[2] or where[1] & where[2])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("{c}/P{p}/{i}.png", "in folders of one name"),
        ("{c}/P{p}_{i}.png", "begin alike"),
        ("{c}/person{p}-{c}-{i}.png", "begin alike"),
        ("{c}/{n}.{ending}", "begin alike"),
        ("{c}/im{n}{flip}.png", "begin alike"),
        ("{c}/{n}.png", ""),
        ("{c}/{c} ({n}).png", ""),
        ("{c}/ISIC_00{n}.png", ""),
        ("{c}/2_{n}.png", ""),
        ("{c}/images/{n}.png", ""),
    ],
)
def test_places_that_look_like_patients_in_several_splits_are_named(save, tmp_path, name, told):
    rng = np.random.default_rng(0)
    for n in range(48):
        ending = "bmp" if n % 2 and "ending" in name else "png"
        number = n // 2 if "ending" in name or "flip" in name else n
        named = {"p": n // 4, "i": n % 4, "n": number, "ending": ending, "flip": "_flip" * (n % 2)}
        place = name.format(c="ab"[n // 4 % 2], **named)
        save(place, rng.integers(0, 256, (6, 6), dtype=np.uint8))
    warnings = warnings_of(tmp_path / "data")
    assert told in warnings if told else warnings == ""
    if told:
        pattern = re.search("--group-pattern '(.*)', or", warnings)
        (tmp_path / "data/splits.csv").unlink()
        data = load_dataset(str(tmp_path / "data"), 6, group_column=f"path~{pattern[1]}")
        assert "patient" not in "".join(data.card.warnings)
        assert len({*data.splits["train"].groups}) < 24


def test_a_pattern_that_misses_files_is_refused(fill):
    root = fill({"a": 4, "b": 4})
    describe(root, "group_pattern: 'p(\\d+)_'")
    with pytest.raises(UsageError, match="finds nothing in 8 paths"):
        load(root)


# --- copies ---------------------------------------------------------------------------------------


def test_copies_are_counted_across_splits_and_classes_and_within():
    told = copies("xxyyzzw", ["train", "test", "train", "train", "val", "val", "val"],
                  [[0], [0], [0], [1], [1], [1], [1]], list("abcdefg"))  # fmt: skip
    assert told[0].startswith("1 image of test has the same content as one of train (b)")
    assert told[1].startswith("2 images of the same content have different labels (c, d)")
    assert told[2].startswith(
        "images that repeat another of their split: 1 in train, 1 in val (c = d, e = f)"
    )


# --- pixels ---------------------------------------------------------------------------------------


def deep_folder(fill, high):
    root = fill(SPLIT_FOLDERS)
    rng = np.random.default_rng(0)
    for path in root.rglob("*.png"):
        Image.fromarray(rng.integers(0, high, (6, 6)).astype(np.uint16)).save(path)
    return root


def test_contrast_that_is_lost_is_told_with_the_remedy(fill):
    root = deep_folder(fill, 65536)
    assert warnings_of(root) == ""
    root = deep_folder(fill, 4096)
    told = warnings_of(root)
    assert "say value_range: [" in told and "auto" in told
    describe(root, "value_range: auto")
    data = load(root)
    assert data.card.warnings == []
    assert np.ptp(data.splits["train"].images) > 240
    assert "become 0 to 255" in data.card.images


def test_contrast_that_is_lost_in_a_few_images_among_others_of_8_bits_is_told(fill):
    root = fill(SPLIT_FOLDERS)
    Image.fromarray(np.arange(36, dtype=np.uint16).reshape(6, 6) * 100).save(root / "train/a/0.png")
    assert "1 image of more than 8 bits: typically 5.3% of the range" in warnings_of(root)


# --- what is no image of the dataset --------------------------------------------------------------


def test_masks_and_foreign_folders_are_left_out_and_named(fill):
    root = fill({"a": 4, "b": 4, "c/images": 4, "c/masks": 4, "a/@eaDir/0.png": 1})
    shutil.copy(root / "b/0.png", root / "b/0_mask.png")
    data = load(root)
    assert sum(len(split) for split in data.splits.values()) == 12
    told = " | ".join(data.card.warnings)
    assert "5 masks of images" in told and "@eaDir" in told


def test_classes_with_the_same_folders_in_them_may_be_none(fill):
    root = fill({f"hospital {h}/{c}": 4 for h in "AB" for c in ("benign", "malignant")})
    assert "the same folders in them (benign, malignant); if those are the" in warnings_of(root)


def test_a_run_that_lies_among_the_images_is_none_of_them_and_is_told(fill):
    root = fill({"a": 4, "b": 4, "runs/finetune/data/seed1": 3})
    for name in ("record.json", "predictions.npz"):
        (root / "runs/finetune/data/seed1" / name).touch()
    data = load(root)
    assert data.classes == ("a", "b")
    warnings = "".join(data.card.warnings)
    assert "runs and stores of medplus (1 folder)" in warnings
    assert "(runs): no class is made of it" in warnings


def test_a_class_in_which_lies_a_record_of_somebody_else_stays_a_class(fill):
    root = fill({"a": 4, "b": 4})
    (root / "a/record.json").write_text("{}")
    assert load(root).classes == ("a", "b")


def test_a_class_of_masks_is_a_class(fill):
    data = load(fill({"mask": 5, "no_mask": 5}))
    assert data.classes == ("mask", "no_mask")


# --- staleness ------------------------------------------------------------------------------------


def test_a_swapped_file_of_equal_size_and_time_is_noticed(write_npz, make_arrays, tmp_path):
    path = write_npz("mine.npz", compressed=False)
    first = load_dataset(str(path))
    arrays = make_arrays()
    arrays["train_images"] = 255 - arrays["train_images"]
    other = write_npz("other.npz", arrays, compressed=False)
    stat = path.stat()
    assert other.stat().st_size == stat.st_size
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)
    assert load_dataset(str(path)).digest != first.digest


def test_the_card_is_said_below_warnings_and_above_info(fill, caplog):
    with caplog.at_level(logging.INFO, "medplus"):
        load(fill(SPLIT_FOLDERS))
    [level] = {r.levelno for r in caplog.records if "binary-class" in r.getMessage()}
    assert logging.INFO < level < logging.WARNING


def test_a_table_of_another_name_beside_folders_is_not_passed_over_in_silence(fill):
    root = fill({"scanner 1": 5, "scanner 2": 5})
    assert warnings_of(root) == ""
    write_table(root, [["path", "label"]], "Tabelle.csv")
    (root / "suspects.csv").touch()
    assert "not read: 1 table (Tabelle.csv)" in warnings_of(root)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_as_spreadsheets_write_them(fill, separator):
    root = fill({"i": 6})
    rows = [
        ["path", '"a, b, c, d"', "label"],
        *([f"i/{i}.png", "1,5", "xy"[i % 2]] for i in range(6)),
    ]
    (root / "labels.csv").write_text("\n".join(map(separator.join, rows)), encoding="utf-8-sig")
    assert load(root).card.unused_columns == ["a, b, c, d"]


def test_a_table_in_another_encoding_names_the_remedy(fill):
    root = fill({"i": 6})
    (root / "labels.csv").write_bytes("path,label\ni/0.png,bösartig".encode("cp1252"))
    with pytest.raises(UsageError, match="save it as CSV in UTF-8"):
        load(root)

"""A folder as a dataset: layouts, splits, cache, and what is refused."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medplus.datasets.folder import build, workers
from medplus.datasets.folder.load import cached_sizes
from medplus.datasets.load import dataset_name, digests_of, is_folder, is_path, load_dataset
from medplus.errors import DatasetError, MedplusError, UsageError
from medplus.vocabulary import MULTI_LABEL, SPLITS

pytestmark = pytest.mark.usefixtures("fast_disk")
SPLIT_FOLDERS = {f"{s}/{c}": n for s, n in (("train", 4), ("val", 2), ("test", 3)) for c in "ab"}


def load(root: Path, size: int | None = 6):
    return load_dataset(str(root), size)


def describe(root: Path, text: str) -> None:
    (root / "dataset.yaml").write_text(text)


def refusal(root: Path, kind: type[MedplusError] = MedplusError) -> str:
    """Return the message of a refusal, after which no cache and no splits may be left."""
    with pytest.raises(kind) as caught:
        load(root)
    assert not list(root.glob(".medplus-cache/*[!k]")), "half-cached"
    assert not (root / "splits.csv").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_table(root: Path, rows: list[list[object]], name: str = "labels.csv") -> None:
    root.mkdir(exist_ok=True)
    with (root / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


# --- layouts -------------------------------------------------------------------------------------


def test_split_folders_hold_class_folders(fill):
    root = fill(SPLIT_FOLDERS)
    data = load(root)
    assert (data.name, data.size, data.channels, data.source) == ("data", 6, 1, "custom")
    assert (data.task, data.classes, data.path) == ("binary-class", ("a", "b"), str(root))
    for split, n in (("train", 4), ("val", 2), ("test", 3)):
        images = data.splits[split].images
        assert isinstance(images, np.memmap)
        expected = [np.asarray(Image.open(root / split / c / f"{i}.png"))
                    for c in "ab" for i in range(n)]  # fmt: skip
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(data.splits[split].labels[:, 0], [0] * n + [1] * n)
    assert not (root / "splits.csv").exists()


def test_class_folders_are_split_and_the_split_is_written_down_and_used_again(fill):
    root = fill({"9": 20, "10": 10, "x y/ü": 10})
    data = load(root)
    assert (data.task, data.classes) == ("multi-class", ("10", "9", "x y"))
    assert {s: len(data.splits[s]) for s in SPLITS} == {"train": 28, "val": 4, "test": 8}
    for split, n in (("train", (7, 14, 7)), ("val", (1, 2, 1)), ("test", (2, 4, 2))):
        assert tuple(np.bincount(data.splits[split].labels[:, 0])) == n
    rows = list(csv.DictReader((root / "splits.csv").open(newline="")))
    assert sorted(row["path"] for row in rows) == sorted(
        p.relative_to(root).as_posix() for p in root.rglob("*.png")
    )
    # The written split rules from now on: swap two images.
    text = (root / "splits.csv").read_text()
    one = next(r["path"] for r in rows if r["split"] == "train" and r["path"].startswith("9/"))
    two = next(r["path"] for r in rows if r["split"] == "test" and r["path"].startswith("9/"))
    text = text.replace(f"\n{one},train", f"\n{one},test").replace(
        f"\n{two},test", f"\n{two},train"
    )
    (root / "splits.csv").write_text(text)
    swapped = load(root).splits["test"].images
    assert any((np.asarray(Image.open(root / one)) == image).all() for image in swapped)


def test_numbers_are_ordered_by_value(fill):
    assert load(fill({str(i): 3 for i in (10, 9, 100)})).classes == ("9", "10", "100")


def test_missing_val_is_made_of_train_and_test_is_left_alone(fill):
    root = fill({"train/a": 30, "train/b": 10, "test/a": 5, "test/b": 5})
    data = load(root)
    assert {s: len(data.splits[s]) for s in SPLITS} == {"train": 36, "val": 4, "test": 10}
    assert load(root).digest == data.digest


def test_table_gives_splits_and_classes(fill, caplog):
    root = fill({"images": 9})
    rows = [[f"images/{i}.png", SPLITS[i % 3], f"kind {i % 2}"] for i in range(8)]
    write_table(root, [["path", "split", "label"], *rows])
    data = load(root)
    assert data.classes == ("kind 0", "kind 1")
    assert [len(data.splits[s]) for s in SPLITS] == [3, 3, 2]
    image = np.asarray(Image.open(root / "images/4.png"))
    np.testing.assert_array_equal(data.splits["val"].images[1], image)
    assert data.splits["val"].labels[1] == 0
    assert "no row of labels.csv names them: 1 image (images/8.png)" in caplog.text


@pytest.mark.parametrize("name", ["labels.csv", "my.parquet"])
def test_several_label_columns_are_multi_label(fill, name):
    pd = pytest.importorskip("pandas")
    root = fill({"images": 40})
    flags = np.random.default_rng(0).integers(0, 2, (40, 3))
    frame = pd.DataFrame(flags, columns=["one", "two", "three"])
    frame.insert(0, "path", [f"images/{i}.png" for i in range(40)])
    frame["age"] = range(40)
    if name.endswith("csv"):
        frame.to_csv(root / name, index=False)
    else:
        frame.to_parquet(root / name)
        describe(
            root, f"table: {name}\nlabel_columns: [one, two, three]\nclasses: [three, two, one]"
        )
    data = load(root)
    order = [0, 1, 2] if name.endswith("csv") else [2, 1, 0]
    assert data.task == MULTI_LABEL
    assert data.classes == tuple(np.array(["one", "two", "three"])[order])
    found = sorted(tuple(row) for s in SPLITS for row in data.splits[s].labels)
    assert found == sorted(tuple(row) for row in flags[:, order])
    assert [len(data.splits[s]) for s in SPLITS] == pytest.approx([28, 4, 8], abs=2)


def test_groups_stay_whole(fill):
    root = fill({"images": 60})
    rows = [[f"images/{i}.png", i % 2, f"patient {i // 4}"] for i in range(60)]
    write_table(root, [["path", "label", "patient"], *rows])
    describe(root, "group_column: patient")
    load(root)
    split = {r["path"]: r["split"] for r in csv.DictReader((root / "splits.csv").open())}
    for patient in range(15):
        assert len({split[f"images/{i}.png"] for i in range(4 * patient, 4 * patient + 4)}) == 1
    assert set(split.values()) == set(SPLITS)


def test_description_says_what_cannot_be_seen(fill):
    root = fill({"low": 6, "high": 6, "middle": 6})
    describe(
        root,
        "name: grades\ntask: ordinal-regression\nclasses: [low, middle, high]\nsize: 10\n"
        "channels: rgb\nlicence: CC BY 4.0\ncitation: Me (2025)\nfractions: {train: 0.5, val: 0.25,"
        " test: 0.25}\n",
    )
    data = load(root, None)
    assert (data.name, data.size, data.channels) == ("grades", 10, 3)
    assert (data.task, data.classes) == ("ordinal-regression", ("low", "middle", "high"))
    assert (data.licence, data.citation) == ("CC BY 4.0", "Me (2025)")
    assert data.splits["train"].images.shape[1:] == (10, 10, 3)
    assert dataset_name(str(root)) == "grades"


def test_default_size_is_224(fill):
    assert load(fill({"a": 3, "b": 3}), None).size == 224


def test_one_image_of_colour_makes_all_rgb(fill, save):
    root = fill({"a": 5, "b": 5})
    assert load(root).channels == 1
    save("a/0.png", np.random.default_rng(1).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    assert load(root).channels == 3


def test_odd_names(fill, save):
    root = fill({"a b": 3, "Größe": 3})
    for i, name in enumerate(("new\nline.png", 'quo"te, comma.png', "日本.PNG")):
        save(f"a b/{name}", np.full((6, 6), i, np.uint8))
    data = load(root)
    assert sum(len(data.splits[s]) for s in SPLITS) == 9
    assert load(root).digest == data.digest


# --- the cache -----------------------------------------------------------------------------------


def test_second_read_decodes_nothing(fill, monkeypatch):
    root = fill({"a": 5, "b": 5})
    first = load(root)
    monkeypatch.setattr(build.decode, "glance", None)
    again = load(root)
    assert again.digest == first.digest
    with pytest.raises(TypeError):
        load(root, 8)


def test_sizes_are_separate_and_both_meant_where_none_is_named(fill):
    root = fill({"a": 5, "b": 5})
    digests = {load(root, 6).digest, load(root, 8).digest}
    assert cached_sizes(root) == [6, 8]
    assert digests_of(str(root), None, "data") == digests


@pytest.mark.parametrize("what", ["pixels", "policy", "classes"])
def test_change_is_noticed(fill, save, what):
    root = fill({"a": 5, "b": 5}, size=(6, 9))
    before = load(root).digest
    if what == "pixels":
        save("a/0.png", np.zeros((6, 9), np.uint8))
    elif what == "policy":
        describe(root, "policy: pad")
    else:
        describe(root, "classes: [b, a]")
    assert load(root).digest != before


def test_reading_policy_is_part_of_the_digest_also_where_no_pixel_differs(fill):
    root = fill({"a": 5, "b": 5})  # square already
    before = load(root)
    describe(root, "policy: pad")
    after = load(root)
    np.testing.assert_array_equal(after.splits["train"].images, before.splits["train"].images)
    assert after.digest != before.digest


def test_copied_folder_has_the_same_digest(fill, tmp_path):
    root = fill({"a": 5, "b": 5})
    digest = load(root).digest
    shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns(".*"))
    assert load(tmp_path / "copy").digest == digest


def test_read_only_folder_is_cached_and_split_elsewhere(fill, tmp_path, monkeypatch):
    import os

    root = fill({"a": 5, "b": 5})
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "cache"))
    may = os.access
    # Root may write everywhere, so permissions alone would not show it.
    monkeypatch.setattr(
        os, "access", lambda path, mode: "data" not in Path(path).parts and may(path, mode)
    )
    digest = load(root).digest
    assert load(root).digest == digest
    assert not (root / "splits.csv").exists()
    [place] = (tmp_path / "cache").iterdir()
    assert (place / "splits.csv").is_file() and (place / "6/meta.json").is_file()


def test_worker_processes_read_the_same(fill, monkeypatch):
    root = fill({"a": 70, "b": 70})
    alone = load(root).digest
    shutil.rmtree(root / ".medplus-cache")
    monkeypatch.setattr(build, "worker_count", lambda n: 2)
    assert load(root).digest == alone


def test_script_without_a_main_guard_is_told_and_reads_by_itself(fill, tmp_path):
    root = fill({"a": 70, "b": 70})
    script = tmp_path / "script.py"
    script.write_text(
        "from medplus.datasets.folder import build\n"
        "build.worker_count = lambda n: 2\n"
        "from medplus import load_dataset\n"
        f"print(load_dataset({str(root)!r}, 6).digest)\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0
    assert "if __name__ == '__main__':); this process reads the rest" in ran.stderr
    assert ran.stdout.strip() == load(root).digest


def test_few_images_are_worth_no_workers():
    assert workers.worker_count(10) == 0


@pytest.mark.parametrize("size", [0, -1, 5000])
def test_impossible_sizes(fill, size):
    with pytest.raises(UsageError, match=f"--size {size}: folders are read at sizes from 1"):
        load(fill({"a": 3, "b": 3}), size)


# --- names ---------------------------------------------------------------------------------------


def test_flag_stays_a_flag_where_a_folder_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("breastmnist").mkdir()
    Path("mine.v1").mkdir()
    assert not is_path("breastmnist") and is_folder("./breastmnist")
    assert is_folder("mine.v1") and dataset_name("mine.v1") == "mine.v1"
    assert not is_path("other")


def test_run_is_no_dataset(tmp_path):
    (tmp_path / "network.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"is a run of medplus, not a dataset.*--backbone"):
        load(tmp_path)


def test_folder_of_npz_files_is_told_from_one_of_images(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/toy.npz").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"holds no images .*; name the npz file in it"):
        load(tmp_path / "data")


# --- what is refused -----------------------------------------------------------------------------


def test_empty_folder(tmp_path):
    (tmp_path / "data").mkdir()
    assert "holds no images; medplus reads .png, .jpg" in refusal(tmp_path / "data", DatasetError)


def test_folder_of_other_files(tmp_path):
    (tmp_path / "data/a").mkdir(parents=True)
    (tmp_path / "data/a/x.webp").write_bytes(b"")
    assert "(other files: .webp 1)" in refusal(tmp_path / "data")


def test_images_outside_class_folders(fill):
    root = fill({"a": 3, "b": 3, ".": 2})
    assert "2 images (0.png, 1.png) in the folder itself" in refusal(root, UsageError)


def test_split_folders_beside_others(fill):
    message = refusal(fill({"train/a": 3, "extra/a": 3}))
    assert "folders of splits (train) lie beside others (extra)" in message


def test_images_in_a_split_but_no_class(fill):
    assert "3 images (test/0.png, test/1.png, test/2.png) in a split's folder" in refusal(
        fill({"train/a": 3, "test": 3})
    )


def test_class_of_one_image(fill):
    message = refusal(fill({"a": 9, "b": 1, "c": 2}))
    assert "2 classes (b, c) with fewer than 3 images cannot be split 3 ways" in message


def test_one_class(fill):
    assert "all 9 images are of the class 'a'" in refusal(fill({"a": 9}))


def test_unreadable_and_animated_images_are_counted_and_named(fill, save):
    root = fill({"a": 5, "b": 5})
    (root / "a/0.png").write_bytes(b"no image")
    save("b/1.png", np.zeros((6, 6), np.uint8), save_all=True,
         append_images=[Image.new("L", (6, 6), 9)])  # fmt: skip
    message = refusal(root, DatasetError)
    assert "2 images cannot be used: a/0.png: it is no PNG, JPEG" in message
    assert "the others: (b/1.png)" in message


def test_image_cut_short_is_found_when_it_is_decoded(fill):
    root = fill({"a": 5, "b": 5}, size=(64, 64))
    whole = (root / "b/2.png").read_bytes()
    (root / "b/2.png").write_bytes(whole[:2000])
    assert "1 image cannot be used: b/2.png" in refusal(root)


def test_newline_in_a_name_stays_out_of_the_message(fill, tmp_path):
    root = fill({"a": 5, "b": 5})
    (root / "a/x\ny.png").write_bytes(b"")
    assert r"'a/x\ny.png'" in refusal(root)


def test_same_content_in_train_and_test_is_counted(fill, caplog):
    root = fill(SPLIT_FOLDERS)
    Image.open(root / "train/a/0.png").save(root / "test/b/copy.bmp")
    load(root)
    assert "1 image of test has the same content as one of train (test/b/copy.bmp)" in caplog.text


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
        ([HEAD, *GOOD[:5], ["i/5.png", "dev", 1]], "unknown split 'dev'"),
        ([["pth", "split", "label"], *GOOD], "no column 'path'"),
        ([["path", "split", "kind"], *[[*row[:2], "x"] for row in GOOD]], "neither a column"),
        ([HEAD], "has no rows"),
    ],
)
def test_tables_that_do_not_fit(fill, rows, message):
    root = fill({"i": 6})
    write_table(root, rows)
    assert message in refusal(root, UsageError)


def test_patient_in_two_splits_is_refused_unless_allowed(fill, caplog):
    root = fill({"i": 6})
    rows = [[*row, f"p{n // 2}"] for n, row in enumerate(GOOD)]
    write_table(root, [[*HEAD, "patient"], *rows])
    describe(root, "group_column: patient")
    message = refusal(root, UsageError)
    assert "3 groups of 3 in the column 'patient' (p0, p1, p2) stand in several splits" in message
    describe(root, "group_column: patient\nallow_shared_groups: true")
    load(root)
    assert "stand in several splits" in caplog.text


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
        ("group_column: patient", "names group_column, but there is no table"),
        ("table: gone.csv", "gone.csv does not exist"),
        ("seed: [", "is not valid YAML"),
    ],
)
def test_descriptions_that_do_not_fit(fill, text, message):
    root = fill({"a": 5, "b": 5})
    describe(root, text)
    assert message in refusal(root, UsageError)


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

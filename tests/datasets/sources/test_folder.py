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

from medplus.datasets import build
from medplus.datasets.sources import digests, find, known_digest, load_dataset, name_of, resolve
from medplus.datasets.sources.folder import cached_sizes
from medplus.embeddings.info import read_info
from medplus.errors import DatasetError, UsageError
from medplus.reading import RULES, Reading
from medplus.vocabulary import MULTI_LABEL, SPLITS
from tests.datasets.folders import SPLIT_FOLDERS, describe, load, write_table

pytestmark = pytest.mark.usefixtures("fast_disk")


# --- layouts -------------------------------------------------------------------------------------


def test_split_folders_hold_class_folders(fill, is_mapped):
    root = fill(SPLIT_FOLDERS)
    data = load(root)
    assert (data.name, data.size, data.channels, data.source) == ("data", 6, 1, "custom")
    assert (data.task, data.classes, data.path) == ("binary-class", ("a", "b"), str(root))
    for split, n in (("train", 4), ("val", 2), ("test", 3)):
        images = data.splits[split].images
        assert is_mapped(images)
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
    assert name_of(str(root)) == "grades"


def test_licence_and_citation_travel_into_records(cli, fill):
    root = fill({"a": 5, "b": 5})
    describe(root, "licence: CC BY 4.0\ncitation: Me & You (2025)\n")
    words = ("--dataset", str(root), "--size", "6", "--backbone", "pixels", "--json")
    assert cli("extract", *words).code == 0
    [record] = cli("knn", *words, "--k", "1").document["runs"]
    assert (record["licence"], record["citation"]) == ("CC BY 4.0", "Me & You (2025)")


def test_store_and_record_say_how_images_were_read_and_others_are_read_so(cli, save, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        save(f"{'ab'[i % 2]}/{i}.png", rng.integers(900, 5000, (7, 9), dtype=np.uint16))
    root, words = tmp_path / "data", ("--backbone", "pixels", "--size", "6", "--json")
    describe(root, "policy: pad\nvalue_range: auto\n")
    told = cli("extract", "--dataset", str(root), *words).document["stores"][0]
    [record] = cli("knn", "--dataset", str(root), *words, "--k", "1").document["runs"]
    data = load(root)
    low, high = data.reading.value_range
    assert 900 <= low < 1000 and 4900 < high < 5000
    fields = {"size": 6, "policy": "pad", "channels": "grey", "value_range": [low, high]}
    stored = read_info(Path(told["path"])).reading
    assert record["reading"] == stored.model_dump(mode="json") == {**fields, "rules": RULES}

    shutil.copytree(root, tmp_path / "new")
    for split in SPLITS:
        files = [tmp_path / "new" / name for name in data.splits[split].names]
        images = build.read_files(files, Reading(**record["reading"]))
        np.testing.assert_array_equal(images, data.splits[split].images)


def test_files_are_not_read_by_other_rules_nor_made_square_by_a_guess(save, write_npz):
    reading = load_dataset(str(write_npz("own.npz"))).reading
    square = np.arange(784).astype(np.uint8).reshape(28, 28)
    np.testing.assert_array_equal(build.read_files([save("a.png", square)], reading), [square])
    with pytest.raises(DatasetError, match=r"b\.png: it has 27 × 28 px, .* make it square"):
        build.read_files([save("b.png", square[:, 1:])], reading)
    with pytest.raises(DatasetError, match="read by rules 0"):
        build.read_files([save("a.png", square)], reading.model_copy(update={"rules": 0}))


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
    both = {load(root, 6).digest, load(root, 8).digest}
    ref = resolve(str(root))
    assert cached_sizes(ref) == [6, 8]
    assert digests(ref) == both


def test_reading_policy_is_part_of_the_digest_also_where_no_pixel_differs(fill):
    root = fill({"a": 5, "b": 5})  # square already
    before = load(root)
    describe(root, "policy: pad")
    after = load(root)
    np.testing.assert_array_equal(after.splits["train"].images, before.splits["train"].images)
    describe(root, "policy: pad\nclasses: [b, a]")
    assert len({load(root).digest, after.digest, before.digest}) == 3


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


def test_workers_of_a_script_without_a_main_guard_read_the_same(fill, tmp_path):
    root = fill({"a": 70, "b": 70})
    script = tmp_path / "script.py"
    script.write_text(
        "from medplus.datasets import build\n"
        "build.worker_count = lambda n: 2\n"
        "from medplus import load_dataset\n"
        f"print(load_dataset({str(root)!r}, 6).digest)\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, "died" in ran.stderr) == (0, False)
    shutil.rmtree(root / ".medplus-cache")
    assert ran.stdout.strip() == load(root).digest


@pytest.mark.parametrize("size", [0, -1, 5000])
def test_impossible_sizes(fill, size):
    with pytest.raises(UsageError, match=f"--size {size}: folders are read at sizes from 1"):
        load(fill({"a": 3, "b": 3}), size)


# --- names ---------------------------------------------------------------------------------------


def test_flag_stays_a_flag_where_a_folder_has_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("breastmnist").mkdir()
    Path("mine.v1").mkdir()
    assert resolve("breastmnist").source == "medmnist"
    for name in ("./breastmnist", "mine.v1"):
        ref = resolve(name)
        assert (ref.source, ref.name, ref.any_size) == ("folder", Path(name).name, True)
        assert ref.spelling == str(tmp_path / name)
    assert find("other") is None and name_of("other") == "other"


def test_rows_are_named_by_the_paths_of_their_images(fill):
    root = fill({"b/deep": 10, "a c": 10})
    data = load(root)
    for split, part in data.splits.items():
        assert len(part.names) == len(part)
        rows = csv.DictReader((root / "splits.csv").open(newline=""))
        assert list(part.names) == sorted(r["path"] for r in rows if r["split"] == split)
        for name, image in zip(part.names, part.images, strict=True):
            np.testing.assert_array_equal(image, np.asarray(Image.open(root / name)))


def test_damaged_names_are_told_when_they_are_used(fill):
    root = fill({"a": 5, "b": 5})
    load(root)
    names = root / ".medplus-cache/6/val_names.json"
    names.write_bytes(names.read_bytes().replace(b"a/", b"b/"))
    part = load(root).splits["val"]
    with pytest.raises(DatasetError, match=r"val_names.json is damaged; delete .*filled again"):
        part.names[0]


def test_digest_is_known_once_a_folder_was_read_as_it_is_now(fill, save):
    ref = resolve(str(fill({"a": 5, "b": 5})))
    assert known_digest(ref, 6) is None
    assert not (Path(ref.spelling) / ".medplus-cache").exists()
    digest = load(Path(ref.spelling)).digest
    assert known_digest(ref, 6) == digest
    save("a/0.png", np.zeros((6, 6), np.uint8))
    assert known_digest(ref, 6) is None


def test_folder_of_npz_files_is_told_from_one_of_images(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/toy.npz").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"holds no images .*; name the npz file in it"):
        load(tmp_path / "data")


_READ = """
import logging, sys, time
from pathlib import Path
from medplus.datasets.sources import load_dataset
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
go = Path(sys.argv[2])
print("ready", flush=True)
while not go.exists():
    time.sleep(0.005)
print("digest", load_dataset(sys.argv[1], 64).digest)
"""


def test_processes_that_read_a_folder_at_once_decode_it_once(fill, tmp_path):
    root, go = fill({"a": 60, "b": 60}, size=(100, 100)), tmp_path / "go"
    children = [
        subprocess.Popen([sys.executable, "-c", _READ, root, go], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    go.touch()
    said = "".join(child.communicate(timeout=120)[0] for child in children)
    assert [child.returncode for child in children] == [0, 0, 0]
    assert said.count("reading 120 images") == 1 and said.count("the split is written down") == 1
    assert said.count(f"digest {load(root, 64).digest}") == 3
    assert [entry.name for entry in (root / ".medplus-cache").iterdir()] == ["64"]

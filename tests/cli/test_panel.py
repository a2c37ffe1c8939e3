"""`medplus panel` on a run as a user has it: what it prints, writes and refuses."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medplus.analysis.panel import sections_of
from medplus.errors import UsageError
from medplus.reporting import sections

Cli = Callable[..., Any]


@pytest.fixture
def run(cli: Cli, write_npz: Callable[..., Path], tmp_path: Path) -> Path:
    """The folder of a kNN run on raw pixels; its data lie in ``toy.npz`` beside it."""
    write_npz("toy", n=(40, 30, 60), size=8, folder=tmp_path)
    cli("extract", "--dataset", "toy.npz", "--backbone", "pixels", "-q")
    cli("knn", "--dataset", "toy.npz", "--backbone", "pixels", "-q")
    (record,) = Path("runs").glob("knn/*/*/*/*/record.json")
    return record.parent


def test_a_full_disk_is_told_with_the_folder(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sections, "write_figures", fail)
    ran = cli("panel", run, "--out", "shown")
    assert (ran.code, "shown cannot be written: No space left" in ran.err) == (1, True)


def test_it_tells_of_the_class_that_is_named(cli: Cli, run: Path) -> None:
    ran = cli("panel", run, "--positive", "1", "--prevalence", "0.02", "--json")
    (one,) = ran.document["classes"]
    assert (one["class"], ran.document["n_test"]) == ("1", 60)
    assert one["points"][0]["prevalence"] == 0.02
    shown = cli("panel", run, "--positive", "1", "--prevalence", "0.02").out
    assert f"{100 * one['points'][0]['sensitivity']['value']:.1f} % (" in shown
    assert "At a prevalence of 2.0 %" in shown


def test_it_writes_tables_figures_and_the_images_of_mistakes(cli: Cli, run: Path) -> None:
    ran = cli("panel", run, "--json", "--out", "out")
    files = {path.name for path in Path("out").glob("*/*")}
    assert {"panel_toy_points.csv", "panel_toy_curves.svg", "panel_toy_confusion.png"} <= files
    assert set(ran.document["files"]) == {str(path) for path in Path("out").rglob("*.*")}
    mistakes = pd.read_csv("out/tables/errors_toy.csv")
    assert mistakes["image"][0] == ran.document["mistakes"][0]["image"]
    with np.load("toy.npz") as data:
        images, train = data["test_images"], data["train_images"]
        labels = data["train_labels"]
    row = int(mistakes["image"][0].partition("/")[2])
    thumbnail = Image.open(f"out/pictures/errors_toy/test-{row}.png")
    np.testing.assert_array_equal(np.asarray(thumbnail)[::12, ::12], images[row])
    distance = ((train.astype(float) - images[row]) ** 2).sum(axis=(1, 2))
    nearest = int(distance.argmin())
    assert mistakes["nearest_train"][0].startswith(f"train/{nearest} ({labels[nearest, 0]})")


def test_groups_come_from_a_table_that_is_named(cli: Cli, run: Path) -> None:
    ages = np.arange(60) % 40 + 30
    pd.DataFrame({"index": np.arange(60), "age": ages}).to_csv("ages.csv", index=False)
    ran = cli("panel", run, "--by", "age:q2", "--table", "ages.csv", "--json")
    (found,) = ran.document["subgroups"]
    assert sum(group["n"] for group in found["groups"]) == 60
    assert cli("panel", run, "--table", "ages.csv").code == 2


def test_images_that_are_gone_are_said_to_be_gone(cli: Cli, run: Path) -> None:
    Path("toy.npz").unlink()
    section = sections_of([run])[-1]
    assert section.galleries == ()
    assert "toy.npz does not exist" in section.notes[-1]
    assert section.tables[0].blocks


def test_other_images_of_the_same_name_are_not_shown(
    run: Path, write_npz: Callable[..., Path], tmp_path: Path
) -> None:
    write_npz("toy", n=(40, 30, 60), size=8, seed=1, folder=tmp_path)
    section = sections_of([run])[-1]
    assert section.galleries == ()
    assert f"holds other data than {run} was made on" in section.notes[-1]


def test_mistakes_of_embeddings_that_leave_images_out_are_shown(cli: Cli, run: Path) -> None:
    Path("suspects.csv").write_text("name,split,index,kind,verdict\n,test,0,label,exclude\n")
    words = ("--dataset", "toy.npz", "--backbone", "pixels", "--exclude", "suspects.csv")
    [made] = cli("extract", *words, "--json").document["stores"]
    [record] = cli("knn", "--store", made["path"], "--json").document["runs"]
    assert cli("panel", record["path"], "--out", "out").code == 0
    row = int(pd.read_csv("out/tables/errors_toy.csv")["image"][0].partition("/")[2])
    thumbnail = Image.open(f"out/pictures/errors_toy/test-{row}.png")
    with np.load("toy.npz") as data:
        np.testing.assert_array_equal(np.asarray(thumbnail)[::12, ::12], data["test_images"][row])


def test_pictures_are_pngs_with_the_name_the_classes_and_the_neighbours(run: Path) -> None:
    galleries = sections_of([run])[-1].galleries
    pictures = [picture for gallery in galleries for picture in gallery.pictures]
    assert 0 < len(pictures) <= 60
    assert Image.open(io.BytesIO(pictures[0].png)).size == (96, 96)
    assert pictures[0].title.startswith("test/")
    assert [line.partition(":")[0].partition(" ")[0] for line in pictures[0].lines] == [
        "true", "predicted", "nearest"
    ]  # fmt: skip


def test_a_class_that_no_dataset_has_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="no such class"):
        sections_of([run], positive="malignant")


def test_a_folder_of_runs_is_no_run(cli: Cli, run: Path) -> None:
    ran = cli("panel", "runs")
    assert (ran.code, ran.out) == (2, "")
    assert f"name one of them, such as {run}" in ran.err


def test_groups_are_shown_of_the_datasets_whose_table_has_them(
    cli: Cli, run: Path, write_npz: Callable[..., Path], tmp_path: Path
) -> None:
    write_npz("other", n=(40, 30, 50), size=8, folder=tmp_path)
    for command in ("extract", "knn"):
        cli(command, "--dataset", "other.npz", "--backbone", "pixels", "-q")
    (record,) = Path("runs").glob("knn/other/*/*/*/record.json")
    index = range(50, 60)  # of toy's 60 test images, and none of the other's 50
    pd.DataFrame({"index": index, "ward": "a"}).to_csv("wards.csv", index=False)
    sections = sections_of([run, record.parent], by=["ward"], table=Path("wards.csv"))
    assert [section.name for section in sections] == [
        "panel_toy", "subgroups_toy", "errors_toy", "panel_other", "errors_other"
    ]  # fmt: skip

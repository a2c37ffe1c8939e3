"""Disks against needs, and what can be written."""

from __future__ import annotations

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

from medplus.doctor import Finding, Places
from medplus.doctor.folders import Need, compare, examine_folders
from medplus.doctor.need import need_of_grid

Usage = namedtuple("Usage", "total used free")


def wrong(places: Places, need: Need | None = None) -> list[Finding]:
    found = examine_folders(places) if need is None else compare(places, need)
    return [f for f in found if f.mark != "ok"]


def test_folders_that_can_be_written_are_fine(places: Places) -> None:
    assert wrong(places) == []


def test_needs_on_one_disk_are_added_up(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9e9, 0, 5e9))
    fits = Need({"caches": 2 * 10**9}, {"stores": 2 * 10**9}, {"runs": 10**9}, is_plan=True)
    too_much = replace(fits, runs={"runs": 10**9 + 1})

    assert wrong(places, fits) == []
    [found] = wrong(places, too_much)
    assert found.mark == "problem"
    assert "5.0 GB free, up to 5.0 GB needed (caches 2.0 GB, stores 2.0 GB" in found.text
    assert wrong(places, replace(too_much, is_plan=False))[0].mark == "warning"


def test_nearly_full_disk_is_a_warning(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(9e9, 0, 9e8))

    assert [f.mark for f in wrong(places)] == ["warning"]


@pytest.mark.parametrize(("root", "flag"), [("stores", "--store"), ("runs", "--runs")])
def test_root_below_a_file_cannot_be_made(root: str, flag: str, places: Places) -> None:
    folder: Path = getattr(places, root)
    folder.rmdir()
    folder.write_text("in the way")

    [found] = wrong(places)

    assert (found.mark, found.subject) == ("problem", str(folder))
    assert flag in found.remedy


def test_dataset_cache_needs_one_place_that_can_be_written(
    places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places.data.rmdir()
    places.data.write_text("in the way")
    assert wrong(places) == []  # the user's cache takes its place

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDPLUS_CACHE", str(tmp_path / "file" / "cache"))
    assert [(f.mark, "MEDPLUS_CACHE" in f.remedy) for f in wrong(places)] == [("problem", True)]


@pytest.mark.parametrize("variable", ["HF_HOME", "TORCH_HOME"])
def test_folder_of_weights_that_cannot_be_written_is_a_warning(
    variable: str, places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))

    assert [(f.mark, variable in f.remedy) for f in wrong(places)] == [("warning", True)]


def test_offline_without_weights_is_a_warning(
    places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert [f.mark for f in wrong(places)] == ["warning"]

    (tmp_path / "caches/HF_HOME/hub/models--timm--resnet18/snapshots/abc").mkdir(parents=True)
    assert wrong(places) == []


def test_grid_needs_downloads_caches_stores_and_runs(places: Places, tmp_path: Path) -> None:
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "{datasets: breastmnist, sizes: 28, backbones: resnet18, weights: none, seeds: 1, "
        "protocols: {knn: {k: 11}}}"
    )

    need = need_of_grid(grid, places)

    n = 780  # BreastMNIST's images
    assert need.missing == [places.data / "breastmnist.npz"]
    assert need.data == {"downloads": n * (28 * 28 + 1), "caches": n * (28 * 28 + 1)}
    assert need.stores == {"stores": n * (512 * 4 + 1 + 8)}
    assert 0 < need.runs["runs"] < 50_000

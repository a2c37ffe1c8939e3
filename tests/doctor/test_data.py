"""Dataset files: what they are is known from their headers and their cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from medplus.datasets import catalog
from medplus.datasets.cache import FOLDER
from medplus.datasets.phantom import write_phantoms
from medplus.datasets.sources import npz
from medplus.datasets.sources.npz import open_cached
from medplus.doctor import Places
from medplus.doctor.data import cache_need, examine_data


def told(root: Path, deep: bool = False) -> list[tuple[str, str]]:
    return [(f.mark, f.text) for f in examine_data(root, deep)]


UNREAD = "1 file not read yet, so not known to be official (--deep reads them)"
UNOFFICIAL = ("warning", "is not the official file; results record it as unofficial")


def test_file_is_called_unofficial_once_it_has_been_read(
    places: Places, write_npz: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz("breastmnist", size=28, folder=places.data)
    monkeypatch.setattr(npz, "file_md5", lambda path: pytest.fail("the file was hashed"))

    assert told(places.data) == [("ok", UNREAD)]
    monkeypatch.undo()
    assert told(places.data, deep=True)[0] == UNOFFICIAL
    open_cached(path)
    monkeypatch.setattr(npz, "file_md5", lambda path: pytest.fail("the file was hashed"))
    assert told(places.data)[0] == UNOFFICIAL


def test_official_file_is_called_official(
    places: Places, write_npz: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz("breastmnist", size=28, folder=places.data)
    own = catalog.info("breastmnist")
    info = dataclasses.replace(own, md5={**own.md5, 28: npz.file_md5(path)})
    monkeypatch.setattr(catalog, "info", lambda flag: info)
    open_cached(path)

    assert told(places.data) == [("ok", "1 file official")]


def test_phantoms_and_own_files_are_told_apart(
    places: Places, write_npz: Callable[..., Path]
) -> None:
    write_phantoms("breastmnist", [28], places.data, samples=200)
    write_npz("mine", folder=places.data)

    assert told(places.data) == [
        ("ok", "1 file synthetic (phantoms)"),
        ("ok", "1 file not of MedMNIST+"),
    ]


def test_truncated_file_is_a_problem(places: Places, write_npz: Callable[..., Path]) -> None:
    path = write_npz("breastmnist", folder=places.data)
    path.write_bytes(path.read_bytes()[:500])

    problem = next(iter(examine_data(places.data, deep=False)))

    assert (problem.mark, problem.subject) == ("problem", str(path))
    assert problem.remedy == "fetch it again"


def test_damaged_cache_is_found_by_reading(places: Places, write_npz: Callable[..., Path]) -> None:
    path = write_npz("mine", folder=places.data)
    open_cached(path)
    array = places.data / FOLDER / "mine" / "train_images.npy"
    data = bytearray(array.read_bytes())
    data[-1] ^= 1
    array.write_bytes(data)

    assert told(places.data) == [("ok", "1 file not of MedMNIST+")]
    assert ("problem", "the cache is damaged: train_images.npy") in told(places.data, deep=True)


def test_cache_needs_the_size_of_the_arrays_until_it_is_filled(
    places: Places, write_npz: Callable[..., Path]
) -> None:
    path = write_npz("mine", n=(40, 20, 30), size=8, folder=places.data)

    assert cache_need(path) == 90 * (8 * 8 + 1)
    open_cached(path)
    assert cache_need(path) == 0

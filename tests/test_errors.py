"""Errors written for the reader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medplus import errors
from medplus.errors import first_line, nearest


def test_wrong_requests_exit_with_2_and_all_else_with_1():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {
        kind.__name__: kind.exit_code for kind in kinds if issubclass(kind, errors.MedplusError)
    }
    assert codes.pop("UsageError") == 2
    assert set(codes) == {
        "MedplusError", "DatasetError", "BackboneError", "StoreError", "RunError", "SweepError",
        "DownloadError",
    }  # fmt: skip
    assert set(codes.values()) == {1}


@pytest.mark.parametrize(
    ("name", "known", "suggested"),
    [
        ("resnet81", ["resnet18", "vgg16"], "resnet18"),
        ("RESNET18", ["resnet18", "vgg16"], "resnet18"),
        ("breastmnist", ["BreastMNIST"], "BreastMNIST"),
    ],
)
def test_nearest_suggests_the_closest_name_as_it_is_spelt(name, known, suggested):
    assert nearest(name, known) == f"; did you mean '{suggested}'?"


@pytest.mark.parametrize("known", [[], ["vgg16"]])
def test_nearest_is_silent_where_nothing_is_close(known):
    assert nearest("breastmnist", known) == ""


@given(name=st.text(min_size=1), others=st.lists(st.text()))
def test_nearest_finds_a_name_that_is_there(name, others):
    known = [other for other in others if other.lower() != name.lower()]
    assert nearest(name, [*known, name]) == f"; did you mean '{name}'?"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one  \ntwo"), "one  "),
        (ValueError(), "ValueError"),
        (ValueError("  \n "), "ValueError"),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
    ],
)
def test_first_line_is_one_line_and_never_empty(error, line):
    assert first_line(error) == line


def test_no_message_nor_page_has_medplus_installed_by_its_name_from_an_index():
    root = Path(__file__).parents[1]
    folders = [(root, "*.md"), (root / "docs", "**/*.md"), (root / "medplus", "**/*.py")]
    listed = [path for folder, pattern in folders for path in folder.glob(pattern)]
    assert len(listed) > 300
    by_name = re.compile(r"pipx? install (?:-\S+ )*['\"]?medplus\b")
    assert by_name.search("pip install 'medplus[h5]'")
    found = [path for path in listed if by_name.search(path.read_text(encoding="utf-8"))]
    assert found == []


def test_what_the_disk_refuses_is_said_with_the_remedy(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    with (
        pytest.raises(errors.DatasetError, match=r"table cannot be written: .*; choose another"),
        errors.writing("the table", "choose another", errors.DatasetError),
    ):
        (blocked / "below").mkdir()

"""Files of every kind, damaged at random: each is read or refused, and nothing else happens.

`fuzz.py` beside this does the same for hours, guided by coverage.
"""

from __future__ import annotations

import contextlib
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medplus.errors import MedplusError
from tests.hostile.limits import outcome
from tests.hostile.parsers import parsers

NAMES = [
    "image.png", "image.jpg", "image.tif", "image.bmp", "toy.npz", "labels.csv", "labels.parquet",
    "splits.csv", "dataset.yaml", "grid.yaml", "recipe.yaml", "any.yaml",
    "zarr.json", "record.json", "predictions.npz", "w.safetensors", "w.pth", "manifest.json",
    "network.safetensors",
]  # fmt: skip
TOKENS = [
    b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b"true", b'""', b"9" * 25, b"0", b"\n", b"\x00",
    b"*a", b"&a ", b"<<: ", b"!!python/name:os.system ",
    b"!!int ", b"!!timestamp ", b"!!float ", b"../", b"\\ud800", b"\xff", b"'", b": ",
    b",", b"2001-99-99", b"-.inf", b"[[[[", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f",
]  # fmt: skip

edits = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 12),
        st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8)),
    ),
    min_size=1,
    max_size=4,
)  # fmt: skip
Edits = list[tuple[float, int, bytes]]


def edited(data: bytes, changes: Edits) -> bytes:
    """Replace some bytes, at places from 0 (the begin) to 1 (the end), by others."""
    for place, removed, inserted in changes:
        start = int(place * len(data))
        data = data[:start] + inserted + data[start + removed :]
    return data


def read_or_refused(name: str, folder, data: bytes) -> None:
    with warnings.catch_warnings(), contextlib.suppress(MedplusError):
        warnings.simplefilter("ignore")
        parsers()[name].try_on(folder, data)


def test_all_parsers_are_tried():
    assert set(NAMES) == set(parsers())


@pytest.mark.parametrize("name", NAMES)
def test_valid_file_is_read(name, tmp_path):
    """What is fuzzed below begins as something that the parser takes, or nearly."""
    parser = parsers()[name]
    nearly = {"zarr.json": "does not belong", "network.safetensors": "is damaged"}
    try:
        parser.try_on(tmp_path, parser.content())
    except MedplusError as error:
        assert name in nearly, error
        assert nearly[name] in str(error)


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=edits)
def test_damaged_file_is_read_or_refused(name, changes, tmp_path):
    read_or_refused(name, tmp_path, edited(parsers()[name].content(), changes))


@pytest.mark.extensive
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_thousands_of_damaged_files_are_read_or_refused_within_limits(name, tmp_path):
    """The same 3,000 times, in a child that gets 256 MB and five minutes for all of them."""

    @settings(
        max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(changes=edits)
    def trial(changes: Edits) -> None:
        read_or_refused(name, tmp_path, edited(parsers()[name].content(), changes))

    assert outcome(trial, memory_mb=256, seconds=280) == "done"

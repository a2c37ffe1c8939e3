"""`medplus datasets`: what is known, and what is on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def test_tells_which_sizes_are_on_disk(cli: Callable) -> None:
    Path("here").mkdir()
    for name in ("pathmnist.npz", "pathmnist_224.npz", "bloodmnist_64.npz", "pathmnist_32.npz"):
        Path("here", name).touch()

    listed = cli("datasets", "--data-root", "here", "--json").document["datasets"]
    shown = cli("datasets", "--data-root", "here").out.splitlines()

    assert len(listed) == 12
    found = {row["dataset"]: row["sizes_on_disk"] for row in listed if row["sizes_on_disk"]}
    assert found == {"bloodmnist": [64], "pathmnist": [28, 224]}
    assert (
        next(line for line in shown if line.startswith("pathmnist ")).rstrip().endswith("28, 224")
    )


def test_warns_of_licence_and_leak_of_dermamnist(cli: Callable) -> None:
    shown = cli("datasets").out

    assert "arXiv:2401.14497" in shown
    assert "CC BY-NC 4.0" in shown


@pytest.mark.parametrize("width", [80, 120])
def test_no_name_is_broken_in_a_terminal(
    width: int, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = cli("datasets").out

    assert max(len(line) for line in shown.splitlines()) <= width
    for name in ("pneumoniamnist ", "ordinal-regression ", "165,466 ", "CC BY-NC 4.0"):
        assert name in shown

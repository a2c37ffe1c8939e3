"""`medplus doctor` on a healthy root and on a sick one; what it may not do."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus.doctor import examination
from medplus.doctor.trial import PACKAGES, Trial

FACTS: dict[str, dict[str, Any]] = {
    "pynvml": {"driver": None, "cuda": None, "gpus": []},
    "torch": {"cuda": None, "gpus": [], "fault": ""},
    "faiss": {"gpus": 0},
}


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> dict[str, Trial]:
    """Spare the imports, and return what is to come of them."""
    found = {package: Trial(FACTS.get(package, {})) for package in PACKAGES}
    monkeypatch.setattr(examination, "try_packages", lambda: found)
    return found


@pytest.fixture
def doctor(
    cli: Callable, trials: dict[str, Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable:
    for name in ("MEDPLUS_CACHE", "HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "caches"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return lambda *arguments: cli("doctor", *arguments)


@pytest.fixture
def sick(tmp_path: Path, write_npz: Callable, write_store: Callable) -> Path:
    """Fill the working folder: a damaged store, a stale lock, an interrupted download."""
    (tmp_path / "data").mkdir()
    write_npz("mine", folder=tmp_path / "data")
    values = [np.zeros((n, 4), np.float32) for n in (9, 3, 3)]
    labels = [np.zeros(n, np.uint8) for n in (9, 3, 3)]
    store = write_store(values, labels, root=tmp_path / "embeddings")
    (store.path / "train/embeddings/c/0/0").write_bytes(b"cut")
    store.path.with_name(f"{store.path.name}.lock").write_text('{"host": "", "pid": 0}')
    (tmp_path / "data/octmnist.npz.part").write_bytes(b"begun")
    return store.path


def digest(root: Path) -> str:
    """Return a digest over names, contents, modes and times of a tree."""
    found = hashlib.sha256()
    for path in sorted([root, *root.rglob("*")]):
        stat = path.lstat()
        found.update(f"{path}:{stat.st_mode}:{stat.st_mtime_ns}:{stat.st_ctime_ns}\n".encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()


def test_empty_folder_is_healthy_also_with_a_warning(doctor: Callable, tmp_path: Path) -> None:
    ran = doctor()

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == "nothing is wrong"
    (tmp_path / "data").mkdir()
    (tmp_path / "data/octmnist.npz.part").write_bytes(b"begun")
    ran = doctor()
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "1 warning")
    assert "✗" not in ran.out


def test_what_is_wrong_is_told_and_ends_with_1(doctor: Callable, sick: Path) -> None:
    ran = doctor("--json")

    assert ran.code == 1
    told = [(f["group"], f["mark"]) for f in ran.document["findings"] if f["mark"] != "ok"]
    assert told == [("stores", "problem"), ("leftovers", "warning"), ("leftovers", "warning")]
    assert (ran.document["healthy"], ran.document["problems"]) == (False, 1)
    assert ran.document["warnings"] == 2
    assert ran.document["removed"] == []


@pytest.mark.parametrize("flags", [[], ["--deep"]], ids=["quick", "deep"])
def test_nothing_is_written_and_nothing_asked_of_the_network(
    flags: list[str], doctor: Callable, sick: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "{datasets: data/mine.npz, backbones: pixels, seeds: 1, protocols: {knn: {k: 1}}}"
    )
    before = digest(tmp_path)

    doctor(*flags)
    ran = doctor(grid, *flags)

    assert "cannot be examined" not in ran.out
    assert digest(tmp_path) == before


def test_fix_removes_the_stale_lock_and_nothing_else(
    doctor: Callable, sick: Path, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))

    ran = doctor("--fix", "--json")

    stale = sick.with_name(f"{sick.name}.lock")
    assert before - set(tmp_path.rglob("*")) == {stale}
    assert ran.document["removed"] == [str(stale.relative_to(tmp_path))]
    assert ran.document["warnings"] == 1
    assert ran.code == 1  # the store is as damaged as before


def test_broken_torch_is_a_problem_and_the_rest_is_examined(
    doctor: Callable, trials: dict[str, Trial], tmp_path: Path
) -> None:
    trials["torch"] = Trial(error="its import ends the process with SIGSEGV")
    grid = tmp_path / "grid.yaml"
    grid.write_text("")

    ran = doctor(grid, "--deep")

    assert ran.code == 1
    assert "torch: cannot be imported: its import ends the process with SIGSEGV" in ran.out
    assert ran.out.count("not examined, since torch cannot be imported") == 2  # grid, runs
    assert "no folder embeddings" in ran.out


def test_part_that_fails_is_told_in_its_place(
    doctor: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "embeddings").mkdir()

    def fail(root: Path, deep: bool) -> None:
        raise RuntimeError("what nobody foresaw")

    monkeypatch.setattr("medplus.doctor.stores.examine_stores", fail)

    ran = doctor()

    assert ran.code == 1
    assert "cannot be examined: RuntimeError: what nobody foresaw" in ran.out
    assert "leftovers    ✓ none" in ran.out


def test_missing_grid_is_wrong_usage(doctor: Callable) -> None:
    ran = doctor("nowhere.yaml")

    assert ran.code == 2
    assert "nowhere.yaml does not exist" in ran.err


@pytest.mark.parametrize("width", [80, 120])
def test_lines_fit_the_terminal(
    width: int, doctor: Callable, sick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    lines = doctor().out.splitlines()

    # A path that is longer than a line stays in one piece, alone.
    fitting = [line for line in lines if len(line.split()) > 2]
    assert width - 20 < max(map(len, fitting)) <= width


def test_many_of_a_kind_are_counted_not_listed(doctor: Callable, tmp_path: Path) -> None:
    for i in range(9):
        folder = tmp_path / f"runs/knn/toy/28/net/k{i}-0123abcd"
        folder.mkdir(parents=True)

    out = doctor().out

    assert out.count("there is no run at") == 3
    assert "and 6 more of these (--json lists all)" in out
    assert out.splitlines()[-1] == "9 problems"

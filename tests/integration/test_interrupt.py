"""Ctrl-C and `kill -9` at any moment: finished work is kept, and the same command goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from medplus.embeddings.writer import StoreWriter

EXTRACT = ("extract", "--dataset", "toy.npz", "--backbone", "pixels")
PROBE = ("probe", "--backbone", "pixels", "--epochs", "3", "--seed", "1,2", "--json")


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make chunks of 8 rows, so that a small dataset has many."""
    monkeypatch.setattr("medplus.embeddings.layout.CHUNK_ROWS", 8)
    yield


def contents(root: Path) -> dict[str, bytes]:
    """Return every array file of a store; its zarr.json also holds times."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("c/**/*") if p.is_file()}


def interrupt_call(number: int, of: Callable[..., Any]) -> Callable[..., Any]:
    """Return `of`, with Ctrl-C at its call of that number, counted from 1."""
    calls = iter(range(1, 1000))

    def call(*arguments: Any, **named: Any) -> Any:
        if next(calls) == number:
            raise KeyboardInterrupt
        return of(*arguments, **named)

    return call


def interrupted(cli: Callable, *arguments: object) -> None:
    """Run a command that is interrupted, and check that it ends as such."""
    ran = cli(*arguments)

    assert ran.code == 130
    assert "Interrupted: finished work is kept" in ran.err
    assert "Traceback" not in ran.err


# --- extract -------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [1, 2, 5, 11])
@pytest.mark.parametrize("where", ["the forward", "the commit"])
def test_ctrl_c_in_extract_keeps_finished_chunks(
    call: int,
    where: str,
    cli: Callable,
    write_npz: Callable[..., Path],
    tmp_path: Path,
    chunks: None,
    leftovers: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from medplus.backbones.inference import Embedder

    write_npz("toy", n=(40, 20, 30), folder=tmp_path)
    whole = Path(cli(*EXTRACT, "--store", "whole", "--json").document["stores"][0]["path"])
    with monkeypatch.context() as patch:
        if where == "the forward":
            patch.setattr(Embedder, "__call__", interrupt_call(call + 1, Embedder.__call__))
        else:
            patch.setattr(StoreWriter, "commit", interrupt_call(call, StoreWriter.commit))
        interrupted(cli, *EXTRACT)
    assert leftovers(tmp_path) == []
    assert cli("store", "verify").code == 1

    [done] = cli(*EXTRACT, "--json").document["stores"]

    assert done["status"] == "resumed"
    # What waits to be written when a write fails is written all the same.
    assert call - 1 <= done["chunks_reused"] < 12
    assert done["chunks_computed"] == 12 - done["chunks_reused"]
    assert contents(Path(done["path"])) == contents(whole)
    assert cli("store", "verify").code == 0


def test_ctrl_c_is_told_as_json(
    cli: Callable, write_npz: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz("toy", folder=tmp_path)
    monkeypatch.setattr(StoreWriter, "finish", interrupt_call(1, StoreWriter.finish))

    ran = cli(*EXTRACT, "--json")

    assert ran.code == 130
    assert ran.document["error"]["type"] == "Interrupted"


def test_stores_finished_before_ctrl_c_are_kept(
    cli: Callable, write_npz: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate("abc"):
        write_npz(name, seed=seed, folder=tmp_path)
    command = ("extract", "--dataset", "a.npz,b.npz,c.npz", "--backbone", "pixels")
    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "finish", interrupt_call(2, StoreWriter.finish))
        interrupted(cli, *command)

    stores = cli(*command, "--json").document["stores"]

    assert [s["status"] for s in stores] == ["skipped", "resumed", "extracted"]
    assert [s["chunks_computed"] for s in stores] == [0, 0, 3]


# --- heads ---------------------------------------------------------------------------------------


@pytest.fixture
def two_stores(cli: Callable, write_npz: Callable[..., Path], tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        write_npz(name, seed=seed, folder=tmp_path)
        assert cli("extract", "--dataset", f"{name}.npz", "--backbone", "pixels").code == 0


@pytest.mark.parametrize("call", [1, 2])
def test_ctrl_c_in_a_probe_keeps_finished_stores(
    call: int,
    cli: Callable,
    two_stores: None,
    leftovers: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from medplus.heads.probe import stack

    expected = cli(*PROBE, "--dataset", "a,b", "--runs", "whole").document["runs"]
    with monkeypatch.context() as patch:
        patch.setattr(stack, "train_heads", interrupt_call(call, stack.train_heads))
        interrupted(cli, *PROBE, "--dataset", "a,b")
    assert len(list(Path().glob("runs/*/*/*/*/*/record.json"))) == 2 * (call - 1)
    assert leftovers(tmp_path) == []

    runs = cli(*PROBE, "--dataset", "a,b").document["runs"]

    assert [run["metrics"] for run in runs] == [run["metrics"] for run in expected]


@pytest.mark.parametrize("protocol", ["knn", "probe"])
def test_ctrl_c_while_a_run_is_saved_leaves_no_half_run(
    protocol: str,
    cli: Callable,
    two_stores: None,
    leftovers: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from medplus import atomic

    arguments = ("--dataset", "a,b", "--backbone", "pixels", "--json")
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_json", interrupt_call(2, atomic.write_json))
        interrupted(cli, protocol, *arguments)

    assert leftovers(tmp_path) == []
    finished = list(Path().glob("runs/*/*/*/*/*"))
    assert len(finished) == 1
    assert (finished[0] / "record.json").exists()
    assert cli(protocol, *arguments).code == 0


@pytest.mark.parametrize("protocol", ["knn", "probe"])
def test_ctrl_c_during_overwrite_loses_no_run(
    protocol: str, cli: Callable, two_stores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medplus import atomic

    arguments = (protocol, "--dataset", "a", "--backbone", "pixels", "--json")
    before = cli(*arguments).document["runs"]
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_json", interrupt_call(1, atomic.write_json))
        interrupted(cli, *arguments, "--overwrite")

    assert [Path(run["path"], "record.json").exists() for run in before] == [True] * len(before)
    assert cli(*arguments).document["runs"] == before


# --- phantoms ------------------------------------------------------------------------------------


def test_ctrl_c_in_phantom_leaves_no_half_file(
    cli: Callable, leftovers: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", interrupt_call(1, np.savez_compressed))
        interrupted(cli, "phantom", "--dataset", "breastmnist", "--samples", "60", "--out", "data")

    assert list(Path().glob("data/*")) == []
    assert leftovers(tmp_path) == []

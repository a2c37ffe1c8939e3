"""`medplus store …`: what each command prints; the whole way is in tests/integration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def store(write_store: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete store of 10, 4 and 4 rows, named relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    values = [np.ones((n, 3), np.float32) for n in (10, 4, 4)]
    labels = [np.arange(n) % 3 for n in (10, 4, 4)]
    written = write_store(values, labels, root=tmp_path / "embeddings")
    path: Path = written.path.relative_to(tmp_path)
    return path


def test_ls_as_document(cli: Callable, store: Path) -> None:
    [row] = cli("store", "ls", "--json").document["stores"]

    assert row["path"] == str(store)
    assert (row["dataset"], row["size"], row["backbone"]) == ("toy", 28, "toynet")
    assert row["splits"] == {"train": 10, "val": 4, "test": 4}
    assert row["bytes"] == sum(
        path.stat().st_size for path in store.rglob("c/**/*") if path.is_file()
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_ls_fits_and_keeps_what_identifies_a_store(
    width: int, cli: Callable, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    [row] = cli("store", "ls", "--json").document["stores"]
    shown = cli("store", "ls").out

    assert max(len(line) for line in shown.splitlines()) <= max(width, 70)
    for part in ("toy ", "toynet ", row["key"][:8], "complete"):
        assert part in shown


def test_verify_says_what_is_damaged(cli: Callable, store: Path) -> None:
    (store / "train/embeddings/c/0/0").unlink()
    (store / "val/labels/zarr.json").write_text("{}")

    ran = cli("store", "verify", store)

    assert ran.code == 1
    lines = [line.strip() for line in ran.out.splitlines()]
    assert lines[0].split() == ["damaged", str(store)]
    assert lines[1:3] == ["train/embeddings: chunk 0", "val/labels: metadata"]
    assert lines[3].startswith("this repairs it: medplus extract --dataset ")


def test_verify_as_document_ends_with_code_1_too(cli: Callable, store: Path) -> None:
    (store / "train/embeddings/c/0/0").unlink()

    ran = cli("store", "verify", "--json")

    assert ran.code == 1
    assert ran.document["stores"][0]["damage"] == [{"array": "train/embeddings", "chunk": 0}]
    assert ran.err == ""


@pytest.mark.parametrize("spoil", [b"", b"{}", b"not json"])
def test_verify_of_a_store_without_its_description(
    spoil: bytes, cli: Callable, store: Path
) -> None:
    (store / "zarr.json").write_bytes(spoil)

    [result] = cli("store", "verify", store, "--json").document["stores"]

    assert result["status"] == "damaged"
    assert f"medplus store rm {store}" in result["remedy"]


def test_the_command_that_removes_a_damaged_store_works(cli: Callable, store: Path) -> None:
    (store / "zarr.json").unlink()

    assert cli("store", "rm", store, "--yes").code == 0
    assert not store.exists()


def test_verify_of_nothing(cli: Callable) -> None:
    ran = cli("store", "verify", "--store", "nowhere")

    assert ran.code == 2
    assert "no stores under nowhere" in ran.err


def test_an_archive_serves_wherever_a_store_does(cli: Callable, store: Path) -> None:
    exported = cli("store", "export", store, "--to", "x.zarr.zip", "--json")
    assert exported.document["target"] == "x.zarr.zip"
    assert cli("store", "verify", "x.zarr.zip").out.split() == ["intact", "x.zarr.zip"]
    shown = cli("store", "info", "x.zarr.zip", "--json").document
    assert shown["key"] == cli("store", "info", store, "--json").document["key"]

    runs = [
        cli("knn", "--store", place, "--k", 3, "--runs", f"runs-{i}", "--json").document["runs"][0]
        for i, place in enumerate(("x.zarr.zip", store))
    ]
    assert runs[0]["metrics"] == runs[1]["metrics"]
    assert runs[0]["run_id"] == runs[1]["run_id"]
    probe = ("probe", "--store", "x.zarr.zip", "--epochs", 1, "--seed", 1, "--json")
    [run] = cli(*probe).document["runs"]
    assert cli("evaluate", run["path"], "--json").code == 0


@pytest.mark.parametrize("arguments", [(), ("a.npz", "--to", "b.npz")])
def test_export_goes_to_one_file(arguments: tuple[str, ...], cli: Callable, store: Path) -> None:
    ran = cli("store", "export", store, *arguments)

    assert ran.code == 2
    assert "name one file to export to" in ran.err


def test_one_store_has_to_be_what_is_asked_for(cli: Callable, store: Path) -> None:
    named = ("--dataset", "toy", "--backbone")
    assert cli("knn", "--store", store, *named, "toynet", "--k", 3).code == 0
    assert cli("knn", "--store", store, *named, "resnet18", "--k", 3).code == 1

    missing = cli("knn", "--k", 3)

    assert missing.code == 2
    assert "missing option --dataset; name what is meant, or one store with --store" in missing.err

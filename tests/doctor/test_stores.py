"""Stores: whole, unfinished, in use, damaged."""

from __future__ import annotations

from pathlib import Path

from medplus import lock
from medplus.doctor import Finding, Places
from medplus.doctor.stores import examine_stores
from medplus.embeddings.info import read_info, write_info
from medplus.embeddings.store import EmbeddingStore


def marks(root: Path, deep: bool = False) -> list[tuple[str, str]]:
    return [(f.mark, f.text) for f in examine_stores(root, deep) if f.mark != "ok"]


def test_missing_and_cut_chunks_are_damage_and_the_repair_is_named(
    places: Places, store: EmbeddingStore
) -> None:
    (store.path / "train/embeddings/c/1/0").unlink()
    cut = store.path / "val/labels/c/0/0"
    cut.write_bytes(cut.read_bytes()[:-1])

    problem = next(f for f in examine_stores(places.stores, deep=False) if f.mark == "problem")

    assert problem.subject == str(store.path)
    assert problem.text == "damaged: train/embeddings chunk 1, val/labels chunk 0"
    assert "medplus extract --dataset /data/toy.npz" in problem.remedy


def test_flipped_byte_is_found_by_reading_alone(places: Places, store: EmbeddingStore) -> None:
    chunk = store.path / "train/embeddings/c/0/0"
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)

    [found] = examine_stores(places.stores, deep=False)
    assert (found.mark, found.text.split(" in ")[0]) == ("ok", "1 of 1 store")
    assert marks(places.stores, deep=True) == [("problem", "damaged: train/embeddings chunk 0")]


def half_written(store: EmbeddingStore) -> None:
    info = read_info(store.path)
    info.complete = False
    (store.path / "train/embeddings/c/1/0").unlink()
    write_info(store.path, info)


def test_half_written_store_is_a_warning_with_the_command_that_goes_on(
    places: Places, store: EmbeddingStore
) -> None:
    half_written(store)

    found: list[Finding] = [f for f in examine_stores(places.stores, False) if f.mark != "ok"]

    assert [(f.mark, f.text) for f in found] == [("warning", "unfinished, 3 of 4 chunks")]
    assert found[0].remedy.startswith("this completes it: medplus extract ")


def test_store_that_is_being_written_is_left_in_peace(
    places: Places, store: EmbeddingStore
) -> None:
    half_written(store)

    with lock.hold(store.path.with_name(f"{store.path.name}.lock"), "the store"):
        assert marks(places.stores) == []

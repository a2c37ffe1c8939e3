"""A flipped bit or a missing end, anywhere in any file: right numbers or an error, nothing else."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus.backbones.finetuned import read_network
from medplus.datasets.cache import damaged_files
from medplus.datasets.sources.npz import open_cached
from medplus.embeddings.store import open_store
from medplus.errors import MedplusError
from medplus.run.ledger import read_head, read_predictions, read_record
from medplus.tensorfile import read_tensors
from medplus.vocabulary import SPLITS
from tests.faults.warm import Fault, Warm
from tests.faults.world import COMMANDS, make_world, results, same

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SHORT = 20
"""Places per file that the short form tries; the long one tries every byte."""


@pytest.fixture(scope="module")
def world(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every kind of file lies, also the state of a run under way."""
    folder = tmp_path_factory.mktemp("damage") / "world"
    make_world(folder)
    for command in ("extract", "knn", "probe"):
        ended = warm(*COMMANDS[command], folder=folder)
        assert ended.code == 0, ended.said
    train = (*COMMANDS["finetune"][:-1], "1")
    assert warm(*train, folder=folder).code == 0
    other = (*COMMANDS["finetune"][:-1], "3")
    changes = 0
    while not list(folder.rglob("last.safetensors")):
        changes += 50
        warm(*other, folder=folder, fault=Fault(signal.SIGKILL, at_change=changes))
    return folder


@pytest.fixture(autouse=True)
def chunks_of_eight_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medplus.embeddings.layout.CHUNK_ROWS", 8)


def plain(value: Any) -> Any:
    """Return what a reader returned as what can be compared."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)
    return np.asarray(value).tolist() if hasattr(value, "shape") else value


def read_store(path: Path) -> Any:
    store = open_store(path)
    read = (store.embeddings, store.labels, store.index)
    info = store.info.model_dump(include=set(type(store.info).model_fields))
    return info, {split: [array(split).tolist() for array in read] for split in SPLITS}


def read_cache(path: Path) -> Any:
    found = open_cached(path)
    # Pixels are not checked on every reading; `damaged_files` finds what is wrong with them.
    checked = {name: a if "labels" in name else a.shape for name, a in found.arrays.items()}
    return found.facts, checked


KINDS: dict[str, tuple[str, Callable[[Path], Any], int]] = {
    "record": ("**/probe/**/record.json", lambda file: read_record(file.parent), 0),
    "predictions": ("**/knn/**/predictions.npz", lambda file: read_predictions(file.parent), 0),
    "head": ("**/pixels/**/head.safetensors", lambda file: read_head(file.parent), 0),
    "network": ("**/network.safetensors", lambda file: read_network(file.parent), 40),
    "state": ("**/last.safetensors", read_tensors, 200),
    "store": ("**/pixels-*.zarr/zarr.json", lambda file: read_store(file.parent), 0),
    "cache": ("**/meta.json", lambda file: read_cache(file.parents[2] / "toy.npz"), 0),
    "header": ("**/train_images.npy", lambda file: read_cache(file.parents[2] / "toy.npz"), 0),
    "labels": ("**/val_labels.npy", lambda file: read_cache(file.parents[2] / "toy.npz"), 0),
}
"""Kinds of files: where one lies, what reads it, and how far apart the long form tries places in
those too large to try every byte (0: every byte)."""


def harmed(content: bytes, place: int) -> tuple[bytes, bytes]:
    """Return content with a bit of one byte flipped, and cut off there."""
    flipped = bytearray(content)
    flipped[place] ^= 1 << place % 8
    return bytes(flipped), content[:place]


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.extensive)])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_at_any_place_is_refused_or_does_not_matter(
    kind: str, long: bool, world: Path, tmp_path: Path, tell: Callable[[object], None]
) -> None:
    pattern, read, stride = KINDS[kind]
    world = Path(shutil.copytree(world, tmp_path / "world"))
    file = min(world.rglob(pattern.removeprefix("**/")))
    read(file)  # so that what it writes by the way is there
    expected, intact = plain(read(file)), file.read_bytes()
    length = min(len(intact), 128) if kind == "header" else len(intact)
    step = max(stride, 1) if long else max(length // SHORT, 1)
    refused = right = 0
    for place in range(0, length, step):
        for content in harmed(intact, place):
            file.write_bytes(content)
            try:
                found = plain(read(file))
            except MedplusError:
                refused += 1
            else:
                assert same(found, expected, 0.0), f"{kind} at byte {place} of {length}"
                right += 1
    file.write_bytes(intact)

    assert plain(read(file)) == expected
    assert right if kind in ("cache", "header", "labels") else refused > right
    tell(f"{kind}: {refused + right} damages, {refused} refused, {right} read right, 0 wrong")


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.extensive)])
def test_every_damage_of_a_cache_is_found_by_reading_all_of_it(
    long: bool, world: Path, tmp_path: Path, tell: Callable[[object], None]
) -> None:
    folder = Path(shutil.copytree(world / ".medplus-cache/toy", tmp_path / "toy"))
    assert damaged_files(folder) == []
    tried = 0
    for file in sorted(folder.iterdir()):
        intact = file.read_bytes()
        step = 1 if long else max(len(intact) // SHORT, 1)
        places = range(0, len(intact), step)
        for place in places:
            # Indentation in meta.json may change and mean the same.
            if file.suffix == ".json" and intact[place : place + 1].isspace():
                continue
            for content in harmed(intact, place):
                file.write_bytes(content)
                assert damaged_files(folder) == [file], f"{file.name} at byte {place}"
                tried += 1
        file.write_bytes(intact)
    tell(f"whole caches: {tried} damages, all found and named")


@pytest.mark.parametrize("n", [2, pytest.param(60, marks=pytest.mark.extensive)])
def test_verify_names_each_damaged_chunk_and_extract_repairs_exactly_those(
    n: int, warm: Warm, world: Path, tmp_path: Path, tell: Callable[[object], None]
) -> None:
    world = Path(shutil.copytree(world, tmp_path / "world"))
    extract = (*COMMANDS["extract"], "--json", "-q")
    assert warm(*extract, folder=world).code == 0
    expected = results(world)
    files = sorted(p for p in (world / "embeddings").rglob("c/**/*") if p.is_file())
    rng = np.random.default_rng(n)
    for _ in range(n):
        victims = rng.choice(len(files), rng.integers(1, 4), replace=False)
        named, repaired = set(), 0
        for victim in victims:
            path = files[victim]
            content = path.read_bytes()
            path.write_bytes(harmed(content, int(rng.integers(len(content))))[rng.integers(2)])
            array, chunk = str(path.relative_to(world)).split("/c/")
            store, array = array.split(".zarr/")
            named.add((f"{store}.zarr", array, int(chunk.split("/")[0])))
            repaired += array.endswith("embeddings")

        verified = warm("store", "verify", "--json", folder=world)
        again = warm(*extract, folder=world)

        assert verified.code == 1
        assert _named(verified.said) == named
        stores = json.loads(again.said[again.said.index("{") :])["stores"]
        assert sum(store["chunks_computed"] for store in stores) == repaired
        assert results(world) == expected
    tell(f"verify and repair: {n} times 1 to 3 chunks, all named, exactly those computed again")


def _named(said: str) -> set[tuple[str, str, int]]:
    document = json.loads(said[said.index("{") :])
    return {
        (store["path"], part["array"], part["chunk"])
        for store in document["stores"]
        for part in store["damage"]
    }

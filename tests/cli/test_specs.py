"""Which stores `knn` and `probe` take, given the selectors of `extract`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medplus.cli.specs import select_stores
from medplus.errors import MedplusError

NO_FILTER = dict.fromkeys(("weights", "precision", "dtype", "fit", "feature", "key"))


@pytest.fixture
def find(tmp_path: Path) -> Callable[..., list[Path]]:
    """Return a function that selects among the stores under the test's folder."""

    def select(dataset: str = "toy", size: str | None = None, **more: Any) -> list[Path]:
        arguments: dict[str, Any] = {"data_root": None, "device": "cpu", **NO_FILTER, **more}
        sizes = None if size is None else tuple(map(int, size.split(",")))
        backbones = tuple(arguments.pop("backbone", "toynet").split(","))
        found = select_stores(
            datasets=tuple(dataset.split(",")), sizes=sizes, backbones=backbones,
            store_root=tmp_path / "embeddings", **arguments,
        )  # fmt: skip
        return [store.path for store in found]

    return select


@pytest.fixture
def add(write_store: Callable, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that adds a store with the given properties."""

    def write(**properties: object) -> Path:
        values = {split: np.zeros((4, 2), np.float32) for split in ("train", "val", "test")}
        labels = {split: np.arange(4) % 3 for split in values}
        store = write_store(values, labels, root=tmp_path / "embeddings", **properties)
        return store.path

    return write


def test_every_combination_in_order(add: Callable, find: Callable) -> None:
    made = {
        (dataset, size, backbone): add(dataset=dataset, size=size, backbone=backbone)
        for dataset in "ab"
        for size in (28, 64)
        for backbone in ("net1", "net2")
    }

    assert find("a,b", "28,64", backbone="net1,net2") == list(made.values())
    assert find("b", "64", backbone="net1") == [made["b", 64, "net1"]]


def test_a_size_left_out_matches_any(add: Callable, find: Callable) -> None:
    meant = add(size=64)

    assert find() == [meant]


def test_a_file_selects_the_store_of_its_own_data(
    cli: Callable, write_npz: Callable[..., Path], tmp_path: Path, find: Callable
) -> None:
    paths = {}
    for seed, folder in enumerate("ab"):
        (tmp_path / folder).mkdir()
        file = write_npz("toy", seed=seed, folder=tmp_path / folder)
        ran = cli("extract", "--dataset", file, "--backbone", "pixels", "--json")
        paths[folder] = tmp_path / ran.document["stores"][0]["path"]

    assert find("a/toy.npz", backbone="pixels") == [paths["a"]]
    assert find(str(tmp_path / "b/toy.npz"), backbone="pixels") == [paths["b"]]


def test_a_data_root_selects_the_store_of_its_own_data(cli: Callable, find: Callable) -> None:
    paths = []
    for seed in (1, 2):
        cli("phantom", "--dataset", "breastmnist", "--samples", "60", "--seed", seed, "--out", seed)
        arguments = ("--dataset", "breastmnist", "--backbone", "pixels", "--data-root", seed)
        paths.append(Path(cli("extract", *arguments, "--json").document["stores"][0]["path"]))

    found = [find("breastmnist", backbone="pixels", data_root=Path(root))[0] for root in ("1", "2")]

    assert [path.name for path in found] == [path.name for path in paths]


def test_a_data_root_without_the_file_is_named(add: Callable, find: Callable) -> None:
    add(dataset="breastmnist")

    with pytest.raises(MedplusError, match=r"nowhere/breastmnist.npz does not exist"):
        find("breastmnist", data_root=Path("nowhere"))

"""Folders of weights: what is taken, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from medplus.backbones.build import load_backbone
from medplus.backbones.sources import resolve
from medplus.backbones.weights import weights_label
from medplus.backbones.weights_folder import is_weights_folder, read_manifest, write_folder_weights
from medplus.errors import BackboneError, UsageError
from medplus.sweep.grid import read_grid
from medplus.sweep.inventory import Inventory
from medplus.sweep.job import Place

TAG = "test_resnet.r160_in1k"


@pytest.fixture
def folder(tmp_path) -> Path:
    torch.manual_seed(4)
    path = tmp_path / "weights"
    write_folder_weights(path, TAG, timm.create_model("test_resnet").state_dict())
    return path


def refusal(folder: Path, name: str = "test_resnet") -> str:
    with pytest.raises(BackboneError) as caught:
        load_backbone(name, str(folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def test_weights_are_added_beside_others(folder):
    state = timm.create_model("test_vit").state_dict()
    write_folder_weights(folder, "test_vit.r160_in1k", state)
    assert list(read_manifest(folder).weights) == [TAG, "test_vit.r160_in1k"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json", f"{TAG}.safetensors", "test_vit.r160_in1k.safetensors",
    ]  # fmt: skip
    load_backbone("test_resnet", str(folder))


def test_backbone_that_is_not_in_the_folder(folder):
    message = refusal(folder, "resnet18")
    assert f"no weights of resnet18.a1_in1k (there: {TAG})" in message
    assert f"--fetch resnet18.a1_in1k --to {folder}" in message


def test_another_tag_of_the_same_network_is_another_backbone(folder):
    edit(folder, lambda d: d["weights"].update(x=d["weights"].pop(TAG)))
    assert f"no weights of {TAG}" in refusal(folder)


@pytest.mark.parametrize("place", [8, 500, -1])
def test_any_other_byte_is_noticed(folder, place):
    path = folder / f"{TAG}.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert "is not the file that manifest.json names" in refusal(folder)


def test_file_that_is_missing(folder):
    (folder / f"{TAG}.safetensors").unlink()
    assert "is missing" in refusal(folder)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "3", '{"format": 2}', '{"format": 1, "weights": 3}',
     '{"weights": {"a": 1}}'],
)  # fmt: skip
def test_damaged_manifest(folder, content):
    (folder / "manifest.json").write_text(content)
    assert "manifest.json is damaged" in refusal(folder)


@pytest.mark.parametrize("name", ["../w.safetensors", "/w.safetensors", "a/b.safetensors", "w.pth"])
def test_manifest_names_no_file_outside_and_no_pickle(folder, name):
    edit(folder, lambda document: document["weights"][TAG].update(file=name))
    assert "is damaged" in refusal(folder)


def test_damaged_manifest_is_not_written_over(folder):
    (folder / "manifest.json").write_text("{")
    with pytest.raises(BackboneError, match="damaged"):
        write_folder_weights(folder, TAG, {"a": torch.zeros(1)})
    assert (folder / "manifest.json").read_text() == "{"


def test_folder_without_a_manifest(tmp_path):
    assert "is a folder without manifest.json" in refusal(tmp_path)


def test_folder_goes_by_the_name_of_what_it_holds(folder, tmp_path):
    assert weights_label(str(folder)) == "pretrained"
    assert weights_label("none") == "none"
    assert weights_label(str(tmp_path)) == str(tmp_path)
    assert not is_weights_folder("a" * 5000)


def test_what_is_missing_is_told_before_any_work(folder):
    resolve("test_resnet", str(folder))
    with pytest.raises(BackboneError, match=r"no weights of resnet18\.a1_in1k"):
        resolve("resnet18", str(folder))


# --- stores and sweeps ------------------------------------------------------------------------


def random_content() -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(1)
    embeddings = [rng.random((n, 3), dtype=np.float32) for n in (6, 4, 5)]
    return embeddings, [np.arange(len(rows), dtype=np.uint8) % 3 for rows in embeddings]


def grid_file(folder: Path, backbones: str, data: Path) -> Path:
    path = folder.parent / "grid.yaml"
    path.write_text(
        f"datasets: ['{data}']\nbackbones: [{backbones}]\nweights: {folder}\n"
        "seeds: [1]\nprotocols:\n  knn: {k: [1]}\n"
    )
    return path


def test_sweep_from_the_folder_finds_what_was_made_from_the_hub(
    folder, write_store: Callable, write_npz: Callable
):
    from medplus.datasets.sources import load_dataset

    data = write_npz("toy", size=8)
    digest = load_dataset(str(data)).digest
    store = write_store(
        *random_content(), weights="pretrained", size=8, backbone="test_resnet",
        dataset_digest=digest,
    )  # fmt: skip
    grid = read_grid(grid_file(folder, "test_resnet", data))
    place = Place(str(data.parent), str(store.path.parents[2]), str(folder.parent / "runs"))
    inventory = Inventory(grid, place)
    [spec] = grid.specs()
    found = inventory.store_of(spec)
    assert found is not None
    assert found[0] == str(store.path)


def test_sweep_that_the_folder_cannot_serve_is_refused(folder, write_npz: Callable):
    with pytest.raises(UsageError, match=r"no weights of resnet18\.a1_in1k"):
        read_grid(grid_file(folder, "test_resnet, resnet18, pixels", write_npz("toy", size=8)))

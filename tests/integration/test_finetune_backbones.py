"""All ten of the paper's backbones train, at 224 px, by the paper's deterministic recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from medplus.backbones.build import load_backbone
from medplus.backbones.catalog import PAPER
from medplus.config import FinetuneRecipe
from medplus.datasets.sources import load_dataset
from medplus.training.launch import make_fabric, reproducible
from medplus.training.network import build_network, set_training_mode
from medplus.training.step import Stepper

LIGHT = ("resnet18", "densenet121", "efficientnet_b4")
HEAVY = {
    "vgg16": 4096, "alexnet": 4096, "vit_base_patch16_224": 768, "vit_base_patch16_clip_224": 768,
    "eva02_base_patch16_clip_224": 768, "vit_base_patch16_224.dino": 768,
    "samvit_base_patch16": 256,
}  # fmt: skip
"""Names and dimensions. Training these from the command line would mostly write gigabytes: their
state has three times the size of the network. A step in memory shows the same of the network."""


def test_these_are_all_ten() -> None:
    assert {*LIGHT, *HEAVY} == set(PAPER)


@pytest.mark.extensive
def test_light_backbones_train_from_the_command_line(
    cli: Callable, write_npz: Callable[..., Path], quick_picture: None, tmp_path: Path
) -> None:
    write_npz("toy", n=(4, 2, 2), size=28, folder=tmp_path)

    ran = cli(
        "finetune", "--dataset", "toy.npz", "--backbone", ",".join(LIGHT), "--weights", "none",
        "--epochs", "1", "--batch-size", "2", "--json", "-q",
    )  # fmt: skip

    assert ran.code == 0, ran.err
    for name, record in zip(LIGHT, ran.document["runs"], strict=True):
        assert (record["backbone"], record["epochs_run"]) == (name, 1)
        assert record["training"]["deterministic"] == "yes"
        assert record["training"]["batch_norm"] == "one"
        assert math.isfinite(record["metrics"]["val"]["loss"])
        assert Path(record["path"], "network.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        item
        if item[0] == "eva02_base_patch16_clip_224"
        else pytest.param(*item, marks=pytest.mark.extensive)
        for item in HEAVY.items()
    ],
)
def test_heavy_backbone_makes_a_step(name: str, dim: int, write_npz: Callable[..., Path]) -> None:
    images = load_dataset(str(write_npz("toy", n=(1, 1, 1), size=28)))
    backbone = load_backbone(name, "none", 28, frozen=False)
    recipe = FinetuneRecipe(batch_size=1)
    network = build_network(backbone, dim, 2, recipe, torch.Generator().manual_seed(0))
    set_training_mode(network, recipe)
    small = [p for p in network.parameters() if p.numel() < 100_000]
    before = [parameter.detach().clone() for parameter in small]
    fabric: Any = make_fabric(torch.device("cpu"), 1, "fp32")
    fabric.launch()
    pixels, label = torch.from_numpy(images.splits["train"].images[:1].copy()), torch.tensor([[1]])

    with reproducible(True, network, "fp32", torch.device("cpu")) as promise:
        step = Stepper(fabric, network, images, backbone.preprocess, recipe, 0, False)
        loss = step(iter([(pixels, label)]), 1, 0, 0)

    assert promise == "yes"
    assert 0 < float(loss) < 20
    # Several devices hang where a parameter has no gradient.
    assert [n for n, p in network.named_parameters() if p not in step.optimizer.state] == []
    for old, parameter in zip(before, small, strict=True):
        change = (parameter.detach() - old).abs().max()
        # AdamW's first step is at most the learning rate, and weight decay.
        assert 0 <= float(change) <= recipe.lr * (1.001 + recipe.weight_decay * old.abs().max())
    moved = sum(not torch.equal(old, p) for old, p in zip(before, small, strict=True))
    assert moved > 0.9 * len(small)

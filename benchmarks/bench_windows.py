"""Embedding padded images through windows, against the same network on the whole canvas."""

from __future__ import annotations

import torch

from benchmarks.measure import Result, compare, interleave
from medplus.backbones.build import load_backbone
from medplus.backbones.inference import Embedder
from medplus.device import resolve_device, resolve_precision

ROUNDS = 4
GOALS = {
    ("resnet18", 28): "≥ 3", ("resnet18", 64): "≥ 2", ("vgg16", 28): "≥ 6", ("vgg16", 64): "",
    ("alexnet", 28): "≥ 2", ("densenet121", 28): "≥ 1.6", ("efficientnet_b4", 28): "",
}  # fmt: skip
"""Of the bare forward: the network as it is built, as one would run it."""


def run() -> list[Result]:
    device = resolve_device()
    batch = 256 if device.type == "cuda" else 16
    precisions = dict.fromkeys(("fp32", resolve_precision("auto", device)))
    return [
        result
        for (name, size), goal in GOALS.items()
        for precision in precisions
        for result in _against_the_whole(name, size, precision, batch, device, goal)
    ]


def _against_the_whole(name, size, precision, batch, device, goal) -> list[Result]:
    backbone = load_backbone(name, "none", size)
    images = torch.randint(0, 256, (batch, size, size), dtype=torch.uint8, device=device)
    ways = {
        "bare": Embedder(backbone, device, precision, batch, lambda module, _: module),
        "whole": Embedder(backbone, device, precision, batch, window=False),
        "windows": Embedder(backbone, device, precision, batch),
    }
    times = interleave({way: lambda e=embed: e(images) for way, embed in ways.items()}, ROUNDS)  # type: ignore[misc]
    what = f"{name}, {size} px, {precision}"
    return [
        compare(f"bare forward ÷ windows, {what}", times["bare"], times["windows"], goal),
        compare(f"whole canvas ÷ windows, {what}", times["whole"], times["windows"], "≥ 0.98"),
    ]

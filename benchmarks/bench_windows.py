"""Embedding padded images through windows, against the same network on the whole canvas."""

from __future__ import annotations

import torch

from benchmarks.measure import Result, compare, interleave
from medplus.backbones.build import load_backbone
from medplus.backbones.inference import Embedder
from medplus.device import resolve_device, resolve_precision

ROUNDS = 4
GOALS = {
    ("resnet18", 28): "≥ 2", ("resnet18", 64): "≥ 1.5", ("vgg16", 28): "≥ 4",
    ("vgg16", 64): "≥ 2.5", ("alexnet", 28): "≥ 1.5", ("densenet121", 28): "≥ 1.5",
    ("efficientnet_b4", 28): "≥ 0.98",
}  # fmt: skip


def run() -> list[Result]:
    device = resolve_device()
    batch = 256 if device.type == "cuda" else 16
    precisions = dict.fromkeys(("fp32", resolve_precision("auto", device)))
    return [
        _against_the_whole(name, size, precision, batch, device, goal)
        for (name, size), goal in GOALS.items()
        for precision in precisions
    ]


def _against_the_whole(name, size, precision, batch, device, goal) -> Result:
    backbone = load_backbone(name, "none", size)
    images = torch.randint(0, 256, (batch, size, size), dtype=torch.uint8, device=device)
    ways = {
        way: Embedder(backbone, device, precision, batch, window=way == "windows")
        for way in ("whole", "windows")
    }
    times = interleave({way: lambda e=embed: e(images) for way, embed in ways.items()}, ROUNDS)  # type: ignore[misc]
    what = f"whole canvas ÷ windows, {name}, {size} px, {precision}"
    return compare(what, times["whole"], times["windows"], goal)

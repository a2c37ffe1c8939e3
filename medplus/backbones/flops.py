"""What a backbone costs: its floating-point operations are counted without memory or weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from medplus.backbones.catalog import PIXELS
from medplus.backbones.sources.ref import BackboneRef
from medplus.errors import MedplusError
from medplus.preprocess import PAPER_CANVAS
from medplus.spec import NONE


class Network(NamedTuple):
    """What a backbone costs: `flops` of a forward pass of one image of 224 × 224 pixels."""

    dim: int
    n_parameters: int
    flops: float


# Noted so that planning the paper's grid needs no torch; a test counts them again.
PAPER_COSTS = {
    PIXELS: Network(784, 0, 0),
    "vgg16": Network(4096, 134260544, 30932336640),
    "alexnet": Network(4096, 57003840, 1420184960),
    "resnet18": Network(512, 11176512, 3627122688),
    "densenet121": Network(1024, 6953856, 5666275328),
    "efficientnet_b4": Network(1792, 17548616, 3003836864),
    "vit_base_patch16_224": Network(768, 85798656, 35126120448),
    "vit_base_patch16_clip_224": Network(768, 85799424, 35126120448),
    "eva02_base_patch16_clip_224": Network(768, 85869312, 35126120448),
    "vit_base_patch16_224.dino": Network(768, 85798656, 35126120448),
    "samvit_base_patch16": Network(256, 89670912, 35351199744),
}


@cache
def network_of(backbone: str) -> Network:
    """Return what a backbone costs; those beyond the paper's are built, without memory."""
    if backbone in PAPER_COSTS:
        return PAPER_COSTS[backbone]
    from medplus.backbones import sources

    try:
        return cost_of(sources.resolve(backbone))
    except MedplusError:
        return PAPER_COSTS["resnet18"]  # the job itself will say what is wrong


def cost_of(ref: BackboneRef) -> Network:
    """Return what a backbone costs, as it is built for images that are padded.

    A multiply-add counts as two operations. Counted by `torch.utils.flop_counter` on the meta
    device: convolutions and matrix products, which are nearly all of it. The image has the size
    that the network's input has here: 224 px for timm's, its own for encoders of other libraries
    and of the registry. A fine-tuned run costs what the network did that it began as.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from medplus.backbones.sources import run, source_of

    source = source_of(ref)
    if ref.run_id is not None:
        source, ref = run.origin(run.read_description(Path(ref.spelling)))
    with torch.device("meta"), torch.no_grad():
        built = source.build(replace(ref, weights_from=NONE), PAPER_CANVAS, None, None)
        network = built.module.eval().requires_grad_(False)  # or the counter hooks gradients
        side = built.preprocess.canvas or PAPER_CANVAS
        channels = len(built.preprocess.mean) or 1
        with FlopCounterMode(display=False) as counter:
            embedding = network(torch.empty(1, channels, side, side))
    n_parameters = sum(one.numel() for one in network.parameters())
    return Network(embedding.shape[1], n_parameters, counter.get_total_flops())

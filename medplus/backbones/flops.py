"""What a backbone costs: its floating-point operations are counted without memory or weights."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from medplus.backbones.catalog import ALEXNET, PIXELS, BackboneInfo
from medplus.errors import MedplusError
from medplus.preprocess import PAPER_CANVAS
from medplus.spec import NONE


class Network(NamedTuple):
    """What a backbone costs: `flops` of a forward pass of one image of 224 × 224 pixels."""

    dim: int
    n_parameters: int
    flops: float


# Noted so that planning the paper's grid needs no torch; a test counts them again. A multiply-add
# is two operations.
PAPER_COSTS = {
    PIXELS: Network(784, 0, 0),
    "vgg16": Network(4096, 134260544, 30932336640),
    "alexnet": Network(4096, 57003840, 1428376960),
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
    from medplus.backbones.servers import go_offline_if_unreachable

    try:
        ref = sources.resolve(backbone)
        if ":" in ref.tag:  # of the hub, which may have to be asked
            go_offline_if_unreachable()
        info = sources.describe(ref)
    except MedplusError:
        return PAPER_COSTS["resnet18"]  # the job itself will say what is wrong
    return Network(info.dim, info.n_parameters, count_flops(info))


def count_flops(info: BackboneInfo) -> int:
    """Return the floating-point operations of a forward pass of one image.

    A multiply-add counts as two. Counted by `torch.utils.flop_counter` on the meta device:
    convolutions and matrix products, which are nearly all of it. The image has the size that the
    network's input has here: 224 px for timm's (those that take only another size are counted
    there, and scaled by the area), its own for encoders of other libraries and of the registry.
    """
    if info.name == PIXELS:
        return 0
    own = info.native_size or PAPER_CANVAS
    encoder = _encoder(info)
    if encoder is not None:
        return _count(encoder, own)
    try:
        return _count(_network(info), PAPER_CANVAS)
    except Exception:  # each network refuses another size in its own way
        return int(_count(_network(info), own) * (PAPER_CANVAS / own) ** 2)


def _count(network: Any, side: int) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = network.eval().requires_grad_(False)  # or the counter hooks gradients
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, side, side))
    return int(counter.get_total_flops())


def _encoder(info: BackboneInfo) -> Any:
    """Make an encoder of another library, or of the registry, without memory; None for others."""
    import torch

    from medplus.backbones.sources import medical, open_clip, transformers

    tag = info.tag.partition("@")[0]  # a fine-tuned run is the network that it began as
    for source in (medical, open_clip, transformers):
        if source.claims(tag):
            ref = source.resolve(tag, NONE)
            with torch.device("meta"):
                return source.build(ref, info.native_size or PAPER_CANVAS, None, None).module
    return None


def _network(info: BackboneInfo) -> Any:
    import torch

    with torch.device("meta"):
        if info.name == ALEXNET:
            from medplus.backbones.lean import torchvision

            return torchvision.models.alexnet(weights=None)
        from medplus.backbones.lean import timm
        from medplus.backbones.sources.demo import timm_name

        tag = info.tag.partition("@")[0]
        return timm.create_model(timm_name(tag), pretrained=False, num_classes=0)

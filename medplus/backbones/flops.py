"""Counting a backbone's floating-point operations, without memory or weights."""

from __future__ import annotations

from typing import Any

from medplus.backbones.catalog import ALEXNET, PIXELS, BackboneInfo

_SIDE = 224


def count_flops(info: BackboneInfo) -> int:
    """Return the floating-point operations of a forward pass of one image of 224 × 224 pixels.

    A multiply-add counts as two. Counted by `torch.utils.flop_counter` on the meta device:
    convolutions and matrix products, which are nearly all of it. Networks that take only another
    input size are counted there, and scaled by the area.
    """
    if info.name == PIXELS:
        return 0
    try:
        return _count(info, _SIDE)
    except Exception:  # each network refuses another size in its own way
        side = info.native_size or _SIDE
        return int(_count(info, side) * (_SIDE / side) ** 2)


def _count(info: BackboneInfo, side: int) -> int:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = _network(info).eval().requires_grad_(False)  # or the counter hooks gradients
        network(torch.empty(1, 3, side, side))
    return int(counter.get_total_flops())


def _network(info: BackboneInfo) -> Any:
    if info.name == ALEXNET:
        from medplus.backbones.lean import torchvision

        return torchvision.models.alexnet(weights=None)
    from medplus.backbones.lean import timm
    from medplus.backbones.sources.demo import timm_name

    tag = info.tag.partition("@")[0]  # a fine-tuned run is the network that it began as
    return timm.create_model(timm_name(tag), pretrained=False, num_classes=0)

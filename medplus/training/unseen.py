"""Weights of convolutions that see nothing but padding, whose gradients are zero."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn


def clear_unseen(network: nn.Module, pixels: torch.Tensor) -> int:
    """Let the gradients of weights that see only padding be zero, as they are.

    Where a map is smaller than the kernel, part of the kernel may lie on padding for every output.
    In bf16 on some CPUs (with AVX512-BF16) torch leaves what was in memory in the gradients of that
    part: a loss that is not finite at best, and a wrong step without a word otherwise.

    Parameters
    ----------
    network : nn.Module
    pixels : Tensor, shape (1, channels, height, width)
        An image of the size that all have.

    Returns
    -------
    int
        How many convolutions have such weights.
    """
    found: dict[nn.Conv2d, torch.Tensor] = {}

    def look(layer: Any, inputs: tuple[torch.Tensor], _: torch.Tensor) -> None:
        unseen = _unseen(layer, inputs[0].shape[-2:])
        # What a layer that is used twice sees at either place, it sees.
        found[layer] = found.get(layer, unseen) & unseen

    training = [module for module in network.modules() if module.training]
    layers = [layer for layer in network.modules() if type(layer) is nn.Conv2d]
    hooks = [layer.register_forward_hook(look) for layer in layers if layer.padding_mode == "zeros"]
    network.eval()
    try:
        with torch.no_grad():
            network(pixels)
    finally:
        for hook in hooks:
            hook.remove()
        for module in training:
            module.training = True
    blind = {layer: unseen for layer, unseen in found.items() if unseen.any()}
    for layer, unseen in blind.items():
        if layer.weight.requires_grad:
            clear = partial(torch.Tensor.masked_fill, mask=unseen, value=0)
            layer.weight.register_hook(clear)  # type: ignore[no-untyped-call]
    return len(blind)


def _unseen(layer: nn.Conv2d, size: torch.Size) -> torch.Tensor:
    """Return which places of a kernel see no pixel, bool (1, 1, height, width)."""
    with torch.enable_grad():
        kernel = torch.zeros(1, 1, *layer.kernel_size, requires_grad=True)
        place: Any = layer.stride, layer.padding, layer.dilation
        seen = nn.functional.conv2d(torch.ones(1, 1, *size), kernel, None, *place)
        (sums,) = torch.autograd.grad(seen.sum(), kernel)
    return sums == 0

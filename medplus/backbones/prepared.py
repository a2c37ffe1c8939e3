"""Frozen networks as they are run: batch norms folded in, weights cast once."""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from medplus.backbones.windowed import traced
from medplus.preprocess import PAPER_CANVAS
from medplus.vocabulary import Precision

log = logging.getLogger(__name__)

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

_FUSION_TOLERANCE = 1e-5
_SMALL = 96
"""Height and width in pixels that networks of convolutions take, at a fifth of the cost."""


def prepare(module: nn.Module, precision: Precision) -> nn.Module:
    """Return an equivalent module for inference: batch norms folded in, weights cast once.

    Under autocast, convolutions and linear layers cast their weights in every forward; casting them
    beforehand gives the same numbers without that work, but for those with one kernel per channel,
    which are `rounded`. All else stays float32. Convolutions run fastest with the channels last.
    """
    prepared = fold_batch_norms(module)
    if precision != "fp32":
        # The backbone keeps its own weights: it may be used again at another precision.
        prepared = copy.deepcopy(module) if prepared is module else prepared
        for layer in prepared.modules():
            if isinstance(layer, nn.Conv2d) and layer.weight.shape[1] == 1:
                layer.weight.data = rounded(layer.weight.data, DTYPES[precision])
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(DTYPES[precision])
    if any(isinstance(layer, nn.Conv2d) for layer in prepared.modules()):
        prepared = prepared.to(memory_format=torch.channels_last)
    return prepared


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold batch norms into the convolutions before them, where that is provably the same.

    The network is traced, folded and compared on random input; one that cannot be traced, or whose
    output would move by more than rounding, is returned as it is. Batch norms with an activation
    of their own, which most of timm's networks have, are folded as others are.
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        return module
    from torch.fx.experimental.optimization import fuse

    try:
        with warnings.catch_warnings(), torch.inference_mode(False):
            warnings.simplefilter("ignore")
            graph = traced(_with_plain_norms(copy.deepcopy(module)))
            folded: nn.Module = fuse(graph, inplace=True, no_trace=True)
        expected, found = _on_noise(module, folded)
    except Exception as error:  # tracing fails in as many ways as there are networks
        log.debug("batch norms are not folded: %s", error)
        return module
    if not (expected - found).norm() <= _FUSION_TOLERANCE * expected.norm():
        return module
    return folded.eval()


def _with_plain_norms(network: nn.Module) -> nn.Module:
    """Take timm's batch norms that end in an activation apart, in place."""
    kind = getattr(sys.modules.get("timm.layers"), "BatchNormAct2d", None)
    for parent in list(network.modules()):
        parts: Iterable[tuple[str, Any]] = parent.named_children()
        for name, layer in parts:
            if type(layer) is kind:
                setattr(parent, name, nn.Sequential(_plain(layer), layer.drop, layer.act))
    return network


def _plain(norm: Any) -> nn.BatchNorm2d:
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine).eval()
    plain.weight, plain.bias = norm.weight, norm.bias
    plain.running_mean, plain.running_var = norm.running_mean, norm.running_var
    return plain


@torch.inference_mode()
def _on_noise(*networks: nn.Module) -> list[torch.Tensor]:
    """Return what networks make of random pixels: few where that will do, as it does for most."""
    chance = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, 3, PAPER_CANVAS, PAPER_CANVAS, generator=chance) * 4 - 2
    try:
        return [network(pixels[..., :_SMALL, :_SMALL]) for network in networks]
    except Exception:  # of those that take one size, or need a larger one
        return [network(pixels) for network in networks]


def rounded(kernels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round kernels so that each keeps its sum.

    Kernels that look for edges sum to about zero. Where a map is even, as in black margins, what
    rounding adds to that sum is all that comes out, and batch norms multiply it. What a weight
    loses is therefore carried over to the next smaller one; the last one loses little.

    Parameters
    ----------
    kernels : Tensor of float32, shape (channels, 1, height, width)
    dtype : torch.dtype
        To which they are rounded.

    Returns
    -------
    Tensor of float32, shape (channels, 1, height, width)

    Examples
    --------
    >>> import torch
    >>> edge = torch.tensor([[[[-0.31, 1.013, -0.703]]]])
    >>> edge.bfloat16().float().sum().item(), rounded(edge, torch.bfloat16).sum().item()
    (0.001953125, 0.0)
    """
    weights = kernels.flatten(1)
    found, lost = torch.empty_like(weights), torch.zeros_like(weights[:, :1])
    order = weights.abs().argsort(stable=True, dim=1, descending=True)
    for place in order.T[..., None]:
        wanted = weights.gather(1, place) + lost
        nearest = wanted.to(dtype).to(weights.dtype)
        found.scatter_(1, place, nearest)
        lost = wanted - nearest
    return found.view_as(kernels)

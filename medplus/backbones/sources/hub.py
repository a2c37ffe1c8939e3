"""Models of the hub that timm does not know by name: ``hf-hub:organisation/model``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medplus.backbones.servers import from_hub
from medplus.backbones.sources import timm
from medplus.backbones.sources.ref import BackboneRef
from medplus.backbones.sources.timm import build, describe

if TYPE_CHECKING:
    import torch

__all__ = ["build", "claims", "describe", "resolve", "whole"]

PREFIXES = ("hf-hub:", "hf_hub:")
"""timm's two spellings."""


def claims(name: str) -> bool:
    """Tell a name by its prefix."""
    return name.startswith(PREFIXES)


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the name means, without asking the hub."""
    tag = f"{PREFIXES[0]}{name.partition(':')[2]}"
    return BackboneRef("hub", tag, tag, tag, weights)


def whole(ref: BackboneRef) -> tuple[dict[str, torch.Tensor], bytes]:
    """Return the tensors of the whole network, and the ``config.json`` by which timm knows it."""
    state, _ = timm.whole(ref)
    repository, _, revision = ref.tag.partition(":")[2].partition("@")
    file = from_hub(ref.tag, repository, ("config.json",), revision or None)
    return state, file.read_bytes()

"""Models of the hub that timm does not know by name: ``hf-hub:organisation/model``."""

from __future__ import annotations

from medplus.backbones.sources.ref import BackboneRef
from medplus.backbones.sources.timm import build, describe
from medplus.backbones.weights import check_weights

__all__ = ["build", "claims", "describe", "resolve"]

PREFIXES = ("hf-hub:", "hf_hub:")
"""timm's two spellings."""


def claims(name: str) -> bool:
    """Tell a name by its prefix."""
    return name.startswith(PREFIXES)


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the name means, without asking the hub."""
    tag = f"{PREFIXES[0]}{name.partition(':')[2]}"
    return BackboneRef("hub", tag, tag, tag, check_weights(weights, tag), weights)

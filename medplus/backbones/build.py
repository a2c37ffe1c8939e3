"""Backbones ready to embed or to learn: a network and all that identifies its embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from medplus.backbones import registry, sources
from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import PIXELS
from medplus.backbones.features import with_feature, within
from medplus.backbones.identity import Identity
from medplus.backbones.sam import bake_sam_tables
from medplus.backbones.sources.ref import BackboneRef
from medplus.spec import NONE, PRELOGITS
from medplus.vocabulary import Fit


@dataclass(frozen=True)
class Backbone(Identity):
    """A network in eval mode, with everything that identifies its embeddings.

    Attributes
    ----------
    module : nn.Module
        Maps (n, channels, height, width) float to (n, dim) float.
    card : dict or None
        What another library builds it by.
    """

    module: nn.Module = field(kw_only=True)
    card: dict[str, Any] | None = field(default=None, kw_only=True)


def load_backbone(
    name: str,
    weights: str = "pretrained",
    size: int = 28,
    fit: Fit | None = None,
    *,
    frozen: bool = True,
    feature: str = PRELOGITS,
    code: str | None = None,
) -> Backbone:
    """Build a backbone with its weights, in eval mode, on the CPU.

    Parameters
    ----------
    name : str
        As for `medplus.backbones.sources.resolve`.
    weights : str
        ``pretrained``, ``none`` (random, from a fixed seed), the path of a ``.safetensors`` or
        ``.pth`` file, or a folder of pretrained weights that `medplus.backbones.fetch` wrote. A run
        has its own; so has a Python file, which takes only a file.
    size : int
        Size of the images in pixels; matters only for ``fit="native"``.
    fit : {"pad", "resize", "native"}, optional
        How images are brought to the network's input size; by default ``pad``, or as a run was
        trained.
    frozen : bool
        Prepare the network for inference alone. Otherwise its parameters can be trained.
    feature : str
        What of the network is its embedding: ``prelogits``, ``cls``, ``avg``, ``cls+avg``,
        ``pooler`` or ``layer:NAME``; see `medplus.backbones.features`. It means nothing for
        ``pixels``.
    code : str, optional
        The Python file of a fine-tuned run's network: no run ever names code to be run.

    Raises
    ------
    UsageError
        If the name is unknown, a run is to have other weights than its own, or the network has no
        such feature.
    BackboneError
        If the weights cannot be fetched, read, or do not fit the network.
    """
    ref = sources.resolve(name, weights)
    return load(ref, size, fit, frozen=frozen, feature=feature, code=code)


def load(
    ref: BackboneRef,
    size: int,
    fit: Fit | None = None,
    *,
    frozen: bool = True,
    feature: str = PRELOGITS,
    code: str | None = None,
) -> Backbone:
    """Build what a name was resolved to, as `load_backbone`."""
    built = sources.source_of(ref).build(ref, size, fit, code)
    module, spec = built.module, built.preprocess
    canvas = spec.canvas or size
    module.eval()
    digest = weights_io.state_sha256(module.state_dict())
    if frozen:
        module.requires_grad_(False)
        if within(module) is not module:  # of timm
            bake_sam_tables(within(module), canvas)  # training needs the tables as they are
    known = registry.find(ref.name)
    licence = built.licence or (known.licence if known else "")
    licence = "" if ref.weights == NONE else licence
    if feature == PRELOGITS or built.feature == PIXELS:
        return Backbone(ref, spec, digest, built.feature, licence, module=module, card=built.card)
    channels = 3 if spec.rgb else 1
    featured = with_feature(module, feature, ref.tag, canvas, channels)
    return Backbone(ref, spec, digest, feature, licence, module=featured)

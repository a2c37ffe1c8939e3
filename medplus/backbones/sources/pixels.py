"""Raw pixels: the baseline that a network has to beat."""

from __future__ import annotations

from pathlib import Path

from medplus.backbones.catalog import BackboneInfo
from medplus.backbones.sources.ref import BackboneRef, Built
from medplus.preprocess import PreprocessSpec
from medplus.spec import NONE, PIXELS
from medplus.vocabulary import Fit

_SIDE = 28


def claims(name: str) -> bool:
    """Tell the one name of this kind."""
    return name == PIXELS


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the name means; weights mean nothing for it."""
    return BackboneRef("pixels", name, name, name, NONE)


def pretrained_files(ref: BackboneRef) -> list[Path]:
    """Return no file: there are no weights."""
    return []


def describe(ref: BackboneRef) -> BackboneInfo:
    """Return its facts; the dimension is that per channel, of images of 28 px and above."""
    return BackboneInfo(ref.name, ref.tag, _SIDE * _SIDE, 0, None, (0.0,), (1.0,))


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Return what averages an image down; images are taken as they are."""
    from medplus.backbones.modules import Pixels

    return Built(Pixels(), PreprocessSpec((), (), "native", None, rgb=False), PIXELS)

"""One look for a backbone or protocol, in every figure and on the page.

The ten colours come from a random search for a large smallest OKLab distance of any pair, as
people with normal vision, protanopia, deuteranopia and tritanopia see it (Machado et al. 2009),
among muted colours with a contrast of at least 3:1 on white and 2.5:1 on the page's dark ground;
DenseNet's green was then lightened by hand. Ten colours cannot be told apart by everyone all the
same, so that each comes with a marker of its own.

References
----------
.. [1] Machado, Oliveira, Fernandes: A physiologically-based model for simulation of color vision
   deficiency. IEEE TVCG 15(6), 2009. doi:10.1109/TVCG.2009.113
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from medplus.analysis.results.cells import APART, network_of, order_backbones
from medplus.backbones.catalog import PIXELS


@dataclass(frozen=True)
class Look:
    """How a backbone is drawn.

    Attributes
    ----------
    colour : str
        ``#rrggbb``.
    marker : str
        In matplotlib.
    label : str
        A short name to be read by people.
    line : str or tuple
        Dotted where the colour is not the backbone's alone.
    """

    colour: str
    marker: str
    label: str
    line: Any = "-"

    @property
    def scale(self) -> float:
        """How much larger the marker is drawn: those with thin points look smaller than others."""
        return _SCALES.get(self.marker, 1.0)

    def style(self, size: float = 4.0) -> dict[str, Any]:
        """Return colour and marker as options of `plot`; `size` is in points."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markersize": size * self.scale,
            "markeredgecolor": GROUND,
        }


GROUND = "#FFFFFF"
"""What figures are drawn on."""

_SCALES = {"*": 1.5, ".": 1.4, "d": 1.15, "P": 1.1, "X": 1.1}


_PAPER = {
    "vgg16": Look("#db6d00", "o", "VGG16"),
    "alexnet": Look("#b63700", "s", "AlexNet"),
    "resnet18": Look("#1292ff", "D", "ResNet-18"),
    "densenet121": Look("#007a52", "^", "DenseNet-121"),
    "efficientnet_b4": Look("#37a45b", "v", "EfficientNet-B4"),
    "vit_base_patch16_224": Look("#6d49c8", "P", "ViT-B/16"),
    "vit_base_patch16_clip_224": Look("#a43792", "X", "CLIP ViT-B/16"),
    "eva02_base_patch16_clip_224": Look("#5b806d", "p", "EVA-02 ViT-B/16"),
    "vit_base_patch16_224.dino": Look("#926dc8", "*", "DINO ViT-B/16"),
    "samvit_base_patch16": Look("#9292a4", "h", "SAM ViT-B/16"),
}

_OTHERS = (
    ("#c8102e", "<"),
    ("#0a7ea4", ">"),
    ("#8a6d00", "d"),
    ("#c2528b", "8"),
    ("#4f7d00", "H"),
    ("#4a68b8", "s"),
)
"""Colour and marker of backbones beyond the paper's, in their order in the table; they begin again
after the last."""

_PIXELS = Look("#757575", ".", "raw pixels")

PROTOCOL_COLOURS = {"finetune": "#d55e00", "probe": "#0072b2", "knn": "#009e73"}
"""From Okabe and Ito's palette."""

PROTOCOL_LABELS = {"finetune": "fine-tuning", "probe": "linear probe", "knn": "kNN"}


def setting_label(protocol: str, size: object) -> str:
    """Return a protocol at a size, in words."""
    return f"{PROTOCOL_LABELS[protocol]} at {size} px"


def look_of(backbone: str, backbones: Sequence[str]) -> Look:
    """Return how a backbone is drawn.

    Parameters
    ----------
    backbone : str
    backbones : sequence of str
        All backbones of the report, in any order: those that the paper lacks get their colours by
        their place among them, so that every figure of one report agrees.
    """
    network, _, apart = backbone.partition(APART)
    if network in _PAPER:
        look = _PAPER[network]
        return replace(look, label=f"{look.label}{APART}{apart}") if apart else look
    if network == PIXELS:
        return _PIXELS
    others = [
        name
        for name in order_backbones([*backbones, backbone])
        if network_of(name) not in (*_PAPER, PIXELS)
    ]
    colour, marker = _OTHERS[others.index(backbone) % len(_OTHERS)]
    return Look(colour, marker, backbone)


def label_of(backbone: str) -> str:
    """Return a short name of a backbone: the paper's have one, all others are named as they are."""
    return look_of(backbone, ()).label

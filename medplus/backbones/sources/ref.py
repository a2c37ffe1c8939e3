"""What a backbone's name is resolved to, and what every source of backbones offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from medplus.spec import PRELOGITS

if TYPE_CHECKING:
    from torch import nn

    from medplus.backbones.catalog import BackboneInfo
    from medplus.preprocess import PreprocessSpec
    from medplus.vocabulary import Fit


@dataclass(frozen=True)
class BackboneRef:
    """What a name means: after this, nobody looks at the string again.

    Attributes
    ----------
    source : str
        The module of `medplus.backbones.sources` that makes it.
    spelling : str
        A name for it that means the same from any folder.
    name : str
        The canonical short name, in paths, tables and selections.
    tag : str
        The full name, with all that tells it from others of the short one.
    weights_from : str
        What is loaded: ``pretrained``, ``none``, a file, or a folder of pretrained weights.
    weights : str
        As specs have it: ``pretrained``, ``none``, or the absolute path of a file. A folder is a
        way to have them, and goes by ``pretrained``. `medplus.backbones.sources.resolve` tells it.
    weights_sha256 : str or None
        Digest of the weights, where it is known before they are read: of a fine-tuned run.
    run_id : str or None
        The fine-tuned run that it is.
    card : dict or None
        What another library builds it by, where that is known already: of a fine-tuned run.
    """

    source: str
    spelling: str
    name: str
    tag: str
    weights_from: str
    weights: str = ""
    weights_sha256: str | None = None
    run_id: str | None = None
    card: dict[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Built:
    """A network with its weights, as its source makes it.

    Attributes
    ----------
    module : nn.Module
        Maps (n, channels, height, width) float to (n, dim) float.
    preprocess : PreprocessSpec
    feature : str
        What its output is.
    licence : str
        Of its weights, where the source knows it.
    card : dict or None
        What another library builds it by, as JSON has it.
    """

    module: nn.Module
    preprocess: PreprocessSpec
    feature: str = PRELOGITS
    licence: str = ""
    card: dict[str, Any] | None = None


class Source(Protocol):
    """A kind of backbone: a module of this package."""

    def claims(self, name: str) -> bool:
        """Tell whether a name is of this kind; loads nothing heavy."""

    def resolve(self, name: str, weights: str) -> BackboneRef:
        """Return what a name with weights means, or raise what is wrong with it."""

    def describe(self, ref: BackboneRef) -> BackboneInfo:
        """Return what is known of it, without allocating or fetching its weights."""

    def build(self, ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
        """Make it for images of `size` pixels, brought to its input as `fit` says.

        `code` is the Python file of a fine-tuned run's network: no run ever names code to be run.

        Two further functions are there where they can be. ``pretrained_files(ref)`` returns the
        files that pretrained weights are read from. ``whole(ref)`` returns all tensors that a hub
        has of it, and the configuration that it is built after, to be carried in a folder.
        """

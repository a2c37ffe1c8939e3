"""AlexNet, the one of the paper's ten that timm does not have."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from medplus.backbones import servers
from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import ALEXNET, PAPER, BackboneInfo
from medplus.backbones.sources.ref import BackboneRef, Built
from medplus.preprocess import PreprocessSpec
from medplus.spec import PRETRAINED
from medplus.vocabulary import Fit

if TYPE_CHECKING:
    import torch

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LICENCE = "bsd-3-clause"


def claims(name: str) -> bool:
    """Tell the names of AlexNet."""
    return name in (ALEXNET, PAPER[ALEXNET])


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the name means."""
    return BackboneRef("torchvision", ALEXNET, ALEXNET, PAPER[ALEXNET], weights)


def describe(ref: BackboneRef) -> BackboneInfo:
    """Return its facts."""
    import torch

    from medplus.backbones.lean import torchvision

    with torch.device("meta"):
        network = torchvision.models.alexnet(weights=None)
    network.classifier = network.classifier[:-1]
    return BackboneInfo.of(ref, network, 4096, 224, _MEAN, _STD, licence=_LICENCE)


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Make the network without the last layer of its classifier."""
    from medplus.backbones.lean import torchvision
    from medplus.backbones.modules import AlexNetFeatures

    with weights_io.same_chance():
        network = torchvision.models.alexnet(weights=None)
    module = AlexNetFeatures(network)
    state = weights_io.read_weights(ref.weights_from, ref.tag, network.state_dict)
    if ref.weights_from == PRETRAINED:
        state = pretrained_state(ref.tag)
    if state is not None:
        state = {key: value for key, value in state.items() if not key.startswith("classifier.6.")}
        weights_io.fill(module, state, ref.tag, ref.weights_from)
    licence = _LICENCE if ref.weights == PRETRAINED else ""
    return Built(module, PreprocessSpec.fitted(_MEAN, _STD, fit), licence=licence)


def whole(ref: BackboneRef) -> tuple[dict[str, torch.Tensor], None]:
    """Return the tensors of the whole network, for a folder to carry."""
    return pretrained_state(ref.tag), None


def pretrained_files(ref: BackboneRef) -> list[Path] | None:
    """Return the file in torch.hub's cache."""
    from medplus.backbones.lean import torchvision

    return [_cached(torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url)]


def _cached(url: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]


def pretrained_state(tag: str) -> dict[str, torch.Tensor]:
    """Return torchvision's weights of AlexNet, from torch.hub's cache or else its server.

    Raises
    ------
    BackboneError
        If they cannot be had.
    """
    from medplus.backbones.lean import torchvision

    pretrained = torchvision.models.AlexNet_Weights.IMAGENET1K_V1
    cached = _cached(pretrained.url)
    try:
        if not cached.is_file():
            servers.check_reachable(pretrained.url)
        with redirect_stdout(sys.stderr):  # torch.hub announces downloads on stdout
            state: dict[str, torch.Tensor] = pretrained.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
    except Exception as error:
        raise servers.fetch_error(tag, error) from error
    return state

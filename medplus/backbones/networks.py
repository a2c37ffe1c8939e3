"""The network of a full tag, as timm or torchvision builds it, with its weights."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import (
    ALEXNET,
    HUB_PREFIXES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PAPER,
    PIXELS,
)
from medplus.backbones.folder import find_config, is_weights_folder, read_folder_weights
from medplus.backbones.modules import AlexNetFeatures, Pixels, PreLogits
from medplus.backbones.ratelimit import no_waiting_for_rate_limits
from medplus.errors import BackboneError, first_line

RANDOM_INIT_SEED = 0


@dataclass(frozen=True)
class BuiltNetwork:
    """A network, and what its input is to be.

    Attributes
    ----------
    module : nn.Module
        Maps (n, channels, height, width) float to (n, dim) float.
    mean, std : tuple of float
        What images are normalised with, per channel, on the scale 0 to 1.
    """

    module: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]


def create_network(tag: str, weights: str, canvas: int) -> BuiltNetwork:
    """Build the network of a full tag for an input of `canvas` pixels.

    Raises
    ------
    BackboneError
        If it cannot be built, or its weights cannot be had or do not fit.
    """
    if tag == PIXELS:
        return BuiltNetwork(Pixels(), (), ())
    if tag == PAPER[ALEXNET]:
        return BuiltNetwork(_build_alexnet(tag, weights), IMAGENET_MEAN, IMAGENET_STD)
    network = _build_timm(tag, weights, canvas)
    config = network.pretrained_cfg
    return BuiltNetwork(PreLogits(network), tuple(config["mean"]), tuple(config["std"]))


def is_from_folder(weights: str) -> bool:
    """Tell a folder of pretrained weights from the words and the file that weights may be."""
    return weights not in (weights_io.PRETRAINED, weights_io.NONE) and is_weights_folder(weights)


def _build_alexnet(tag: str, weights: str) -> nn.Module:
    from torchvision.models import alexnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_INIT_SEED)
        network = alexnet(weights=None)
    if weights == weights_io.NONE:
        return AlexNetFeatures(network)
    if weights == weights_io.PRETRAINED:
        state = alexnet_state(tag)
    elif is_from_folder(weights):
        state = read_folder_weights(Path(weights), tag)
    else:
        state = weights_io.read_weights_file(Path(weights))
    module = AlexNetFeatures(network)
    state = {key: value for key, value in state.items() if not key.startswith("classifier.6.")}
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise misfit(tag, weights, error) from error
    return module


def alexnet_state(tag: str) -> dict[str, torch.Tensor]:
    """Return torchvision's weights of AlexNet, from torch.hub's cache or else its server.

    Raises
    ------
    BackboneError
        If they cannot be had.
    """
    from torchvision.models import AlexNet_Weights

    pretrained = AlexNet_Weights.IMAGENET1K_V1
    cached = Path(torch.hub.get_dir()) / "checkpoints" / pretrained.url.rpartition("/")[2]
    try:
        if not cached.is_file():
            weights_io.check_reachable(pretrained.url)
        with redirect_stdout(sys.stderr):  # torch.hub announces downloads on stdout
            state: dict[str, torch.Tensor] = pretrained.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
    except Exception as error:
        raise weights_io.fetch_error(tag, error) from error
    return state


def _build_timm(tag: str, weights: str, canvas: int) -> Any:
    import timm

    carried = find_config(Path(weights), tag) if is_from_folder(weights) else None
    source = tag if carried is None else f"local-dir:{carried}"
    if weights == weights_io.PRETRAINED or (carried is None and tag.startswith(HUB_PREFIXES)):
        weights_io.go_offline_if_unreachable()
    try:
        config = _config(source)
    except Exception as error:
        raise _unbuilt(tag, weights, error) from error
    arguments = _size_arguments(config, tag, canvas)
    state = None
    if is_from_folder(weights):
        # Nothing but the source differs from the hub's, so timm makes the same network of it.
        state = read_folder_weights(Path(weights), tag)
        arguments["pretrained_cfg_overlay"] = {"source": "", "state_dict": state}
    elif weights not in (weights_io.PRETRAINED, weights_io.NONE):
        state = weights_io.read_weights_file(Path(weights))
        classes = _classes_in(state, config)
        arguments["num_classes"] = classes
        # The overlay's class count makes timm load strictly: every key must fit. Of a network that
        # is named by its source, timm would take that source's weights instead.
        overlay = {"source": "", "state_dict": state, "num_classes": classes}
        arguments["pretrained_cfg_overlay"] = overlay
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_INIT_SEED)
        try:
            with redirect_stdout(sys.stderr), no_waiting_for_rate_limits():
                network = timm.create_model(
                    source, pretrained=weights != weights_io.NONE, **arguments
                )
        except Exception as error:
            if state is not None:
                raise misfit(tag, weights, error) from error
            raise _unbuilt(tag, weights, error) from error
    network.reset_classifier(0)
    _check_patches(network, tag, canvas)
    return network


def _unbuilt(tag: str, weights: str, error: Exception) -> BackboneError:
    if weights == weights_io.PRETRAINED and not isinstance(error, AssertionError):
        return weights_io.fetch_error(tag, error)
    return BackboneError(f"timm cannot build {tag}: {first_line(error)}")


def _check_patches(network: Any, tag: str, canvas: int) -> None:
    """Refuse a canvas that patches do not tile: timm would silently cut off what is left over."""
    from timm.layers import PatchEmbed

    embed = getattr(network, "patch_embed", None)
    if not isinstance(embed, PatchEmbed) or embed.dynamic_img_pad:
        return
    side = max(embed.patch_size)
    if canvas % side:
        raise BackboneError(
            f"{tag} cuts images into patches of {side} px, which do not tile {canvas} px; "
            "--fit pad or --fit resize may suit it"
        )


def _config(source: str) -> dict[str, Any]:
    """Return what timm knows of a network's weights before it is built."""
    import timm

    if ":" not in source:
        config = timm.models.get_pretrained_cfg(source)
        return {} if config is None else dict(config.to_dict())
    with redirect_stdout(sys.stderr), no_waiting_for_rate_limits():
        return dict(timm.models.resolve_model_input_args(source)["pretrained_cfg"])


def _size_arguments(config: dict[str, Any], tag: str, canvas: int) -> dict[str, Any]:
    """Networks built for one input size are built for the canvas; SAM's takes any size."""
    if not config.get("fixed_input_size") or tag.startswith("samvit"):
        return {}
    return {} if config["input_size"][-1] == canvas else {"img_size": canvas}


def _classes_in(state: dict[str, torch.Tensor], config: dict[str, Any]) -> int:
    classifiers = config.get("classifier") or ()
    if isinstance(classifiers, str):
        classifiers = (classifiers,)  # distilled networks have two
    counts = [state[key].shape[0] for c in classifiers if (key := f"{c}.weight") in state]
    return int(counts[0]) if counts else 0


def misfit(tag: str, weights: str, error: Exception) -> BackboneError:
    """Return the error for weights that are not those of the network."""
    return BackboneError(
        f"the weights {weights} do not fit {tag}: {details(error)}; "
        "check that file and backbone belong together"
    )


def details(error: Exception) -> str:
    """Return what torch says of keys and shapes, which stands below its first line."""
    below = " ".join(line.strip() for line in str(error).splitlines()[1:])
    return below[:240] or first_line(error)

"""Building the network that turns preprocessed images into embeddings, with its weights."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
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
    PRELOGITS,
    resolve,
)
from medplus.backbones.features import with_feature
from medplus.backbones.finetuned import (
    NetworkDescription,
    backbone_state,
    check_weights,
    is_finetuned,
    network_file,
    read_network,
)
from medplus.backbones.folder import find_weights, is_weights_folder, read_folder_weights
from medplus.backbones.modules import AlexNetFeatures, Pixels, PreLogits
from medplus.backbones.sam import bake_sam_tables
from medplus.errors import BackboneError, first_line
from medplus.preprocess import PAPER_CANVAS, PreprocessSpec
from medplus.vocabulary import Fit

RANDOM_INIT_SEED = 0
_Built = tuple[nn.Module, tuple[float, ...], tuple[float, ...]]
"""A network, and the mean and std that its input is normalised with."""


@dataclass(frozen=True)
class Backbone:
    """A network in eval mode, with everything that identifies its embeddings.

    Attributes
    ----------
    module : nn.Module
        Maps (n, channels, height, width) float to (n, dim) float.
    weights : str
        ``pretrained``, ``none``, or the absolute path of a file; ``none`` for ``pixels``. Those of
        a folder are ``pretrained``.
    weights_sha256 : str
        Digest of the weights in memory.
    feature : str
        The definition of the embedding, as for `load_backbone`; or ``pixels``.
    run_id : str or None
        The fine-tuned run whose network this is.
    """

    name: str
    tag: str
    module: nn.Module
    preprocess: PreprocessSpec
    weights: str
    weights_sha256: str
    feature: str
    run_id: str | None = None

    @property
    def is_network(self) -> bool:
        """False for the raw-pixel baseline, which has nothing to compute in half precision."""
        return self.feature != PIXELS

    @property
    def architecture(self) -> tuple[str, str]:
        """Canonical name and full tag of what was built, without the run that trained it."""
        run = f"@{self.run_id}"
        return self.name.removesuffix(run), self.tag.removesuffix(run)


def load_backbone(
    name: str,
    weights: str = "pretrained",
    size: int = 28,
    fit: Fit | None = None,
    *,
    frozen: bool = True,
    feature: str = PRELOGITS,
) -> Backbone:
    """Build a backbone with its weights, in eval mode, on the CPU.

    Parameters
    ----------
    name : str
        One of the paper's ten, ``pixels``, any timm name, or the folder of a fine-tuned run.
    weights : str
        ``pretrained``, ``none`` (random, from a fixed seed), the path of a ``.safetensors`` or
        ``.pth`` file, or a folder of pretrained weights that `medplus.backbones.fetch` wrote. A run
        has its own.
    size : int
        Size of the images in pixels; matters only for ``fit="native"``.
    fit : {"pad", "resize", "native"}, optional
        How images are brought to the network's input size; by default ``pad``, or as a run was
        trained.
    frozen : bool
        Prepare the network for inference alone. Otherwise its parameters can be trained.
    feature : str
        What of the network is its embedding: ``prelogits``, ``cls``, ``avg``, ``cls+avg`` or
        ``layer:NAME``; see `medplus.backbones.features`. It means nothing for ``pixels``.

    Raises
    ------
    UsageError
        If the name is unknown, a run is to have other weights than its own, or the network has no
        such feature.
    BackboneError
        If the weights cannot be fetched, read, or do not fit the network.
    """
    check_weights(name, weights_io.weights_label(weights))
    if is_finetuned(name):
        run = _load_finetuned(network_file(Path(name)), size, fit, frozen)
        return _featured(run, feature, size)
    short, tag = resolve(name)
    fit = "native" if short == PIXELS else fit or "pad"
    canvas = None if fit == "native" else PAPER_CANVAS
    module, mean, std = _build(tag, weights, canvas or size)
    spec = PreprocessSpec(mean, std, fit, canvas, rgb=short != PIXELS)
    label = weights_io.NONE if short == PIXELS else weights_io.weights_label(weights)
    digest = _settle(module, canvas or size, frozen)
    own = PIXELS if short == PIXELS else PRELOGITS
    return _featured(Backbone(short, tag, module, spec, label, digest, own), feature, size)


def _featured(backbone: Backbone, feature: str, size: int) -> Backbone:
    if feature == PRELOGITS or not backbone.is_network:
        return backbone
    canvas = backbone.preprocess.canvas or size
    module = with_feature(backbone.module, feature, backbone.tag, canvas)
    return replace(backbone, module=module, feature=feature)


def check_backbone(name: str, weights: str) -> None:
    """Refuse, before any work, a backbone or weights of it that are not to be had here.

    Raises
    ------
    UsageError
        If the name is unknown, or a run is to have other weights than its own.
    BackboneError
        If a folder of weights has none for it.
    """
    _, tag = resolve(name)
    check_weights(name, weights_io.weights_label(weights))
    if _is_from_folder(weights) and tag != PIXELS and not is_finetuned(name):
        find_weights(Path(weights), tag)


def _is_from_folder(weights: str) -> bool:
    return weights not in (weights_io.PRETRAINED, weights_io.NONE) and is_weights_folder(weights)


def _load_finetuned(file: Path, size: int, fit: Fit | None, frozen: bool) -> Backbone:
    run, state = read_network(file)
    spec = run.spec
    if fit not in (None, spec.fit) and run.feature != PIXELS:
        spec = replace(spec, fit=fit, canvas=None if fit == "native" else PAPER_CANVAS)
    canvas = spec.canvas or size
    try:
        module, _, _ = _build(run.tag, weights_io.NONE, canvas)
        module.load_state_dict(backbone_state(state), strict=True)
    except (BackboneError, RuntimeError) as error:
        raise _unsuitable(file, run, spec, canvas, error) from error
    digest = _settle(module, canvas, frozen)
    return Backbone(
        run.name, run.full_tag, module, spec, str(file.resolve()), digest, run.feature, run.run_id
    )


def _unsuitable(
    file: Path, run: NetworkDescription, spec: PreprocessSpec, canvas: int, error: Exception
) -> BackboneError:
    if canvas == run.canvas:
        if isinstance(error, BackboneError):
            return error
        return _misfit(run.tag, str(file), error)
    remedy = "leave --fit out" if spec.fit != run.spec.fit else f"use images of {run.canvas} px"
    return BackboneError(
        f"{run.name} takes an input of {run.canvas} px, as it was trained, not of {canvas} px "
        f"({_details(error)}); {remedy}"
    )


def _settle(module: nn.Module, canvas: int, frozen: bool) -> str:
    """Make a network what it is to be used for, and return the digest of its weights."""
    module.eval()
    digest = weights_io.weights_sha256(module)
    if frozen:
        module.requires_grad_(False)
        if isinstance(module, PreLogits):
            bake_sam_tables(module.network, canvas)  # training needs the tables as they are
    return digest


def _build(tag: str, weights: str, canvas: int) -> _Built:
    """Build the network of a full tag for an input of `canvas` pixels."""
    if tag == PIXELS:
        return Pixels(), (), ()
    if tag == PAPER[ALEXNET]:
        return _build_alexnet(tag, weights), IMAGENET_MEAN, IMAGENET_STD
    network = _build_timm(tag, weights, canvas)
    config = network.pretrained_cfg
    return PreLogits(network), tuple(config["mean"]), tuple(config["std"])


def _build_alexnet(tag: str, weights: str) -> nn.Module:
    from torchvision.models import alexnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_INIT_SEED)
        network = alexnet(weights=None)
    if weights == weights_io.NONE:
        return AlexNetFeatures(network)
    if weights == weights_io.PRETRAINED:
        state = alexnet_state(tag)
    elif _is_from_folder(weights):
        state = read_folder_weights(Path(weights), tag)
    else:
        state = weights_io.read_weights_file(Path(weights))
    module = AlexNetFeatures(network)
    state = {key: value for key, value in state.items() if not key.startswith("classifier.6.")}
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise _misfit(tag, weights, error) from error
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

    if weights == weights_io.PRETRAINED or tag.startswith(HUB_PREFIXES):
        weights_io.go_offline_if_unreachable()
    arguments = _size_arguments(tag, canvas)
    state = None
    if _is_from_folder(weights):
        # Nothing but the source differs from the hub's, so timm makes the same network of it.
        state = read_folder_weights(Path(weights), tag)
        arguments["pretrained_cfg_overlay"] = {"state_dict": state}
    elif weights not in (weights_io.PRETRAINED, weights_io.NONE):
        state = weights_io.read_weights_file(Path(weights))
        classes = _classes_in(state, tag)
        arguments["num_classes"] = classes
        # The overlay's class count makes timm load strictly: every key must fit.
        arguments["pretrained_cfg_overlay"] = {"state_dict": state, "num_classes": classes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_INIT_SEED)
        try:
            with redirect_stdout(sys.stderr):
                network = timm.create_model(tag, pretrained=weights != weights_io.NONE, **arguments)
        except Exception as error:
            if state is not None:
                raise _misfit(tag, weights, error) from error
            if weights == weights_io.PRETRAINED and not isinstance(error, AssertionError):
                raise weights_io.fetch_error(tag, error) from error
            raise BackboneError(f"timm cannot build {tag}: {first_line(error)}") from error
    network.reset_classifier(0)
    _check_patches(network, tag, canvas)
    return network


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


def _size_arguments(tag: str, canvas: int) -> dict[str, Any]:
    """Networks built for one input size are built for the canvas; SAM's takes any size."""
    import timm

    config = timm.models.get_pretrained_cfg(tag) if ":" not in tag else None
    if config is None or not config.fixed_input_size or tag.startswith("samvit"):
        return {}
    return {} if config.input_size[-1] == canvas else {"img_size": canvas}


def _classes_in(state: dict[str, torch.Tensor], tag: str) -> int:
    import timm

    config = timm.models.get_pretrained_cfg(tag) if ":" not in tag else None
    classifiers = (config.classifier if config is not None else None) or ()
    if isinstance(classifiers, str):
        classifiers = (classifiers,)  # distilled networks have two
    counts = [state[key].shape[0] for c in classifiers if (key := f"{c}.weight") in state]
    return int(counts[0]) if counts else 0


def _misfit(tag: str, weights: str, error: Exception) -> BackboneError:
    return BackboneError(
        f"the weights {weights} do not fit {tag}: {_details(error)}; "
        "check that file and backbone belong together"
    )


def _details(error: Exception) -> str:
    """Return what torch says of keys and shapes, which stands below its first line."""
    below = " ".join(line.strip() for line in str(error).splitlines()[1:])
    return below[:240] or first_line(error)

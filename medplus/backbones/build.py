"""Building a frozen network that turns preprocessed images into embeddings."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import (
    ALEXNET,
    HUB_PREFIXES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PIXELS,
    resolve,
)
from medplus.errors import BackboneError, first_line
from medplus.preprocess import PAPER_CANVAS, PreprocessSpec
from medplus.vocabulary import Fit

RANDOM_INIT_SEED = 0
PIXELS_SIDE = 28


@dataclass(frozen=True)
class Backbone:
    """A frozen network in eval mode, with everything that identifies its embeddings.

    Attributes
    ----------
    module : nn.Module
        Maps (n, channels, height, width) float to (n, dim) float.
    weights : str
        ``pretrained``, ``none``, or the absolute path of a file; ``none`` for ``pixels``.
    weights_sha256 : str
        Digest of the weights in memory.
    feature : str
        The definition of the embedding: ``prelogits``, or ``pixels``.
    """

    name: str
    tag: str
    module: nn.Module
    preprocess: PreprocessSpec
    weights: str
    weights_sha256: str
    feature: str

    @property
    def is_network(self) -> bool:
        """False for the raw-pixel baseline, which has nothing to compute in half precision."""
        return self.name != PIXELS


class PreLogits(nn.Module):
    """The pre-logits features of a timm network: what its classifier would see."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, h, w) to embeddings (n, dim)."""
        network: Any = self.network
        embedding: torch.Tensor = network.forward_head(network.forward_features(x), pre_logits=True)
        return embedding


class AlexNetFeatures(nn.Module):
    """torchvision's AlexNet without the last layer of its classifier."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.features = network.features
        self.avgpool = network.avgpool
        self.classifier = network.classifier[:-1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, h, w) to embeddings (n, 4096)."""
        embedding: torch.Tensor = self.classifier(self.avgpool(self.features(x)).flatten(1))
        return embedding


class Pixels(nn.Module):
    """The raw-pixel baseline: the image averaged down to at most 28 × 28, flattened."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, c, h, w) to embeddings (n, c · min(h, 28) · min(w, 28))."""
        side = min(PIXELS_SIDE, x.shape[-1])
        return F.adaptive_avg_pool2d(x, side).flatten(1)


def load_backbone(
    name: str, weights: str = "pretrained", size: int = 28, fit: Fit = "pad"
) -> Backbone:
    """Build a backbone with its weights, frozen and in eval mode, on the CPU.

    Parameters
    ----------
    name : str
        One of the paper's ten, ``pixels``, or any timm name.
    weights : str
        ``pretrained``, ``none`` (random, from a fixed seed), or the path of a ``.safetensors`` or
        ``.pth`` file.
    size : int
        Size of the images in pixels; matters only for ``fit="native"``.
    fit : {"pad", "resize", "native"}
        How images are brought to the network's input size.

    Raises
    ------
    UsageError
        If the name is unknown.
    BackboneError
        If the weights cannot be fetched, read, or do not fit the network.
    """
    short, tag = resolve(name)
    if short == PIXELS:
        spec = PreprocessSpec(mean=(), std=(), fit="native", canvas=None, rgb=False)
        module: nn.Module = Pixels().eval()
        digest = weights_io.weights_sha256(module)
        return Backbone(short, tag, module, spec, weights_io.NONE, digest, PIXELS)
    canvas = size if fit == "native" else PAPER_CANVAS
    if short == ALEXNET:
        module, mean, std = _build_alexnet(tag, weights), IMAGENET_MEAN, IMAGENET_STD
    else:
        network = _build_timm(tag, weights, canvas)
        module = PreLogits(network)
        mean, std = tuple(network.pretrained_cfg["mean"]), tuple(network.pretrained_cfg["std"])
    module.eval().requires_grad_(False)
    digest = weights_io.weights_sha256(module)
    if isinstance(module, PreLogits):
        bake_sam_tables(module.network, canvas)
    spec = PreprocessSpec(mean, std, fit, None if fit == "native" else canvas)
    return Backbone(short, tag, module, spec, _weights_label(weights), digest, "prelogits")


def _weights_label(weights: str) -> str:
    if weights in (weights_io.PRETRAINED, weights_io.NONE):
        return weights
    return str(Path(weights).resolve())


def _build_alexnet(tag: str, weights: str) -> nn.Module:
    from torchvision.models import AlexNet_Weights, alexnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_INIT_SEED)
        network = alexnet(weights=None)
    if weights == weights_io.NONE:
        return AlexNetFeatures(network)
    if weights == weights_io.PRETRAINED:
        try:
            with redirect_stdout(sys.stderr):  # torch.hub announces downloads on stdout
                state = AlexNet_Weights.IMAGENET1K_V1.get_state_dict(
                    progress=False, check_hash=True, weights_only=True
                )
        except Exception as error:
            raise weights_io.fetch_error(tag, error) from error
    else:
        state = weights_io.read_weights_file(Path(weights))
    module = AlexNetFeatures(network)
    state = {key: value for key, value in state.items() if not key.startswith("classifier.6.")}
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise _misfit(tag, weights, error) from error
    return module


def _build_timm(tag: str, weights: str, canvas: int) -> Any:
    import timm

    if weights == weights_io.PRETRAINED or tag.startswith(HUB_PREFIXES):
        weights_io.go_offline_if_unreachable()
    arguments = _size_arguments(tag, canvas)
    state = None
    if weights not in (weights_io.PRETRAINED, weights_io.NONE):
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
    details = " ".join(line.strip() for line in str(error).splitlines()[1:])[:240]
    return BackboneError(
        f"the weights {weights} do not fit {tag}: {details or first_line(error)}; "
        "check that file and backbone belong together"
    )


def bake_sam_tables(network: Any, canvas: int) -> None:
    """Resize SAM's position tables to the canvas once, instead of in every forward.

    SAM's encoder is native to 1024 px and interpolates its absolute and relative position tables
    whenever its input is smaller. For a frozen network the result is always the same, so it is
    stored; the output is identical.
    """
    from timm.layers import resample_abs_pos_embed_nhwc
    from timm.models.vision_transformer_sam import VisionTransformerSAM

    if not isinstance(network, VisionTransformerSAM):
        return
    grid = [canvas // side for side in network.patch_embed.patch_size]
    with torch.no_grad():
        if network.pos_embed is not None:
            table = resample_abs_pos_embed_nhwc(network.pos_embed, grid)
            network.pos_embed = nn.Parameter(table.clone(), requires_grad=False)
        for block in network.blocks:
            if block.window_size == 0 and block.attn.use_rel_pos:
                for name, side in zip(("rel_pos_h", "rel_pos_w"), grid, strict=True):
                    table = _resize_rel_pos(getattr(block.attn, name), 2 * side - 1)
                    setattr(block.attn, name, nn.Parameter(table, requires_grad=False))


def _resize_rel_pos(table: torch.Tensor, length: int) -> torch.Tensor:
    if table.shape[0] == length:
        return table.detach()
    rows = table.T.unsqueeze(0)
    return F.interpolate(rows, size=length, mode="linear").squeeze(0).T.contiguous()

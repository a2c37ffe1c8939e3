"""What of a network is its embedding: pre-logits, tokens, or the output of a module inside.

``prelogits``, what the classifier would see, is the default. Tokens and maps are those of timm's
``forward_features``, after the network's last norm where it has one there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from medplus.backbones.modules import AlexNetFeatures, PreLogits
from medplus.errors import BackboneError, UsageError, nearest
from medplus.spec import AVG, CLS, LAYER, POOLER, PRELOGITS, check_feature


def with_feature(
    module: nn.Module, feature: str, tag: str, canvas: int, channels: int = 3
) -> nn.Module:
    """Return what maps images to a feature of a network.

    Parameters
    ----------
    module : nn.Module
        What maps images to the pre-logits.
    feature : str
    tag : str
        The backbone, for messages.
    canvas, channels : int
        Height and width in pixels of the images, and their channels, to try a module inside on.

    Raises
    ------
    UsageError
        If the network has no such feature.
    BackboneError
        If a module's output cannot be made an embedding.
    """
    check_feature(feature)
    if feature == PRELOGITS:
        return module
    network = within(module)
    if feature == POOLER:
        if not getattr(network, "has_pooler", False):
            raise UsageError(f"{tag} has no pooler of its own; use prelogits, cls or avg")
        return Tokens(network, feature).eval()
    if not feature.startswith(LAYER):
        if not isinstance(network, AlexNetFeatures) and not hasattr(network, "forward_features"):
            raise UsageError(
                f"{tag} has no forward_features to take --feature {feature} from; use prelogits or "
                "layer:NAME"
            )
        has_class_token = getattr(network, "cls_token", None) is not None and _n_prefix(network)
        if feature != AVG and not has_class_token:
            raise UsageError(
                f"{tag} has no class token, so --feature {feature} is nothing of it; use avg, "
                "prelogits or layer:NAME"
            )
        return Tokens(network, feature).eval()
    name = feature.removeprefix(LAYER)
    names = [known for known, _ in network.named_modules() if known]
    if name not in names:
        top = ", ".join(known for known, _ in network.named_children())
        raise UsageError(f"{tag} has no module '{name}'{nearest(name, names)} (at the top: {top})")
    inside = Layer(module, name).eval()
    try:
        with torch.no_grad():
            inside(torch.zeros(1, channels, canvas, canvas))
    except ValueError as error:
        raise BackboneError(f"--feature {feature} of {tag} is no embedding: {error}") from None
    return inside


class Tokens(nn.Module):
    """The class token, the mean of the patch tokens (or of the last maps), or both.

    Or what the pooler of a model of transformers makes of its tokens, before any projection.

    Parameters
    ----------
    network : nn.Module
    feature : {"cls", "avg", "cls+avg", "pooler"}
    """

    def __init__(self, network: nn.Module, feature: str) -> None:
        super().__init__()
        self.network = network
        self.feature = feature

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, h, w) to embeddings (n, dim), or (n, 2 · dim) for both."""
        network: Any = self.network
        if self.feature == POOLER:
            pooled: torch.Tensor = network.forward_pooler(x)
            return pooled
        is_alexnet = isinstance(network, AlexNetFeatures)
        tokens = network.features(x) if is_alexnet else network.forward_features(x)
        if self.feature == AVG:
            return global_average(tokens, network)
        class_token: torch.Tensor = tokens[:, 0]
        if self.feature == CLS:
            return class_token
        return torch.cat([class_token, global_average(tokens, network)], dim=1)


class Layer(nn.Module):
    """The globally averaged output of a module inside a network."""

    def __init__(self, whole: nn.Module, name: str) -> None:
        super().__init__()
        self.whole = whole
        self.name = name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, 3, h, w) to embeddings (n, channels)."""
        network: Any = within(self.whole)
        kept: list[Any] = []
        layer = network.get_submodule(self.name)
        # For this forward only: a hook that stays would not survive a copy of the network.
        handle = layer.register_forward_hook(lambda _module, _input, output: kept.append(output))
        try:
            self.whole(x)
        finally:
            handle.remove()
        if not kept:
            raise ValueError("the network does not use this module")
        if len(kept) > 1:
            raise ValueError(f"the network uses this module {len(kept)} times")
        if not isinstance(kept[0], torch.Tensor):
            raise ValueError(f"its output is a {type(kept[0]).__name__}, not a tensor")
        return global_average(kept[0], network)


def within(module: nn.Module) -> Any:
    """Return the network in what medplus puts around it, or what has nothing around it."""
    return module.network if isinstance(module, PreLogits | Tokens) else module


def global_average(output: torch.Tensor, network: Any) -> torch.Tensor:
    """Return the mean over what is spatial in an output.

    Parameters
    ----------
    output : Tensor
        Maps (n, channels, h, h) or (n, h, h, channels); tokens (n, n_tokens, channels), of which
        those before the patches (class, distillation, registers) do not count; or
        (n, channels), which stays as it is.
    network : nn.Module
        What it comes from.

    Returns
    -------
    Tensor, shape (n, channels)

    Raises
    ------
    ValueError
        If the output has another shape.
    """
    if output.ndim == 2:
        return output
    if output.ndim == 4:
        last = output.shape[1] == output.shape[2] != output.shape[3]
        if output.shape[1] == output.shape[2] == output.shape[3]:
            last = str(getattr(network, "output_fmt", "NCHW")) == "NHWC"
        return output.mean((1, 2) if last else (2, 3))
    if output.ndim == 3:
        return output[:, _tokens_before_patches(output.shape[1], network) :].mean(1)
    raise ValueError(f"its output has shape {tuple(output.shape)}")


def _n_prefix(network: Any) -> int:
    return int(getattr(network, "num_prefix_tokens", 0) or 0)


def _tokens_before_patches(n_tokens: int, network: Any) -> int:
    before = _n_prefix(network)
    n_patches = getattr(getattr(network, "patch_embed", None), "num_patches", None)
    # The embedding of the patches has not got them yet.
    return 0 if n_tokens in (n_patches, before) else before

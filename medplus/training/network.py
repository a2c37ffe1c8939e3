"""The network that is fine-tuned: a backbone with a linear head, and which of it learns."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from medplus.backbones.build import Backbone
from medplus.backbones.head import initial_head
from medplus.config import FinetuneRecipe
from medplus.errors import BackboneError, first_line
from medplus.preprocess import preprocess
from medplus.training import lora


class Network(nn.Module):
    """A backbone and a linear head on its embeddings.

    Attributes
    ----------
    backbone : nn.Module
        Maps (n, channels, height, width) to embeddings (n, dim).
    head : nn.Linear
        Maps embeddings to logits (n, n_classes).
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (n, channels, height, width) to logits (n, n_classes)."""
        logits: torch.Tensor = self.head(self.backbone(x))
        return logits


def embedding_dim(backbone: Backbone, image: torch.Tensor) -> int:
    """Return the number of embedding dimensions, from one image, uint8 (size, size[, 3]).

    Raises
    ------
    BackboneError
        If the backbone does not take such an image.
    """
    backbone.preprocess.check(image.shape[0])
    training = backbone.module.training
    backbone.module.eval()
    try:
        with torch.no_grad():
            embedding = backbone.module(preprocess(image.unsqueeze(0), backbone.preprocess))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BackboneError(
            f"{backbone.name} does not take these images with --fit {backbone.preprocess.fit}: "
            f"{first_line(error)}; another --fit or backbone may suit them"
        ) from error
    finally:
        backbone.module.train(training)
    return int(embedding.shape[1])


def build_network(
    backbone: Backbone, dim: int, n_classes: int, recipe: FinetuneRecipe, order: torch.Generator
) -> Network:
    """Put a new head on a backbone, and let the recipe's part of it learn.

    The head's initial values are the first that `order` draws, as for `medplus.probe`; those of
    low-rank updates depend on its seed alone, so that head and order are those without them.

    Raises
    ------
    UsageError
        If low-rank updates are asked for and there is no layer for them.
    """
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced
        head = nn.Linear(dim, n_classes)
    weight, bias = initial_head(dim, n_classes, order)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    if recipe.trainable == "head":
        backbone.module.requires_grad_(False)
    elif recipe.lora:
        lora.adapt(backbone.module, recipe.lora, order.initial_seed(), backbone.name)
    return Network(backbone.module, head)


def n_trainable(backbone: Backbone, recipe: FinetuneRecipe) -> int:
    """Return how many parameters would learn below the head; raises as `build_network` does."""
    if recipe.trainable == "head":
        return 0
    if recipe.lora:
        return lora.n_learning(backbone.module, recipe.lora, backbone.name)
    return sum(p.numel() for p in backbone.module.parameters() if p.requires_grad)


def keeps_channels_last(
    network: nn.Module, asked: bool, precision: str, device: torch.device
) -> bool:
    """Tell whether a network and its input are to lie in memory with the channels last.

    If that is asked for and there are convolutions, but not in fp32 on a GPU: its tensor cores want
    it, and fp32 does not use them. It changes nothing but rounding.
    """
    quicker = device.type == "cpu" or precision != "fp32"
    return asked and quicker and any(isinstance(m, nn.Conv2d) for m in network.modules())


def set_training_mode(network: Network, recipe: FinetuneRecipe) -> None:
    """Put a network into the mode in which the recipe trains it.

    With ``norm_stats="frozen"`` batch norms use and keep the statistics they have; if only the
    head learns, the whole backbone is in eval mode: frozen means frozen.
    """
    network.train()
    if recipe.norm_stats == "update":
        return
    if recipe.trainable == "head":
        network.backbone.eval()
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()

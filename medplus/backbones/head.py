"""The linear head that every protocol puts on embeddings, as it is before training."""

from __future__ import annotations

import math

import torch


def initial_head(
    dim: int, n_classes: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw what `nn.Linear(dim, n_classes)` draws, from a generator of its own.

    Returns
    -------
    weight : Tensor of float32, shape (n_classes, dim)
    bias : Tensor of float32, shape (n_classes,)
        Both uniform between ±1/√dim; the weight is drawn first.
    """
    bound = 1 / math.sqrt(dim)
    weight = torch.empty(n_classes, dim).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(n_classes).uniform_(-bound, bound, generator=generator)
    return weight, bias

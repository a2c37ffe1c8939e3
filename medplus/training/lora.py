"""Low-rank adaptation: weights that stay as they are, plus an update of few parameters that learns.

Of a weight W, (out, in), learns W + s · B A with B, (out, r), and A, (r, in). At the end the update
is added to the weight, and the network is what it was: nothing of this is in the file of a run.

peft has the same and is not used: it wraps a layer's call, so that networks that read a layer's
weight themselves (timm's EVA and BEiT, torch's attention) would be trained without their update,
and renames all parameters, by whose names learning rates by depth are found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from medplus.errors import UsageError

SCALE = 2.0
"""s, or α / r: that of the authors' own experiments with encoders (α = 16 of r = 8). Any other is
much the same as another learning rate (Hu et al., 2021, section 4.1)."""

_A, _B = "lora_a", "lora_b"


class _Adapted(nn.Module):
    """What the class of an adapted layer has beyond the layer's own; its weight is the sum.

    Whoever reads the weight gets the sum, whichever way the layer is computed.
    """

    own_class: type[nn.Module]
    weight_name: str
    lora_a: nn.Parameter
    lora_b: nn.Parameter

    def adapted(self) -> torch.Tensor:
        """Return W + s · B A, of shape (out, in)."""
        frozen = self._parameters[self.weight_name]
        assert frozen is not None
        return torch.addmm(frozen, self.lora_b, self.lora_a, alpha=SCALE)


def _forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Map (…, in) to (…, out); in training without the gradient of the whole weight."""
    if not self.training:  # to the last bit as once it is merged
        return F.linear(x, self.weight, self.bias)
    frozen = F.linear(x, self._parameters["weight"], self.bias)
    return frozen + F.linear(F.linear(x, self.lora_a) * SCALE, self.lora_b)


@cache
def _adapted_class(own: Any, weight: str) -> Any:
    """Return the class of such a layer with an update; its instances remain instances of `own`."""
    members: dict[str, Any] = {
        "own_class": own,
        "weight_name": weight,
        weight: property(_Adapted.adapted),
    }
    if own.forward is nn.Linear.forward:
        members["forward"] = _forward
    return type(f"Adapted{own.__name__}", (_Adapted, own), members)


def adapt(module: nn.Module, rank: int, seed: int, name: str) -> None:
    """Freeze a network, and give its linear layers an update of low rank that learns.

    Adapted are the weights of linear layers, and the joint projection of queries, keys and values
    of torch's attention, if the update has fewer parameters than the weight: one update each, also
    where queries, keys and values are one layer. Convolutions, biases, norms and position tables
    stay frozen. As yet the network computes what it did: B is zero, and A as `torch.nn.Linear`
    begins, drawn from the seed.

    Parameters
    ----------
    rank : int
        r, at least 1.
    seed : int
        At least 0; other draws from the same seed do not depend on this one.
    name : str
        What the network is called, for the error.

    Raises
    ------
    UsageError
        If no layer can be adapted.

    References
    ----------
    Hu et al., LoRA: low-rank adaptation of large language models, ICLR 2022 (arXiv 2106.09685).
    All linear layers, not attention's alone: Dettmers et al., QLoRA, NeurIPS 2023.

    Examples
    --------
    >>> layer = nn.Linear(64, 32)
    >>> adapt(layer, rank=4, seed=0, name="a layer")
    >>> [name for name, parameter in layer.named_parameters() if parameter.requires_grad]
    ['lora_a', 'lora_b']
    >>> merge(layer)
    >>> [name for name, _ in layer.named_parameters()]
    ['weight', 'bias']
    """
    chosen = _chosen(module, rank, name)
    module.requires_grad_(False)
    words = np.random.SeedSequence(seed, spawn_key=(1,)).generate_state(1, np.uint64)
    chance = torch.Generator().manual_seed(int(words[0]))
    for layer, weight in chosen:
        like = getattr(layer, weight)
        n_out, n_in = like.shape
        a = torch.empty(rank, n_in)
        nn.init.kaiming_uniform_(a, math.sqrt(5), generator=chance)
        layer.register_parameter(_A, nn.Parameter(a.to(like)))
        layer.register_parameter(_B, nn.Parameter(torch.zeros(n_out, rank).to(like)))
        own: Any = type(layer)
        layer.__class__ = _adapted_class(own, weight)


def merge(network: nn.Module) -> None:
    """Add all updates to their weights, and make the layers what they were; frozen they remain."""
    for layer in network.modules():
        if isinstance(layer, _Adapted):
            merged = layer.adapted().detach()
            for update in (_A, _B):
                delattr(layer, update)
            name = layer.weight_name
            layer.__class__ = layer.own_class  # type: ignore[assignment]
            with torch.no_grad():
                getattr(layer, name).copy_(merged)


def merged_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a network's state as if it were merged; the network is not changed."""
    state = {name: value.detach() for name, value in network.state_dict().items()}
    for name, layer in network.named_modules():
        if isinstance(layer, _Adapted):
            prefix = f"{name}." if name else ""
            for update in (_A, _B):
                del state[prefix + update]
            state[prefix + layer.weight_name] = layer.adapted().detach()
    return {name: value.clone() for name, value in state.items()}


def n_learning(module: nn.Module, rank: int, name: str) -> int:
    """Return how many parameters `adapt` would let learn; it raises the same."""
    return sum(rank * sum(getattr(*one).shape) for one in _chosen(module, rank, name))


def _chosen(module: nn.Module, rank: int, name: str) -> list[tuple[nn.Module, str]]:
    """Return the layers whose update has fewer parameters than their weight, with its name."""
    found = list(_weights(module))
    chosen = [one for one in found if rank <= _highest_rank(getattr(*one))]
    if chosen:
        return chosen
    if found:
        most = max(_highest_rank(getattr(*one)) for one in found)
        raise UsageError(
            f"--lora {rank} has no fewer parameters than the linear layers of {name} themselves; "
            f"choose a rank of at most {most}"
        )
    raise UsageError(
        f"{name} has no linear layers that --lora {rank} could adapt; use --trainable head, or "
        "leave --lora out to train all of it"
    )


def _weights(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield all layers that might be adapted, with the name of their weight."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            yield layer, "weight"
        elif isinstance(layer, nn.MultiheadAttention) and layer.in_proj_weight is not None:
            yield layer, "in_proj_weight"


def _highest_rank(weight: torch.Tensor) -> int:
    """Return the highest rank whose update has fewer parameters than the weight."""
    return -(-weight.numel() // sum(weight.shape)) - 1

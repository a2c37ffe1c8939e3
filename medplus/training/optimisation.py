"""What a recipe says about steps: parameter groups, optimiser, schedule, moving average, mixing.

timm does the work; here the recipe's words become timm's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from medplus.backbones.lean import timm
from medplus.config import FinetuneRecipe
from medplus.training.network import Network

if TYPE_CHECKING:
    from timm.data import Mixup
    from timm.utils import ModelEmaV3

_MOMENTUM = 0.9
_EMA_WARMUP_POWER = 0.75  # timm's advice for training of fewer than a million steps


def make_optimizer(network: Network, recipe: FinetuneRecipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser over the parameters that learn."""
    groups = _parameter_groups(network, recipe)
    # A fused step unscales fp16 gradients inside, after which they can no longer be clipped.
    fused = recipe.fused and not (recipe.precision == "fp16" and recipe.clip_grad)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.lr, _MOMENTUM, nesterov=True, fused=fused or None)
    return torch.optim.AdamW(groups, recipe.lr, fused=fused or None)


def _parameter_groups(network: Network, recipe: FinetuneRecipe) -> list[dict[str, Any]]:
    """Return parameters by weight decay and by depth; the head, always last, is the shallowest."""
    from timm.optim import param_groups_layer_decay, param_groups_weight_decay

    decay = recipe.weight_decay
    decay_of_1d = decay if recipe.decay_bias_and_norm else 0.0
    # The timm network within, which knows its own layers.
    inner: nn.Module = getattr(network.backbone, "network", network.backbone)
    learns = [p for p in inner.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = []
    spared = _never_decayed(inner)
    if learns and recipe.layer_decay < 1:
        groups = param_groups_layer_decay(
            inner, decay, no_weight_decay_list=spared, layer_decay=recipe.layer_decay
        )
    elif learns and not recipe.decay_bias_and_norm:
        groups = param_groups_weight_decay(inner, decay, no_weight_decay_list=spared)
    elif learns:
        groups = [{"params": learns}]
    if recipe.decay_bias_and_norm:
        groups = [{**group, "weight_decay": decay} for group in groups]
    groups = [{**group, "params": list(group["params"])} for group in groups]
    groups.append({"params": [network.head.weight], "weight_decay": decay})
    groups.append({"params": [network.head.bias], "weight_decay": decay_of_1d})
    return [group for group in groups if group["params"]]


def _never_decayed(inner: nn.Module) -> set[str]:
    """Return the names of the parameters that the architecture wants without weight decay."""
    names = getattr(inner, "no_weight_decay", None)
    return set(names()) if callable(names) else set()


class Schedule:
    """The learning rate at any step, as a function of the step alone: nothing to be saved."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, recipe: FinetuneRecipe, steps_per_epoch: int
    ) -> None:
        from timm.scheduler import CosineLRScheduler

        self._kind = recipe.schedule
        if self._kind == "constant":
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * group.get("lr_scale", 1.0)
            return
        per_epoch = self._kind == "paper"
        total = recipe.epochs * (1 if per_epoch else steps_per_epoch)
        warmup = 0 if per_epoch else math.floor(recipe.warmup * total)
        self._cosine = CosineLRScheduler(
            optimizer,
            t_initial=max(2, total - warmup),  # of 1, where t is always 0, timm warns
            warmup_t=warmup,
            warmup_lr_init=recipe.lr / (warmup + 1),
            warmup_prefix=True,
            t_in_epochs=per_epoch,
        )

    def before_step(self, epoch: int, step: int) -> None:
        """Set the rate for a step; `epoch` counts from 0, `step` over all epochs from 0.

        The paper's code steps the schedule after each epoch with that epoch's index, so that epochs
        0 and 1 both use the full rate.
        """
        if self._kind == "paper":
            self._cosine.step(max(epoch - 1, 0))
        elif self._kind == "cosine":
            self._cosine.step_update(step)


def make_average(network: Network, recipe: FinetuneRecipe) -> ModelEmaV3 | None:
    """Return the moving average of the weights, or None; its decay rises over the first steps."""
    if not recipe.ema:
        return None
    return timm.utils.ModelEmaV3(
        network, recipe.ema, use_warmup=True, warmup_power=_EMA_WARMUP_POWER, foreach=True
    )


def make_mixup(recipe: FinetuneRecipe, n_classes: int, multi_label: bool) -> Mixup | None:
    """Return what mixes images and targets of a batch, or None."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    return timm.data.Mixup(
        recipe.mixup,
        recipe.cutmix,
        label_smoothing=recipe.label_smoothing,
        num_classes=n_classes,
        multi_label=multi_label,
    )

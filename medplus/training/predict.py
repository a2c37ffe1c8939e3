"""Logits of a whole split, shared out over the devices that train."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import nn

from medplus.preprocess import Preprocessor
from medplus.training.batches import Batches


@torch.no_grad()
def predict(
    fabric: Fabric, network: nn.Module, images: Batches, prepare: Preprocessor, batch_size: int
) -> torch.Tensor:
    """Return the logits of all images of a split, float32 (n, n_classes), on the CPU.

    The network is put into eval mode. Every device takes every so-manieth image, and all devices
    return all logits.
    """
    network.eval()
    n, world = len(images), fabric.world_size
    each = -(-n // world)
    # The last devices may run out of images; they repeat some, and what is repeated is cut off.
    own = (torch.arange(each) * world + fabric.global_rank) % n
    parts = []
    for batch, _ in images(torch.split(own, batch_size)):
        with fabric.autocast():
            parts.append(network(prepare(batch)).float())
    logits = torch.cat(parts)
    if world > 1:
        gathered = [torch.empty_like(logits) for _ in range(world)]
        torch.distributed.all_gather(gathered, logits)
        logits = torch.stack(gathered, 1).flatten(0, 1)[:n]
    return logits.cpu()

"""Logits of a whole split, shared out over the devices that train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import nn

from medplus.backbones.inference import is_out_of_memory
from medplus.preprocess import Preprocessor
from medplus.training.batches import Batches
from medplus.training.memory import release_memory


@torch.no_grad()
def predict(
    fabric: Fabric, network: nn.Module, images: Batches, prepare: Preprocessor, batch_size: int
) -> torch.Tensor:
    """Return the logits of all images of a split, float32 (n, n_classes), on the CPU.

    The network is put into eval mode. Every device takes every so-manieth image, and all devices
    return all logits. Batches that do not fit into memory are halved: `batch_size` may be more than
    training had room for.
    """
    network.eval()
    n, world = len(images), fabric.world_size
    each = -(-n // world)
    # The last devices may run out of images; they repeat some, and what is repeated is cut off.
    own = (torch.arange(each) * world + fabric.global_rank) % n
    logits = None
    while logits is None:
        try:
            logits = _forward(fabric, network, images, prepare, torch.split(own, batch_size))
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
        if logits is None:  # only here does the failed attempt hold nothing any more
            batch_size //= 2
            release_memory(fabric.device)
    if world > 1:
        gathered = [torch.empty_like(logits) for _ in range(world)]
        torch.distributed.all_gather(gathered, logits)
        logits = torch.stack(gathered, 1).flatten(0, 1)[:n]
    return logits.cpu()


def _forward(
    fabric: Fabric,
    network: nn.Module,
    images: Batches,
    prepare: Preprocessor,
    rows: Sequence[torch.Tensor],
) -> torch.Tensor:
    parts = []
    for batch, _ in images(rows):
        with fabric.autocast():
            parts.append(network(prepare(batch)).float())
    return torch.cat(parts)

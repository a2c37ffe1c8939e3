"""Which batch fits into a device's memory: tried out, since no formula knows."""

from __future__ import annotations

import copy
import gc
import logging
from typing import cast

import numpy as np
import torch

from medplus.backbones.inference import is_out_of_memory
from medplus.config import FinetuneRecipe
from medplus.datasets.dataset import ImageDataset
from medplus.errors import RunError
from medplus.preprocess import PreprocessSpec
from medplus.training.launch import make_fabric, reproducible
from medplus.training.network import Network, set_training_mode
from medplus.training.step import Stepper
from medplus.vocabulary import Precision

log = logging.getLogger(__name__)


def largest_batch(
    network: Network,
    images: ImageDataset,
    spec: PreprocessSpec,
    recipe: FinetuneRecipe,
    device: torch.device,
    most: int,
) -> int:
    """Return the largest of `most`, its half, its quarter, … images that one step can take.

    Each is tried with a whole step on a copy of the network; the network itself is not changed.

    Raises
    ------
    RunError
        If not even one image fits.
    """
    batch = most
    while True:
        try:
            _try_step(network, images, spec, recipe, device, batch)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return batch
        finally:
            gc.collect()  # what the attempt held
            if device.type == "cuda":
                torch.cuda.empty_cache()
        if batch == 1:
            raise RunError(
                f"not even one image at a time fits into the memory of {device}; use another "
                "--device, a smaller backbone, --precision bf16, --lora 8 or --trainable head"
            )
        log.info("%d images at a time do not fit into memory", batch)
        batch //= 2


def _try_step(
    network: Network,
    images: ImageDataset,
    spec: PreprocessSpec,
    recipe: FinetuneRecipe,
    device: torch.device,
    batch: int,
) -> None:
    trial = copy.deepcopy(network)
    precision = cast("Precision", recipe.precision)
    set_training_mode(trial, recipe)
    fabric = make_fabric(device, 1, precision)
    fabric.launch()
    train = images.splits["train"]
    some = np.resize(np.arange(min(batch, len(train))), batch)
    pixels = torch.from_numpy(train.images[some]).to(device)
    labels = torch.from_numpy(train.labels[some].astype(np.int64)).to(device)
    alone = recipe.model_copy(update={"batch_size": batch, "accumulate": 1})
    with reproducible(False, trial, precision, device):
        step = Stepper(fabric, trial, images, spec, alone, 0)
        step(iter([(pixels, labels)]), batch, 0, 0)

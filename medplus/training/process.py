"""One fine-tuning in one process: from what it is to what it found, the same on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric

from medplus.backbones.build import Backbone
from medplus.backbones.finetuned import NetworkDescription
from medplus.backbones.inference import is_out_of_memory
from medplus.backbones.lean import timm
from medplus.cost import PeakMemory
from medplus.datasets.dataset import ImageDataset
from medplus.datasets.sources import load_spec
from medplus.embeddings.pipeline import as_tensor
from medplus.errors import RunError, first_line
from medplus.preprocess import preprocess
from medplus.run.plan import RunPlan
from medplus.run.record import TrainingFacts
from medplus.run.scoring import EVALUATED
from medplus.training.folder import RunFolder, partial_folder
from medplus.training.folds import images_of, rows_of
from medplus.training.launch import reproducible
from medplus.training.network import Network, build_network
from medplus.training.plan import FinetunePlan, load_backbone
from medplus.training.progress import TrainingProgress
from medplus.training.step import Stepper
from medplus.training.tracking import Tracker, open_tracker
from medplus.training.trainer import Trainer
from medplus.training.unseen import clear_unseen
from medplus.training.watch import Watch
from medplus.vocabulary import Split

_ONE_VALUE = "Expected more than 1 value per channel"  # torch's batch norm


@dataclass(frozen=True)
class Trained:
    """What a fine-tuning found.

    Attributes
    ----------
    scores : dict of split to ndarray of float32, shape (n_samples, n_classes)
        The best network's class probabilities.
    facts : TrainingFacts
        How it was done, for the record.
    peaks : dict of str to int
        Peak memory of the first process in this session, as `PeakMemory.read` returns it.
    """

    progress: TrainingProgress
    scores: dict[Split, np.ndarray]
    facts: TrainingFacts
    peaks: dict[str, int]


def train(
    fabric: Fabric,
    plan: FinetunePlan,
    run: RunPlan,
    dim: int,
    images: ImageDataset | None = None,
    backbone: Backbone | None = None,
) -> Trained:
    """Train, and predict val and test with the best network.

    Parameters
    ----------
    dim : int
        Number of embedding dimensions.
    images, backbone : optional
        If they have been loaded in this process already; the backbone is changed.

    Raises
    ------
    MedplusError
        If the data or the network cannot be used, the loss is not finite, or memory runs out.
    KeyboardInterrupt
        If it was interrupted; the state is saved.
    """
    if images is None:
        images = load_spec(plan.asked, plan.data_root)
        images = images if plan.fold is None else images_of(images, rows_of(images, plan.fold))
    backbone = backbone or load_backbone(plan.asked, images)
    recipe, device, alone = plan.recipe, fabric.device, fabric.world_size == 1
    order = torch.Generator().manual_seed(plan.seed)
    network = build_network(backbone, dim, images.n_classes, recipe, order)
    if device.type == "cpu" and plan.precision == "bf16":
        image = as_tensor(images, "train", slice(0, 1))
        clear_unseen(network.backbone, preprocess(image, backbone.preprocess))
    if not alone and device.type == "cuda" and recipe.norm_stats == "update":
        network = share_batch_norms(network)
    description = _describe(plan, run.run_id, dim, images, backbone)
    folder = RunFolder(partial_folder(run.folder), description, run.identity)
    memory = PeakMemory(device)
    with (
        _tracked(fabric, plan, run, images) as tracker,
        _explained(plan, backbone, device),
        reproducible(recipe.deterministic, network, plan.precision, device) as promise,
    ):
        step = Stepper(
            fabric, network, images, backbone.preprocess, recipe, plan.seed, plan.compiled
        )
        watch = plan.watch if fabric.is_global_zero else Watch()
        trainer = Trainer(step, images, order, folder, watch, tracker)
        progress = trainer.fit(plan.resume)
        scores = trainer.predict_best(EVALUATED)
    facts = TrainingFacts(
        deterministic=promise,
        images="on the device" if trainer.resident else "streamed from the cache",
        batch_norm=_batch_norm(network, alone),
        devices=fabric.world_size,
        compiled=plan.compiled,
        resumed=progress.resumed,
    )
    return Trained(progress, scores, facts, memory.read())


def _tracked(
    fabric: Fabric, plan: FinetunePlan, run: RunPlan, images: ImageDataset
) -> AbstractContextManager[Tracker | None]:
    if plan.track is None or not fabric.is_global_zero:
        return nullcontext()
    group = f"{images.name}-{images.size}"
    return open_tracker(plan.track, partial_folder(run.folder), run.run_id, group, run.config)


@contextmanager
def _explained(plan: FinetunePlan, backbone: Backbone, device: torch.device) -> Iterator[None]:
    """Tell what the block fails for with its remedy."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            part = -(-plan.recipe.batch_size // plan.recipe.accumulate)
            says = f"{device} ran out of memory with {part} images at a time; use "
            says += "another --device or a smaller backbone"
            if part > 1:
                says += (
                    f", --accumulate {2 * plan.recipe.accumulate} for the same steps in smaller "
                    "parts, or --batch-size auto, which finds what fits"
                )
        elif "deterministic" in str(error):
            says = (
                f"{backbone.name} has no deterministic gradient on {device} "
                f"({first_line(error)}); use --no-deterministic"
            )
        elif _ONE_VALUE in str(error):
            says = (
                f"{backbone.name} normalises over a batch, and a batch of one image of this size "
                "leaves it a single value; choose a --batch-size that leaves no last batch of one "
                "image (per device), or --norm-stats frozen"
            )
        else:
            raise
        raise RunError(says) from error


def share_batch_norms(network: Network) -> Network:
    """Let batch norms take their statistics over the batches of all devices.

    By timm's conversion: torch's own would drop the activations within timm's batch norms.
    """
    shared: Network = timm.layers.convert_sync_batchnorm(network)
    return shared


def _describe(
    plan: FinetunePlan, run_id: str, dim: int, images: ImageDataset, backbone: Backbone
) -> NetworkDescription:
    name, tag = backbone.architecture
    return NetworkDescription(
        run_id=run_id,
        backbone=name,
        tag=tag,
        weights_sha256=backbone.weights_sha256,
        preprocess=vars(backbone.preprocess).copy(),
        feature=backbone.feature,
        dim=dim,
        dataset=images.name,
        size=images.size,
        task=images.task,
        classes=images.classes,
        epoch=0,
        val_loss=0.0,
        precision=plan.precision,
        card=backbone.card,
    )


def _batch_norm(network: Network, alone: bool) -> str:
    modules = list(network.modules())
    if any(isinstance(module, torch.nn.SyncBatchNorm) for module in modules):
        return "over all devices"
    if any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in modules):
        return "one" if alone else "per device, evaluated with the first one's"
    return "none"

"""One fine-tuning in one process: from what it is to what it found, the same on every device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from timm.layers import convert_sync_batchnorm

from medplus.backbones.build import Backbone
from medplus.backbones.finetuned import NetworkDescription
from medplus.backbones.inference import is_out_of_memory
from medplus.cost import PeakMemory
from medplus.datasets.dataset import ImageDataset
from medplus.errors import RunError, first_line
from medplus.runs.record import TrainingFacts
from medplus.runs.scoring import EVALUATED
from medplus.training.folder import RunFolder, partial_folder
from medplus.training.launch import reproducible
from medplus.training.memory import largest_batch, release_memory
from medplus.training.network import Network, build_network
from medplus.training.plan import FinetunePlan, load_backbone, load_images
from medplus.training.progress import TrainingProgress
from medplus.training.tracking import Tracker, open_tracker
from medplus.training.trainer import Trainer
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
    recipe = plan.recipe
    images = images or load_images(plan.asked, plan.data_root)
    backbone = backbone or load_backbone(plan.asked, images)
    order = torch.Generator().manual_seed(plan.seed)
    network = build_network(backbone, dim, images.n_classes, recipe, order)
    several = fabric.world_size > 1
    if several and fabric.device.type == "cuda" and recipe.norm_stats == "update":
        network = share_batch_norms(network)
    description = _describe(plan, dim, images, backbone)
    folder = RunFolder(partial_folder(plan.run.folder), description, plan.run.identity)
    tracked: AbstractContextManager[Tracker | None] = nullcontext()
    if plan.track is not None and fabric.is_global_zero:
        group = f"{images.name}-{images.size}"
        tracked = open_tracker(plan.track, folder.path, plan.run.run_id, group, plan.run.config)
    with tracked as tracker:
        try:
            with reproducible(
                recipe.deterministic, network, plan.precision, fabric.device
            ) as promise:
                return _fit(
                    fabric, plan, folder, images, backbone, network, order, tracker, promise
                )
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if is_out_of_memory(error) and not several:
                pass  # told below, where the failed attempt holds no memory any more
            elif "deterministic" in str(error):
                raise RunError(
                    f"{backbone.name} has no deterministic gradient on {fabric.device} "
                    f"({first_line(error)}); use --no-deterministic"
                ) from error
            else:
                raise
        except ValueError as error:
            if _ONE_VALUE not in str(error):
                raise
            raise RunError(
                f"{backbone.name} normalises over a batch, and a batch of one image of this size "
                "leaves it a single value; choose a --batch-size that leaves no last batch of one "
                "image (per device), or --norm-stats frozen"
            ) from error
        raise _out_of_memory(plan, images, backbone, network, fabric.device)


def share_batch_norms(network: Network) -> Network:
    """Let batch norms take their statistics over the batches of all devices.

    By timm's conversion: torch's own would drop the activations within timm's batch norms.
    """
    shared: Network = convert_sync_batchnorm(network)
    return shared


def _describe(
    plan: FinetunePlan, dim: int, images: ImageDataset, backbone: Backbone
) -> NetworkDescription:
    name, tag = backbone.architecture
    return NetworkDescription(
        run_id=plan.run.run_id,
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
    )


def _fit(
    fabric: Fabric,
    plan: FinetunePlan,
    folder: RunFolder,
    images: ImageDataset,
    backbone: Backbone,
    network: Network,
    order: torch.Generator,
    tracker: Tracker | None,
    promise: str,
) -> Trained:
    memory = PeakMemory(fabric.device)
    trainer = Trainer(
        fabric, network, images, backbone.preprocess, plan.recipe, plan.seed, order, folder,
        plan.watch if fabric.is_global_zero else Watch(), tracker, plan.compiled,
    )  # fmt: skip
    progress = trainer.fit(plan.resume)
    scores = trainer.predict_best(EVALUATED)
    facts = TrainingFacts(
        deterministic=promise,
        images="on the device" if trainer.resident else "streamed from the cache",
        batch_norm=_batch_norm(network, fabric),
        devices=fabric.world_size,
        compiled=plan.compiled,
        resumed=progress.resumed,
    )
    return Trained(progress, scores, facts, memory.read())


def _batch_norm(network: Network, fabric: Fabric) -> str:
    modules = list(network.modules())
    if any(isinstance(module, torch.nn.SyncBatchNorm) for module in modules):
        return "over all devices"
    if any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in modules):
        return "per device, evaluated with the first one's" if fabric.world_size > 1 else "one"
    return "none"


def _out_of_memory(
    plan: FinetunePlan,
    images: ImageDataset,
    backbone: Backbone,
    network: Network,
    device: torch.device,
) -> RunError:
    """Return the error that says what would have fitted."""
    network.cpu()
    release_memory(device)
    recipe = plan.recipe
    part = -(-recipe.batch_size // recipe.accumulate)
    what = f"{device} ran out of memory with {part} images at a time"
    if part == 1:
        return RunError(f"{what}; use another --device or a smaller backbone")
    found = largest_batch(network, images, backbone.preprocess, recipe, device, part // 2)
    return RunError(
        f"{what}; {found} would fit: use --accumulate {-(-recipe.batch_size // found)} for the "
        f"same steps in smaller parts, or --batch-size {found} (--batch-size auto finds it)"
    )

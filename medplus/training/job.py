"""One fine-tuning in one process: from what it is to what it found, the same on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from medplus.runs.scoring import EVALUATED
from medplus.training.folder import RunFolder
from medplus.training.launch import reproducible
from medplus.training.memory import largest_batch, release_memory
from medplus.training.network import Network, build_network
from medplus.training.plan import FinetunePlan
from medplus.training.progress import TrainingProgress
from medplus.training.trainer import Trainer
from medplus.training.watch import Watch
from medplus.vocabulary import Split

_ONE_VALUE = "Expected more than 1 value per channel"  # torch's batch norm


@dataclass(frozen=True)
class Job:
    """A planned run, ready to be sent to the processes that train.

    Attributes
    ----------
    dim : int
        Number of embedding dimensions.
    folder : Path
        Where the run lies while it is under way.
    """

    plan: FinetunePlan
    dim: int
    folder: Path
    description: NetworkDescription
    compiled: bool
    resume: bool
    watch: Watch


@dataclass(frozen=True)
class Outcome:
    """What a fine-tuning found.

    Attributes
    ----------
    scores : dict of split to ndarray of float32, shape (n_samples, n_classes)
        The best network's class probabilities.
    training : dict
        How it was done, for the record.
    peaks : dict of str to int
        Peak memory of the first process in this session, as `PeakMemory.read` returns it.
    """

    progress: TrainingProgress
    scores: dict[Split, np.ndarray]
    training: dict[str, Any]
    peaks: dict[str, int]


def run_job(
    fabric: Fabric,
    job: Job,
    images: ImageDataset | None = None,
    backbone: Backbone | None = None,
) -> Outcome:
    """Train, and predict val and test with the best network.

    Parameters
    ----------
    images, backbone : optional
        If they have been loaded in this process already; the backbone is changed.

    Raises
    ------
    MedplusError
        If the data or the network cannot be used, the loss is not finite, or memory runs out.
    KeyboardInterrupt
        If it was interrupted; the state is saved.
    """
    images = images or job.plan.source.load_images()
    backbone = backbone or job.plan.source.load_backbone(images)
    order = torch.Generator().manual_seed(job.plan.seed)
    network = build_network(backbone, job.dim, images.n_classes, job.plan.recipe, order)
    several = fabric.world_size > 1
    if several and fabric.device.type == "cuda" and job.plan.recipe.norm_stats == "update":
        network = share_batch_norms(network)
    recipe, precision = job.plan.recipe, job.plan.precision
    with _tracked(fabric):
        try:
            with reproducible(recipe.deterministic, network, precision, fabric.device) as promise:
                return _train(fabric, job, images, backbone, network, order, promise)
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
        raise _out_of_memory(job, images, backbone, network, fabric.device)


@contextmanager
def _tracked(fabric: Fabric) -> Iterator[None]:
    """Open the trackers, so that what is wrong with one shows before training, and close them."""
    status = "failed"
    try:
        for tracker in fabric.loggers:
            tracker.log_hyperparams({})
        yield
        status = "success"
    except KeyboardInterrupt:
        status = "aborted"
        raise
    finally:
        for tracker in fabric.loggers:
            tracker.finalize(status)


def share_batch_norms(network: Network) -> Network:
    """Let batch norms take their statistics over the batches of all devices.

    By timm's conversion: torch's own would drop the activations within timm's batch norms.
    """
    shared: Network = convert_sync_batchnorm(network)
    return shared


def _train(
    fabric: Fabric,
    job: Job,
    images: ImageDataset,
    backbone: Backbone,
    network: Network,
    order: torch.Generator,
    promise: str,
) -> Outcome:
    folder = RunFolder(job.folder, job.description, job.plan.identity)
    watch = job.watch if fabric.is_global_zero else Watch()
    memory = PeakMemory(fabric.device)
    trainer = Trainer(
        fabric, network, images, backbone.preprocess, job.plan.recipe, job.plan.seed, order,
        folder, watch, job.compiled,
    )  # fmt: skip
    progress = trainer.fit(job.resume)
    scores = trainer.predict_best(EVALUATED)
    training = {
        "deterministic": promise,
        "images": "on the device" if trainer.resident else "streamed from the cache",
        "batch_norm": _batch_norm(network, fabric),
        "devices": fabric.world_size,
        "compiled": job.compiled,
        "resumed": progress.resumed,
    }
    return Outcome(progress, scores, training, memory.read())


def _batch_norm(network: Network, fabric: Fabric) -> str:
    modules = list(network.modules())
    if any(isinstance(module, torch.nn.SyncBatchNorm) for module in modules):
        return "over all devices"
    if any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in modules):
        return "per device, evaluated with the first one's" if fabric.world_size > 1 else "one"
    return "none"


def _out_of_memory(
    job: Job,
    images: ImageDataset,
    backbone: Backbone,
    network: Network,
    device: torch.device,
) -> RunError:
    """Return the error that says what would have fitted."""
    network.cpu()
    release_memory(device)
    recipe = job.plan.recipe
    part = -(-recipe.batch_size // recipe.accumulate)
    what = f"{device} ran out of memory with {part} images at a time"
    if part == 1:
        return RunError(f"{what}; use another --device or a smaller backbone")
    found = largest_batch(
        network, images, backbone.preprocess, recipe, job.plan.precision, device, part // 2
    )
    return RunError(
        f"{what}; {found} would fit: use --accumulate {-(-recipe.batch_size // found)} for the "
        f"same steps in smaller parts, or --batch-size {found} (--batch-size auto finds it)"
    )

"""The fine-tuning protocol: whole networks on images, one record per network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from medplus.backbones import sources as backbones
from medplus.config import FinetuneRecipe, finetune_recipe, probe_recipe
from medplus.datasets import sources as datasets
from medplus.datasets.dataset import ImageDataset
from medplus.device import check_devices, resolve_device, resolve_training_precision
from medplus.embeddings.pipeline import as_tensor
from medplus.errors import UsageError
from medplus.progress import Progress, silent
from medplus.run.folds import Folds
from medplus.run.record import RunRecord
from medplus.run.scoring import check_trainable
from medplus.spec import AUTO, ExtractSpec, make_spec
from medplus.training.crossvalidation import carry_out, cross_validate
from medplus.training.network import build_network, embedding_dim
from medplus.training.plan import FinetunePlan, Keep, load_backbone
from medplus.training.watch import Watch
from medplus.vocabulary import PAPER_SEEDS

log = logging.getLogger(__name__)

_CHOICES = ("weights", "fit", "group_column", "exclude")
"""What of a spec a fine-tuning leaves open; precision is the recipe's."""


def finetune(
    dataset: str | Path,
    size: int | None = None,
    backbone: str | Path = "resnet18",
    seeds: int | Sequence[int] = PAPER_SEEDS[0],
    **options: Any,
) -> list[RunRecord]:
    """Train a whole network on a dataset, and score the network of the best val loss.

    The ``paper`` recipe: AdamW with lr 1e-4 and weight decay 0.01, batches of 64, at most 100
    epochs on a cosine schedule, stopped after 5 epochs without a better val loss, fp32, no
    augmentation. ``modern``: bf16 where the hardware has it, warm-up and cosine, layer-wise
    learning rates, a moving average of the weights, label smoothing, light augmentation.

    The same call goes on where an interrupted one stopped, and returns a finished run as it is.

    Parameters
    ----------
    dataset : str
        A MedMNIST flag, the path of an npz file in the same layout, or a folder of images.
    size : int, optional
        Size of the images in pixels; as for `medplus.load_dataset`.
    backbone : str
        One of the paper's ten, any timm name, or the folder of a fine-tuned run.
    seeds : int or sequence of int
        One network per seed: it fixes the head's initial values, the order of the images, dropout
        and augmentation.
    **options
        `weights`, `fit`, `group_column` and `exclude` as for `medplus.extract`; the others as for
        `finetune_all`.

    Returns
    -------
    list of RunRecord
        One per seed.

    Raises
    ------
    MedplusError
        UsageError, DatasetError, BackboneError or RunError, saying what is wrong and what to do.

    Examples
    --------
    >>> import medplus
    >>> [run] = medplus.finetune("breastmnist", 28, "mobilenetv3_small_050", seeds=1,
    ...                          weights="none", fit="native", recipe="modern", epochs=1)
    >>> run.protocol, run.seed
    ('finetune', 1)
    """
    chosen = {name: options.pop(name) for name in _CHOICES if name in options}
    return finetune_all([make_spec(dataset, size, backbone, **chosen)], seeds, **options)


def finetune_all(
    specs: Sequence[ExtractSpec],
    seeds: int | Sequence[int] = PAPER_SEEDS[0],
    *,
    recipe: str = "paper",
    batch_size: int | Literal["auto"] | None = None,
    device: str = "auto",
    devices: int = 1,
    compiled: bool = False,
    data_root: str | Path = "data",
    runs: str | Path = "runs",
    resume: bool = True,
    overwrite: bool = False,
    keep: Keep = "best",
    track: str | None = None,
    watch: Watch | None = None,
    folds: Folds | None = None,
    fold: Sequence[int] | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> list[RunRecord]:
    """Fine-tune the backbone of every spec on its data with every seed.

    Parameters
    ----------
    specs : sequence of ExtractSpec
        Data, and the backbones to begin with: their weights, fit and group column are heeded.
    seeds : int or sequence of int
        One network per spec and seed.
    recipe : str
        ``paper``, ``modern``, or the path of a YAML file.
    data_root : str or Path
        As for `medplus.extract`.
    batch_size : int or "auto", optional
        Images per step; ``auto`` is the recipe's, halved until a step fits into memory.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    devices : int
        Processes, each with a GPU or a share of the CPU's cores; a batch is shared out among them.
    compiled : bool
        Train through `torch.compile`.
    runs : str or Path
        Root of the runs.
    resume : bool
        Go on from the saved state of an interrupted run; otherwise begin again.
    overwrite : bool
        Train runs again that are finished.
    keep : {"best", "all"}
        Keep the best network of a finished run, or its last training state too.
    track : {"tensorboard", "wandb", "mlflow"}, optional
        A tracker to tell of every epoch.
    watch : Watch, optional
        Told of every step and epoch.
    folds : medplus.run.folds.Folds, optional
        Cross-validate: a network for each fold, stopped by the next fold's loss.
    fold : sequence of int, optional
        Train only these, counted from 0 through all repeats; those of a repeat are joined once all
        are there.
    progress : Progress
        Where to report the images of a folder that are read.
    **changes
        Fields of `medplus.config.FinetuneRecipe` to change.

    Returns
    -------
    list of RunRecord
        One per spec and seed; of folds one per repeat, of its out-of-fold predictions, or those of
        its folds that were asked for as long as others are missing.

    Raises
    ------
    MedplusError
        If the data, a backbone or the recipe cannot be used, or training fails; it says what to do.

    Examples
    --------
    >>> import medplus
    >>> network = medplus.ExtractSpec(
    ...     "breastmnist", 28, "mobilenetv3_small_050", weights="none", fit="native")
    >>> [run] = medplus.finetune_all([network], [1], recipe="modern", epochs=1)
    >>> sorted(run.metrics)
    ['test', 'val']
    """
    fields = {**changes, "batch_size": None if batch_size == AUTO else batch_size}
    full = finetune_recipe(recipe, **fields)
    numbers = probe_recipe(seeds=seeds).seeds  # what is a seed of one is of the other
    if keep not in get_args(Keep):
        raise UsageError(f"keep '{keep}' is none of {', '.join(get_args(Keep))}")
    target = resolve_device(device)
    check_devices(target, devices)
    precision = resolve_training_precision(full.precision, target)
    full = full.model_copy(update={"precision": precision})
    for spec in specs:
        datasets.resolve(spec.dataset, spec.group_column)
        backbones.resolve(spec.backbone, spec.weights)
    records = []
    for spec in specs:
        images = datasets.load_spec(spec, data_root, progress=progress)
        check_trainable(images.path, images.splits["train"].labels, images.task)
        whole = _with_fitting_batch(spec, images, full, target) if batch_size == AUTO else full
        for seed in numbers:
            plan = FinetunePlan(
                spec, whole, Path(recipe).stem, seed, Path(runs), str(data_root), target, devices,
                compiled, resume, overwrite, keep, track, watch or Watch(),
            )  # fmt: skip
            if folds is None:
                records.append(carry_out(plan, plan.run(images), images))
            else:
                records += cross_validate(plan, images, folds, fold)
    return records


def _with_fitting_batch(
    spec: ExtractSpec, images: ImageDataset, recipe: FinetuneRecipe, device: torch.device
) -> FinetuneRecipe:
    from medplus.training.memory import largest_batch

    backbone = load_backbone(spec, images)
    dim = embedding_dim(backbone, as_tensor(images, "train", slice(0, 1))[0])
    network = build_network(backbone, dim, images.n_classes, recipe, torch.Generator())
    most = -(-recipe.batch_size // recipe.accumulate)
    part = largest_batch(network, images, backbone.preprocess, recipe, device, most)
    batch = min(recipe.batch_size, part * recipe.accumulate)
    log.info("--batch-size auto: %d", batch)
    return recipe.model_copy(update={"batch_size": batch})

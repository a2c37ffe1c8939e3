"""What a fine-tuning is to be, before anything is computed: its data, network, recipe and name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from medplus.backbones import sources
from medplus.backbones.build import Backbone
from medplus.config import FinetuneRecipe
from medplus.datasets import sources as dataset_sources
from medplus.datasets.dataset import ImageDataset
from medplus.datasets.sources import load_dataset
from medplus.naming import safe_name
from medplus.runs.ledger import run_folder
from medplus.runs.record import config_hash
from medplus.spec import ExtractSpec
from medplus.training.watch import Watch
from medplus.vocabulary import Precision

Keep = Literal["best", "all"]


@dataclass(frozen=True)
class Source:
    """Where images and backbone come from, small enough to be sent to another process."""

    spec: ExtractSpec
    data_root: str

    def load_images(self) -> ImageDataset:
        """Load the dataset."""
        return load_dataset(self.spec.dataset, self.spec.size, self.data_root)

    def load_backbone(self, images: ImageDataset) -> Backbone:
        """Load the backbone, ready to learn."""
        ref = sources.resolve(self.spec.backbone, self.spec.weights)
        return sources.load(ref, images.size, self.spec.fit, frozen=False)


def settled(spec: ExtractSpec, images: ImageDataset, backbone: Backbone) -> ExtractSpec:
    """Return the spec with every choice made."""
    return ExtractSpec(
        dataset_sources.resolve(spec.dataset).spelling,
        images.size,
        backbone.ref.spelling,
        backbone.ref.weights,
        backbone.preprocess.fit,
        backbone.feature,
    )


@dataclass(frozen=True)
class FinetunePlan:
    """One run to be.

    Attributes
    ----------
    recipe : FinetuneRecipe
        With its precision and batch size settled.
    config : dict
        All that determines the result.
    folder : Path
        Where the finished run will lie.
    """

    source: Source
    recipe: FinetuneRecipe
    precision: Precision
    seed: int
    config: dict[str, Any]
    folder: Path

    @property
    def identity(self) -> str:
        """The hash of the configuration."""
        return config_hash(self.config)

    @property
    def run_id(self) -> str:
        """The readable name that ends in the hash."""
        return self.folder.name


@dataclass(frozen=True)
class Settings:
    """How runs are made, besides what determines their results.

    Attributes
    ----------
    compiled : bool
        Train through `torch.compile`.
    keep : {"best", "all"}
        What of a finished run's weights is kept: the best network, or the last state too.
    track : str or None
        A tracker that is told of every epoch.
    """

    device: torch.device
    devices: int
    compiled: bool
    resume: bool
    overwrite: bool
    keep: Keep
    track: str | None
    bootstrap: int | None
    watch: Watch


def plan_finetune(
    source: Source,
    images: ImageDataset,
    backbone: Backbone,
    recipe: FinetuneRecipe,
    precision: Precision,
    seed: int,
    devices: int,
    recipe_name: str,
    runs: Path,
) -> FinetunePlan:
    """Return the plan of a run; `recipe_name` is the readable part of its id."""
    spec = vars(backbone.preprocess)
    config = {
        "protocol": "finetune",
        "dataset_digest": images.digest,
        "task": images.task,
        "size": images.size,
        "backbone": backbone.tag,
        "weights_sha256": backbone.weights_sha256,
        "preprocess": {k: list(v) if isinstance(v, tuple) else v for k, v in spec.items()},
        "feature": backbone.feature,
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "devices": devices,
    }
    head = "" if recipe.trainable == "all" else f"head-{recipe.norm_stats}-"
    run_id = f"{safe_name(recipe_name)}-{head}seed{seed}-ep{recipe.epochs}-{config_hash(config)}"
    folder = run_folder(runs, "finetune", images.name, images.size, backbone.name, run_id)
    return FinetunePlan(source, recipe, precision, seed, config, folder)

"""What a fine-tuning is to be, before anything is computed: its data, network, recipe and name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from medplus.backbones import sources as backbones
from medplus.backbones.build import Backbone, load
from medplus.config import FinetuneRecipe
from medplus.datasets.dataset import ImageDataset
from medplus.embeddings.provenance import provenance_of, settle
from medplus.jsonfile import digest_of
from medplus.naming import safe_name
from medplus.run.folds import Fold
from medplus.run.plan import RunPlan, plan_run
from medplus.spec import ExtractSpec
from medplus.training.folds import described, rows_of
from medplus.training.watch import Watch
from medplus.vocabulary import SPLITS, Precision

Keep = Literal["best", "all"]


@dataclass(frozen=True)
class FinetunePlan:
    """One training to be, small enough to be sent to the processes that do it.

    Attributes
    ----------
    asked : ExtractSpec
        Data and backbone as the user named them, which is how they are loaded.
    recipe : FinetuneRecipe
        With its precision and batch size settled.
    recipe_name : str
        The readable part of the run's id.
    seed : int
        Fixes the head's initial values, the order of the images, dropout and augmentation.
    runs, data_root : Path, str
        Root of the runs, and where datasets lie.
    devices : int
        As `finetune_all` has it, like all that follows.
    fold : Fold or None
        The fold whose images are learned from.
    """

    asked: ExtractSpec
    recipe: FinetuneRecipe
    recipe_name: str
    seed: int
    runs: Path
    data_root: str
    device: torch.device
    devices: int
    compiled: bool
    resume: bool
    overwrite: bool
    keep: Keep
    track: str | None
    watch: Watch
    fold: Fold | None = None

    @property
    def precision(self) -> Precision:
        """Of the training."""
        return cast("Precision", self.recipe.precision)

    def run(self, images: ImageDataset, joined: Fold | None = None) -> RunPlan:
        """Return the plan of the run on these images, or of all folds of a repeat joined.

        Parameters
        ----------
        images : ImageDataset
            All of them, whatever the fold.
        joined : Fold, optional
            Any fold of the repeat.
        """
        runs, facts = self.runs, None
        if self.fold is not None:
            rows = rows_of(images, self.fold)
            images, runs = described(images, rows), self.fold.root(runs)
            digest = digest_of({split: rows[split].tolist() for split in SPLITS})
            facts = {**self.fold.facts, "rows": digest}
        elif joined is not None:
            runs = joined.folds.root(runs, joined.repeat)
            facts = joined.folds.facts(joined.repeat)
        backbone = load_backbone(self.asked, images)
        spec = settle(self.asked, images, backbone, self.precision, dtype=None)
        return plan_finetune(
            spec, images, backbone, self.recipe, self.seed, self.devices, self.recipe_name, runs,
            facts,
        )  # fmt: skip


def load_backbone(asked: ExtractSpec, images: ImageDataset) -> Backbone:
    """Load the backbone that a spec names, ready to learn."""
    ref = backbones.resolve(asked.backbone, asked.weights)
    return load(ref, images.size, asked.fit, frozen=False)


def plan_finetune(
    spec: ExtractSpec,
    images: ImageDataset,
    backbone: Backbone,
    recipe: FinetuneRecipe,
    seed: int,
    devices: int,
    recipe_name: str,
    runs: Path,
    folds: Mapping[str, Any] | None = None,
) -> RunPlan:
    """Return the plan of a run.

    Parameters
    ----------
    spec, recipe : ExtractSpec, FinetuneRecipe
        Settled.
    recipe_name : str
        The readable part of the run's id.
    folds : mapping, optional
        What identifies the rows of a fold, or all folds whose runs are joined.
    """
    made_of = provenance_of(spec, images, backbone)
    pixels = vars(backbone.preprocess).items()
    config = {
        "dataset_digest": images.digest,
        "card_digest": images.card.digest,
        "warnings": images.card.warnings,
        "baseline_acc": images.card.baseline_acc,
        "task": images.task,
        "size": images.size,
        "backbone": backbone.tag,
        "weights_sha256": backbone.weights_sha256,
        "preprocess": {k: list(v) if isinstance(v, tuple) else v for k, v in pixels},
        "feature": backbone.feature,
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "devices": devices,
        **({} if folds is None else {"folds": dict(folds)}),
    }
    fields = {"seed": seed, "lr": recipe.lr, "weight_decay": recipe.weight_decay}
    what = "" if recipe.trainable == "all" else f"head-{recipe.norm_stats}-"
    what = f"lora{recipe.lora}-" if recipe.lora else what
    name = f"{safe_name(recipe_name)}-{what}seed{seed}-ep{recipe.epochs}"
    return plan_run(made_of, "finetune", name, config, fields, runs)

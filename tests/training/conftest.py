"""Fixtures for training: a tiny network, images that can be learned, and trainers made afresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medplus.backbones.build import Backbone
from medplus.backbones.finetuned import NetworkDescription
from medplus.backbones.modules import PreLogits
from medplus.backbones.sources import BackboneRef
from medplus.config import FinetuneRecipe
from medplus.datasets.dataset import ImageDataset, ImageSplit
from medplus.preprocess import PreprocessSpec
from medplus.training import folder as folder_module
from medplus.training.folder import RunFolder
from medplus.training.launch import make_fabric
from medplus.training.network import build_network
from medplus.training.step import Stepper
from medplus.training.trainer import Trainer
from medplus.training.watch import Watch
from medplus.vocabulary import MULTI_LABEL, SPLITS

_MEAN, _STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
_DIM = 12


class TinyNet(nn.Module):
    """Two convolutions, as timm would have them: with layers that it can tell apart.

    Its only parameter of more than one dimension that wants no weight decay is `scale`.
    """

    def __init__(self, norm: bool, dropout: float) -> None:
        super().__init__()
        self.layer0 = nn.Conv2d(3, 8, 3, padding=1, bias=not norm)
        self.norm0 = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.layer1 = nn.Conv2d(8, _DIM, 3, padding=1, bias=not norm)
        self.norm1 = nn.BatchNorm2d(_DIM) if norm else nn.Identity()
        self.scale = nn.Parameter(torch.ones(_DIM, 1, 1))
        self.drop = nn.Dropout(dropout)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(self.norm0(self.layer0(x)).relu(), 2)
        return self.norm1(self.layer1(x)).relu() * self.scale

    def forward_head(self, x: torch.Tensor, pre_logits: bool) -> torch.Tensor:
        assert pre_logits
        return self.drop(x.mean((2, 3)))

    def no_weight_decay(self) -> set[str]:
        return {"scale"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        blocks = [(r"^(?:layer|norm)(\d+)", None), (r"^scale", (99999,))]  # timm's word for: also
        return {"stem": r"^(?:layer|norm)0", "blocks": blocks}


@pytest.fixture(scope="session")
def tiny_backbone() -> Callable[..., Backbone]:
    """Return a function that makes a backbone of two convolutions, always the same, trainable.

    ``tiny_backbone(norm=True, dropout=0.0, canvas=None)``: images are taken as they are, or padded
    to a canvas.
    """

    def make(norm: bool = True, dropout: float = 0.0, canvas: int | None = None) -> Backbone:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = PreLogits(TinyNet(norm, dropout)).eval()
        spec = PreprocessSpec(_MEAN, _STD, "pad" if canvas else "native", canvas)
        return Backbone(
            BackboneRef("timm", "tiny", "tiny", "tiny.tag", "none", "none"),
            spec,
            "0" * 64,
            "prelogits",
            module=module,
        )

    return make


@pytest.fixture(scope="session")
def learnable() -> Callable[..., ImageDataset]:
    """Return a function that makes noisy images of 8 px; their brightest part is their class.

    ``learnable("multi-class", n=(50, 24, 20), channels=1)``; of a multi-label task, several parts
    are bright. With ``shuffled=True`` the labels of val have nothing to do with its images.
    """

    def make(
        task: Any = "multi-class",
        n: Sequence[int] = (50, 24, 20),
        channels: int = 1,
        shuffled: bool = False,
        name: str = "toy",
    ) -> ImageDataset:
        rng = np.random.default_rng(0)
        n_classes = 2 if task == "binary-class" else 3
        splits: dict[Any, ImageSplit] = {}
        for split, count in zip(SPLITS, n, strict=True):
            if task == MULTI_LABEL:
                flags = rng.integers(0, 2, (count, n_classes))
                labels = flags
            else:
                labels = rng.integers(0, n_classes, (count, 1))
                flags = np.eye(n_classes, dtype=int)[labels[:, 0]]
            images = rng.integers(0, 120, (count, 8, 8, channels))
            for part in range(n_classes):
                images[:, 2 * part : 2 * part + 3] += 120 * flags[:, part, None, None, None]
            if shuffled and split == "val":
                labels = rng.permutation(labels)
            pixels = images.astype(np.uint8)
            splits[split] = ImageSplit(
                pixels[..., 0] if channels == 1 else pixels, labels.astype(np.uint8)
            )
        classes = tuple(f"class {i}" for i in range(n_classes))
        return ImageDataset(
            name, 8, task, classes, "custom", "CC0", "d" * 64, "/data/toy.npz", splits
        )

    return make


@pytest.fixture(scope="session")
def fabric() -> Any:
    """One process on the CPU in fp32."""
    fabric = make_fabric(torch.device("cpu"), 1, "fp32")
    fabric.launch()
    return fabric


@pytest.fixture(scope="session")
def new_folder_of() -> Callable[..., RunFolder]:
    """Return a function that opens a run's folder: ``new_folder_of(path, images, backbone)``."""

    def make(
        path: Path, images: ImageDataset, backbone: Backbone, identity: str = "run"
    ) -> RunFolder:
        description = NetworkDescription(
            run_id="paper-seed0-0123abcd",
            backbone=backbone.name,
            tag=backbone.tag,
            weights_sha256=backbone.weights_sha256,
            preprocess=vars(backbone.preprocess),
            feature=backbone.feature,
            dim=_DIM,
            dataset=images.name,
            size=images.size,
            task=images.task,
            classes=images.classes,
            epoch=0,
            val_loss=0.0,
            precision="fp32",
        )
        return RunFolder(path, description, identity)

    return make


@pytest.fixture(scope="session")
def new_trainer(
    fabric: Any,
    tiny_backbone: Callable[..., Backbone],
    new_folder_of: Callable[..., RunFolder],
) -> Callable[..., Trainer]:
    """Return a function that makes a trainer, with all that it changes made afresh.

    ``new_trainer(recipe, images, path, seed=0, watch=…, tracker=…, backbone=…)``; instead of a
    backbone, the keywords of `tiny_backbone`.
    """

    def make(
        recipe: FinetuneRecipe,
        images: ImageDataset,
        path: Path,
        seed: int = 0,
        watch: Any = None,
        tracker: Any = None,
        backbone: Backbone | None = None,
        **tiny: Any,
    ) -> Trainer:
        backbone = backbone or tiny_backbone(**tiny)
        order = torch.Generator().manual_seed(seed)
        network = build_network(backbone, _DIM, images.n_classes, recipe, order)
        folder = new_folder_of(path, images, backbone)
        step = Stepper(fabric, network, images, backbone.preprocess, recipe, seed)
        return Trainer(step, images, order, folder, watch or Watch(), tracker)

    return make


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing of learning curves, which takes longer than a tiny training."""
    monkeypatch.setattr(folder_module, "draw_learning_curve", lambda path, rows, title: None)

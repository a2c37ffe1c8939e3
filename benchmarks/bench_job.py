"""A whole job, from images to scores, against the reference's way: every epoch through the network.

BreastMNIST's shape: 546, 78 and 156 images of 28 px; kNN and three probes of 100 epochs on
resnet18. The reference's way costs the same forward for every image of every epoch, so one epoch of
it is timed and scaled to the 300 of three seeds; its kNN embeds all images once per seed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.measure import Result, compare, seconds
from benchmarks.work import PilImages, write_images
from medplus.backbones.build import load_backbone
from medplus.device import resolve_device
from medplus.embeddings.extract import extract
from medplus.heads.knn import knn
from medplus.heads.probe import probe

N = (546, 78, 156)
EPOCHS, SEEDS, BATCH = 100, 3, 64
ROUNDS, TIMED_EPOCHS = 2, 1


def run() -> list[Result]:
    jobs, extractions, references = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        npz = write_images(Path(folder) / "breast.npz", N)
        for number in range(ROUNDS):
            root = Path(folder) / str(number)
            start = seconds(lambda: extract(str(npz), weights="none", store=root / "s"))  # noqa: B023
            extractions.append(start)
            jobs.append(start + seconds(lambda: _heads(root)))  # noqa: B023
            references.append(_reference(npz))
    what = f"{sum(N)} images, kNN and {SEEDS} probes of {EPOCHS} epochs, resnet18"
    return [
        compare(f"the reference's way ÷ whole job, {what}", references, jobs, "≥ 700"),
        compare(f"whole job ÷ its extraction alone, {what}", jobs, extractions, ""),
    ]


def _heads(root: Path) -> None:
    [store] = (root / "s").glob("*/*/*.zarr")
    knn(store, k=11, runs=root / "runs")
    probe(store, list(range(SEEDS)), epochs=EPOCHS, patience=EPOCHS, runs=root / "runs")


def _reference(npz: Path) -> float:
    """Return the time of all epochs of all seeds through the network, from a few that are timed."""
    device = resolve_device()
    backbone = load_backbone("resnet18", "none")
    module = backbone.module.to(device)
    loaders = {
        split: DataLoader(PilImages(npz, backbone.preprocess, split), BATCH, shuffle=True)
        for split in ("train", "val", "test")
    }
    head = nn.Linear(512, 2).to(device)
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-4)

    def epoch() -> None:
        for split in ("train", "val"):
            for images, labels in loaders[split]:
                with torch.no_grad():
                    features = module(images.to(device))
                loss = nn.functional.cross_entropy(head(features), labels[:, 0].to(device))
                if split == "train":
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
                loss.item()

    taken = seconds(lambda: [epoch() for _ in range(TIMED_EPOCHS)])
    once = taken / TIMED_EPOCHS
    # kNN embeds all three splits once for every seed, which costs about an epoch.
    return once * (EPOCHS + 1) * SEEDS

"""What several benchmarks work on, and the plain ways that they are set against."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


def write_images(
    path: Path, n: tuple[int, int, int], size: int = 28, classes: int = 2, compressed: bool = False
) -> Path:
    """Write random grey images in MedMNIST's layout; train, val and test of `n` images each."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in zip(("train", "val", "test"), n, strict=True):
        noise = rng.integers(0, 256, (count, size, size), dtype=np.uint8)
        # Half noise, half flat: about as compressible as the collections are.
        noise[:, : size // 2] = noise[:, :1, :1]
        arrays[f"{split}_images"] = noise
        arrays[f"{split}_labels"] = rng.integers(0, classes, (count, 1), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


class PilImages(Dataset):
    """Images as most scripts read them: PIL, then torchvision's transforms, one by one."""

    def __init__(self, npz: Path, spec: Any, split: str = "train") -> None:
        from torchvision import transforms

        with np.load(npz) as arrays:
            self.images, self.labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        margin = (spec.canvas - self.images.shape[1]) // 2
        self.transform = transforms.Compose([
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
            transforms.Pad(margin),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        from PIL import Image

        image = Image.fromarray(self.images[i]).convert("RGB")
        return self.transform(image), torch.as_tensor(self.labels[i].astype(np.int64))


def embed_plainly(
    module: torch.nn.Module, npz: Path, spec: Any, device: torch.device, batch: int
) -> Callable[[], None]:
    """Return the plain way to embed: fp32, DataLoader, PIL, results in a list."""
    module = module.to(device).eval()
    workers = 4 if device.type == "cuda" else 0

    def embed() -> None:
        for split in ("train", "val", "test"):
            loader = DataLoader(PilImages(npz, spec, split), batch, num_workers=workers)
            features = []
            with torch.no_grad():
                for images, _ in loader:
                    features.append(module(images.to(device)).cpu())
            torch.cat(features)

    return embed

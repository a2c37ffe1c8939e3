"""`medplus.extract` against the bare forward loop, and native precision against plain fp32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Result, compare, seconds
from medplus.backbones.build import load_backbone
from medplus.backbones.inference import Embedder
from medplus.device import compute_precision, resolve_device, resolve_precision
from medplus.embeddings.extract import extract_all

N_IMAGES = 1536
BATCH = 32
ROUNDS = 3


def run() -> list[Result]:
    device = resolve_device()
    batch = 512 if device.type == "cuda" else BATCH
    native = resolve_precision("auto", device)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        npz = _write_images(Path(folder))
        for precision in dict.fromkeys(("fp32", native)):
            bare = _bare_forward(precision, device, batch)
            ours, limit = [], []
            _extract(npz, Path(folder) / f"warm-{precision}", precision, batch)
            bare()
            for number in range(ROUNDS):
                root = Path(folder) / f"{precision}-{number}"
                ours.append(_extract(npz, root, precision, batch))
                limit.append(N_IMAGES / seconds(bare))
            name = f"extract ÷ bare forward loop, resnet18 {precision}, images per second"
            results.append(compare(name, ours, limit, "≥ 0.95", "img/s"))
        plain = _plain_forward(device, batch)
        plain()
        ours, theirs = [], []
        for number in range(ROUNDS):
            ours.append(_extract(npz, Path(folder) / f"auto-{number}", "auto", batch))
            theirs.append(N_IMAGES / seconds(plain))
        name = f"extract --precision auto ({native} here) ÷ plain fp32 channels-first forward"
        goal = "≥ 3" if native != "fp32" else "≥ 3 only with native bf16"
        results.append(compare(name, ours, theirs, goal, "img/s"))
    return results


def _write_images(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "random.npz"
    arrays = {}
    for split, n in (("train", N_IMAGES - 256), ("val", 128), ("test", 128)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (n, 1), dtype=np.uint8)
    np.savez(path, **arrays)
    return path


def _extract(npz: Path, root: Path, precision: str, batch: int) -> float:
    [done] = extract_all(
        [str(npz)],
        [None],
        ["resnet18"],
        weights="none",
        precision=precision,
        batch_size=batch,
        store=root,
    )
    assert done.images_per_second is not None
    return done.images_per_second


def _bare_forward(precision, device, batch):
    """Run the very module that extract runs on one resident batch: nothing can be faster."""
    embedder = Embedder(load_backbone("resnet18", "none"), device, precision, batch)
    x = embedder._preprocess(torch.zeros(batch, 28, 28, dtype=torch.uint8, device=device))

    def forward() -> None:
        with torch.inference_mode(), compute_precision(precision, device):
            for _ in range(N_IMAGES // batch):
                embedder._module(x)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return forward


def _plain_forward(device, batch):
    """Run what most scripts run: fp32, channels first, batch norms where they stand."""
    module = load_backbone("resnet18", "none").module.to(device)
    x = torch.randn(batch, 3, 224, 224, device=device)

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(N_IMAGES // batch):
                module(x)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return forward

"""`medplus.extract` against the bare forward loop, and native precision against plain fp32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Result, compare, seconds
from benchmarks.work import embed_plainly, write_images
from medplus.backbones.build import load_backbone
from medplus.backbones.inference import Embedder
from medplus.device import compute_precision, resolve_device, resolve_precision
from medplus.embeddings.extract import extract_all

N_IMAGES = 1536
BATCH = 32
ROUNDS = 3
PLAIN = {"resnet18": 256, "efficientnet_b4": 64, "vit_base_patch16_224": 32}
"""Images per backbone on a CPU; sixteen times as many on a GPU."""


def run() -> list[Result]:
    device = resolve_device()
    batch = 512 if device.type == "cuda" else BATCH
    native = resolve_precision("auto", device)
    precisions = list(dict.fromkeys(("fp32", native)))
    forwards = {p: _bare_forward(p, device, batch) for p in precisions}
    forwards["plain"] = _plain_forward(device, batch)
    ours: dict[str, list[float]] = {p: [] for p in precisions}
    limits: dict[str, list[float]] = {name: [] for name in forwards}
    for forward in forwards.values():
        forward(batch)
    with tempfile.TemporaryDirectory() as folder:
        npz = _write_images(Path(folder))
        for number in range(ROUNDS):
            for precision in precisions:
                # The limit is taken half before and half after, so that a drift cancels.
                half = seconds(lambda: forwards[precision](N_IMAGES // 2))  # noqa: B023
                root = Path(folder) / f"{precision}-{number}"
                ours[precision].append(_extract(npz, root, precision, batch))
                half += seconds(lambda: forwards[precision](N_IMAGES // 2))  # noqa: B023
                limits[precision].append(N_IMAGES / half)
            limits["plain"].append(N_IMAGES / seconds(lambda: forwards["plain"](N_IMAGES)))
    results = [
        compare(
            f"extract ÷ bare forward loop, resnet18 {p}, images per second",
            ours[p], limits[p], "≥ 0.97", "img/s",
        )
        for p in precisions
    ]  # fmt: skip
    results += _against_plain_loop(device, batch, native)
    name = f"extract --precision auto ({native} here) ÷ plain fp32 channels-first forward"
    goal = "≥ 3" if native != "fp32" else "≥ 3 only with native bf16"
    results.append(compare(name, ours[native], limits["plain"], goal, "img/s"))
    return results


def _against_plain_loop(device, batch, native) -> list[Result]:
    """Compare with what the reference does: PIL, DataLoader, fp32, results in a list."""
    results = []
    for name, n in PLAIN.items():
        images = n * (16 if device.type == "cuda" else 1)
        ours, plain = [], []
        with tempfile.TemporaryDirectory() as folder:
            npz = write_images(Path(folder) / "noise.npz", (images - 16, 8, 8))
            backbone = load_backbone(name, "none")
            embed = embed_plainly(backbone.module, npz, backbone.preprocess, device, 64)
            for number in range(ROUNDS):
                plain.append(images / seconds(embed))
                ours.append(_extract(npz, Path(folder) / str(number), "auto", batch, name))
        goal = "≥ 3.5" if name == "resnet18" else ""
        what = f"extract --precision auto ({native} here) ÷ plain fp32 loop with DataLoader, {name}"
        results.append(compare(what, ours, plain, goal, "img/s"))
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


def _extract(
    npz: Path, root: Path, precision: str, batch: int, backbone: str = "resnet18"
) -> float:
    [done] = extract_all(
        [str(npz)],
        [None],
        [backbone],
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
    images = torch.randint(0, 256, (batch, 28, 28), dtype=torch.uint8, device=device)
    x = embedder._preprocess(images)  # noise, as extract gets: zeros are a little faster

    def forward(n_images: int) -> None:
        with torch.inference_mode(), compute_precision(precision, device):
            for _ in range(n_images // batch):
                embedder._module(x)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return forward


def _plain_forward(device, batch):
    """Run what most scripts run: fp32, channels first, batch norms where they stand."""
    module = load_backbone("resnet18", "none").module.to(device)
    x = torch.randn(batch, 3, 224, 224, device=device)

    def forward(n_images: int) -> None:
        with torch.inference_mode():
            for _ in range(n_images // batch):
                module(x)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return forward

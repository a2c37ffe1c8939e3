"""`medplus.extract` against the bare forward loop, and native precision against plain fp32."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.measure import Result, compare, seconds
from benchmarks.work import embed_plainly, write_images
from medplus.backbones.build import load_backbone
from medplus.backbones.catalog import PAPER
from medplus.backbones.inference import Embedder
from medplus.device import compute_precision, resolve_device, resolve_precision
from medplus.embeddings.extract import extract_all
from medplus.spec import make_spec

ROUNDS = 3
BATCHES = {"resnet18": 32, "efficientnet_b4": 4, "vit_base_patch16_224": 3}
"""Backbones and their batches of 32 on a CPU; on a GPU all of the paper's, 32 batches of 512."""


def run() -> list[Result]:
    device = resolve_device()
    on_gpu = device.type == "cuda"
    batch = 512 if on_gpu else 32
    precisions = list(dict.fromkeys(("fp32", resolve_precision("auto", device))))
    results = []
    for name, n_batches in (dict.fromkeys(PAPER, 32) if on_gpu else BATCHES).items():
        for precision in precisions:
            results += _against_bare_forward(name, precision, n_batches, batch, device)
        results += _against_plain_loop(name, max(3, n_batches // 4), batch, device)
    return results


def _against_bare_forward(name, precision, n_batches, batch, device) -> list[Result]:
    """Compare with the very module that extract runs, on one resident batch."""
    bare = _bare_forward(name, precision, device, batch)
    plain = _plain_forward(name, device, batch)
    ours, limits, plains = [], [], []
    half, few = n_batches // 2, max(1, n_batches // 4)
    with tempfile.TemporaryDirectory() as folder:
        npz = _write(Path(folder), n_batches, batch)
        for forward in (bare, plain):
            forward(1)
        for number in range(ROUNDS):
            # The limit is taken half before and half after, so that a drift cancels.
            taken = seconds(lambda: bare(half))
            ours.append(_extract(npz, Path(folder) / str(number), precision, batch, name))
            taken += seconds(lambda: bare(n_batches - half))
            limits.append(n_batches * batch / taken)
            plains.append(few * batch / seconds(lambda: plain(few)))
    goal = "≥ 0.90" if device.type == "cuda" else "≥ 0.97"
    what = f"extract {precision}"
    return [
        compare(f"{what} ÷ bare forward of one batch, {name}", ours, limits, goal, "img/s"),
        compare(f"{what} ÷ plain fp32 channels-first forward, {name}", ours, plains, "", "img/s"),
    ]


def _against_plain_loop(name, n_batches, batch, device) -> list[Result]:
    """Compare with what the reference does: PIL, DataLoader, fp32, results in a list."""
    native = resolve_precision("auto", device)
    images = n_batches * batch
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        npz = _write(Path(folder), n_batches, batch)
        backbone = load_backbone(name, "none")
        embed = embed_plainly(backbone.module, npz, backbone.preprocess, device, 64)
        for number in range(ROUNDS):
            plain.append(images / seconds(embed))
            ours.append(_extract(npz, Path(folder) / str(number), "auto", batch, name))
    goal = "≥ 3.5" if name == "resnet18" else ""
    what = f"extract --precision auto ({native} here) ÷ plain fp32 loop with DataLoader, {name}"
    return [compare(what, ours, plain, goal, "img/s")]


def _write(folder: Path, n_batches: int, batch: int) -> Path:
    return write_images(folder / "noise.npz", ((n_batches - 2) * batch, batch, batch))


def _extract(npz: Path, root: Path, precision: str, batch: int, backbone: str) -> float:
    spec = make_spec(str(npz), None, backbone, weights="none", precision=precision)
    [done] = extract_all([spec], batch_size=batch, store=root)
    assert done.images_per_second is not None
    return done.images_per_second


def _bare_forward(name, precision, device, batch):
    embedder = Embedder(load_backbone(name, "none"), device, precision, batch)
    images = torch.randint(0, 256, (batch, 28, 28), dtype=torch.uint8, device=device)
    x = embedder._preprocess(images)  # noise, as extract gets: zeros are a little faster

    def forward(n_batches: int) -> None:
        with torch.inference_mode(), compute_precision(precision, device):
            for _ in range(n_batches):
                embedder._module(x)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return forward


def _plain_forward(name, device, batch):
    """Run what most scripts run: fp32, channels first, batch norms where they stand."""
    backbone = load_backbone(name, "none")
    module, side = backbone.module.to(device), backbone.preprocess.canvas
    x = torch.randn(batch, 3, side, side, device=device)

    def forward(n_batches: int) -> None:
        with torch.inference_mode():
            for _ in range(n_batches):
                module(x)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return forward

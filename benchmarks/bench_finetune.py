"""`medplus.finetune` against the bare step loop, and against the loop that most scripts run."""

from __future__ import annotations

import csv
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.measure import Result, compare, seconds
from benchmarks.work import PilImages, write_images
from medplus.backbones.build import load_backbone
from medplus.config import finetune_recipe
from medplus.device import compute_precision, resolve_device, resolve_training_precision
from medplus.preprocess import preprocess
from medplus.training import finetune
from medplus.training.network import keeps_channels_last

ROUNDS = 2
CLASSES = 2


def run() -> list[Result]:
    device = resolve_device()
    results = []
    on_gpu = device.type == "cuda"
    for backbone in ("resnet18", "vit_base_patch16_224") if on_gpu else ("resnet18",):
        for compiled in (False, True) if on_gpu else (False,):
            results += _compare(backbone, device, compiled)
    return results


def _compare(backbone: str, device: torch.device, compiled: bool) -> list[Result]:
    batch, steps = (64, 60) if device.type == "cuda" else (32, 8)
    n = batch * steps
    native = resolve_training_precision("auto", device)
    ours: dict[str, list[float]] = {"paper": [], "modern": []}
    bare: dict[str, list[float]] = {"paper": [], "modern": []}
    plain = []
    peak = 0
    with tempfile.TemporaryDirectory() as folder:
        npz = write_images(Path(folder) / "random.npz", (n, 8, 8), classes=CLASSES)
        loops = {
            "paper": _bare_steps(backbone, device, batch, "fp32", "paper"),
            "modern": _bare_steps(backbone, device, batch, native, "modern"),
        }
        plain_loop = _plain_loop(backbone, device, batch, npz)
        for loop in loops.values():
            loop(1)
        for number in range(ROUNDS):
            for recipe, loop in loops.items():
                # The limit is taken half before and half after, so that a drift cancels.
                half = seconds(lambda: loop(steps // 2))  # noqa: B023
                runs = Path(folder) / f"{recipe}-{number}"
                rate, peak = _finetune(backbone, npz, runs, recipe, batch, compiled)
                ours[recipe].append(rate)
                half += seconds(lambda: loop(steps // 2))  # noqa: B023
                bare[recipe].append(batch * (steps // 2) * 2 / half)
            plain.append(n / seconds(plain_loop))
    how = f"{backbone}{', compiled' if compiled else ''}"
    memory = f", peak {peak / 2**30:.1f} GiB" if peak else ""
    goal = "≥ 3" if native != "fp32" else "≥ 3 only with native bf16"
    return [
        compare(f"finetune paper ÷ bare fp32 steps in the quicker memory format, {how}",
                ours["paper"], bare["paper"],
                "≥ 0.97", "img/s"),
        compare(f"finetune modern ({native} here) ÷ bare {native} steps, {how}{memory}",
                ours["modern"], bare["modern"], "≥ 0.97", "img/s"),
        compare(f"finetune modern ({native} here) ÷ plain fp32 loop with DataLoader, {how}",
                ours["modern"], plain, goal, "img/s"),
    ]  # fmt: skip


def _finetune(
    backbone: str, npz: Path, runs: Path, recipe: str, batch: int, compiled: bool
) -> tuple[float, int]:
    """Train and return images per second of an epoch, and the peak memory on a GPU.

    The second epoch is taken: the first warms up (and compiles), as the bare steps have done.
    """
    [record] = finetune(
        str(npz), None, backbone, weights="none", recipe=recipe, epochs=2, batch_size=batch,
        compiled=compiled, runs=runs, deterministic=False,
    )  # fmt: skip
    with (Path(record.path) / "history.csv").open() as history:
        *_, last = csv.DictReader(history)
    return float(last["images_per_second"]), record.cost.get("peak_device_memory_bytes", 0)


def _network(backbone: str, device: torch.device) -> nn.Module:
    built = load_backbone(backbone, "none", frozen=False)
    dim = 512 if backbone == "resnet18" else 768
    return nn.Sequential(built.module, nn.Linear(dim, CLASSES)).train().to(device)


def _bare_steps(backbone, device, batch, precision, recipe):
    """Make steps on one resident batch: nothing can be faster."""
    network = _network(backbone, device)
    images = torch.randint(0, 256, (batch, 28, 28), dtype=torch.uint8, device=device)
    x = preprocess(images, load_backbone(backbone, "none").preprocess)
    if keeps_channels_last(network, True, precision, device):
        network = network.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    y = torch.arange(batch, device=device) % CLASSES
    fused = finetune_recipe(recipe).fused
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=fused or None)
    half = precision != "fp32"

    def steps(n: int) -> None:
        # True fp32 throughout, autocast for the forward alone, as in training.
        with nullcontext() if half else compute_precision("fp32", device):
            for _ in range(n):
                with compute_precision(precision, device) if half else nullcontext():
                    logits = network(x)
                F.cross_entropy(logits.float(), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return steps


def _plain_loop(backbone, device, batch, npz):
    """Train as the paper's code does: fp32, DataLoader, outputs copied to the host every batch."""
    network = _network(backbone, device)
    loader = DataLoader(
        PilImages(npz, load_backbone(backbone, "none").preprocess), batch, shuffle=True,
        num_workers=4 if device.type == "cuda" else 0,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)

    def epoch() -> None:
        for images, labels in loader:
            logits = network(images.to(device))
            loss = F.cross_entropy(logits, labels[:, 0].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            logits.detach().softmax(1).cpu().numpy()

    return epoch

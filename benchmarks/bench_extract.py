"""`medplus.extract` against the bare forward: the best eager one, a compiled one, a plain loop."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.measure import Result, compare, seconds
from benchmarks.work import embed_plainly, write_images
from medplus.backbones.build import load_backbone
from medplus.backbones.catalog import PAPER
from medplus.backbones.inference import Embedder, compile_network
from medplus.device import compute_precision, resolve_device, resolve_precision
from medplus.embeddings import extract as extraction
from medplus.embeddings import pipeline
from medplus.embeddings.tuning import BatchSearch
from medplus.spec import make_spec

ROUNDS = 3
BACKBONES = ("resnet18", "vgg16", "efficientnet_b4", "vit_base_patch16_224")
"""On a CPU, at both sizes; on a GPU all of the paper's, at 28 px."""
PLAIN_LOOPS = {"resnet18": 256, "efficientnet_b4": 96, "vit_base_patch16_224": 96}


def run() -> list[Result]:
    device = resolve_device()
    on_gpu = device.type == "cuda"
    results = []
    with _cache_of_its_own():
        for name in PAPER if on_gpu else BACKBONES:
            for size in (28,) if on_gpu else (28, 224):
                results += _against_best_eager(name, size, 4096 if on_gpu else 128, device)
        for size in (28, 224):
            results += _against_compiled("resnet18", size, 8192 if on_gpu else 512, device)
        for name, n in (dict.fromkeys(PAPER, 4096) if on_gpu else PLAIN_LOOPS).items():
            results += _against_plain_loop(name, n, device)
    return results


@contextmanager
def _cache_of_its_own() -> Iterator[None]:
    """Let nothing be known of earlier extractions, and leave what the user's have measured."""
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(os.environ, {"MEDPLUS_CACHE": folder}),
    ):
        yield


def _against_best_eager(name, size, n, device) -> list[Result]:
    """Compare with the module that extract runs, on the whole canvas, at its best batch size."""
    bare = _bare_forward(name, size, device)
    sizes, go_on = ((64, 128, 256, 512, 1024), 1.05) if device.type == "cuda" else (
        (8, 16, 32, 64), 0.95)  # fmt: skip
    search = BatchSearch(sizes, go_on)
    while search.rate is None:
        search.took(seconds(lambda: bare(search.size, search.size)))
    ours, eager = [], []
    with tempfile.TemporaryDirectory() as folder:
        # The first extraction finds its batch size, and those that are timed know it.
        _extract(_write(folder, max(n, 448), size), Path(folder) / "first", name, compiled=False)
        npz = _write(folder, n, size)
        for number in range(ROUNDS):
            # The limit is taken half before and half after, so that a drift cancels.
            before = _timed(lambda: bare(n // 2, search.size))
            ours.append(_extract(npz, Path(folder) / str(number), name, compiled=False))
            eager.append(_sum(before, _timed(lambda: bare(n // 2, search.size))))
    what = f"extract ÷ best eager forward (batch {search.size}), {name}, {size} px"
    return _compared(what, ours, eager, n, "≥ 0.95")


def _against_compiled(name, size, n, device) -> list[Result]:
    """Compare with the frozen module on the whole canvas; neither's compilation counts."""
    ours, limits = [], []
    with tempfile.TemporaryDirectory() as folder:
        npz = _write(folder, n, size)
        _extract(npz, Path(folder) / "first", name, compiled=True)
        [measured] = list(Path(folder).rglob("*.zarr"))
        batch = int(extraction.open_store(measured).info.cost["batch_size"])
        bare = _bare_forward(name, size, device, is_compiled=True)
        for number in range(ROUNDS):
            ours.append(n / _extract(npz, Path(folder) / str(number), name, compiled=True)[0])
            bare(batch, batch)  # our own compilation has made it forget its own
            limits.append(n / seconds(lambda: bare(n, batch)))
    what = f"extract --compile ÷ compiled and frozen forward (batch {batch}), {name}, {size} px"
    return [compare(what, ours, limits, "≥ 0.90", "img/s")]


def _against_plain_loop(name, n, device) -> list[Result]:
    """Compare with what the reference does: PIL, DataLoader, fp32, results in a list."""
    native = resolve_precision("auto", device)
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        npz = _write(folder, n, 28)
        backbone = load_backbone(name, "none")
        embed = embed_plainly(backbone.module, npz, backbone.preprocess, device, 64)
        for number in range(ROUNDS):
            plain.append(n / seconds(embed))
            ours.append(n / _extract(npz, Path(folder) / str(number), name)[0])
    goal = "≥ 3.5" if name == "resnet18" else ""
    what = f"extract --precision auto ({native} here) ÷ plain fp32 loop with DataLoader, {name}"
    return [compare(what, ours, plain, goal, "img/s")]


def _compared(what, ours, limits, n, goal) -> list[Result]:
    """Return the ratios of rates, by the clock and by the processor's."""
    by_clock, by_cpu = (
        compare(name, [n / one[i] for one in ours], [n / one[i] for one in limits], goal_, unit)
        for i, (name, goal_, unit) in enumerate(
            ((what, goal, "img/s"), (f"{what}: by CPU seconds", "", "img/CPU s"))
        )
    )
    return [by_clock, by_cpu] if resolve_device().type == "cpu" else [by_clock]


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds, and CPU seconds."""
    cpu = time.process_time()
    return seconds(work), time.process_time() - cpu


def _sum(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    return first[0] + second[0], first[1] + second[1]


def _write(folder: str, n: int, size: int) -> Path:
    return write_images(Path(folder) / f"noise{n}.npz", (n - 64, 32, 32), size)


def _extract(npz: Path, root: Path, backbone: str, compiled: bool | None = None):
    """Return the seconds and CPU seconds of filling a store; what compiling took is no part."""
    spec = make_spec(str(npz), None, backbone, weights="none")
    found = []
    fill = pipeline.fill_store

    def timed(*arguments):
        start, cpu = time.perf_counter(), time.process_time()
        filled = fill(*arguments)
        took, used = time.perf_counter() - start, time.process_time() - cpu
        left = 1 - filled.compile_seconds / took
        found.append((took * left, used * left))
        return filled

    with patch.object(pipeline, "fill_store", timed):
        extraction.extract_all([spec], compiled=compiled, store=root)
    return found[0]


def _bare_forward(name, size, device, is_compiled=False):
    """Return what runs a resident batch through the module, as often as n images need."""
    precision = resolve_precision("auto", device)
    embedder = Embedder(load_backbone(name, "none", size), device, precision, 1024, window=False)
    module = compile_network(embedder._module, frozen=True) if is_compiled else embedder._module
    pixels: dict[int, torch.Tensor] = {}

    def forward(n: int, batch: int) -> None:
        if batch not in pixels:  # noise, as extract gets: zeros are a little faster
            pixels.clear()
            noise = torch.randint(0, 256, (batch, size, size), dtype=torch.uint8, device=device)
            pixels[batch] = embedder._preprocess(noise)
        with torch.inference_mode(), compute_precision(precision, device):
            for _ in range(n // batch):
                module(pixels[batch])
        if device.type == "cuda":
            torch.cuda.synchronize()

    return forward

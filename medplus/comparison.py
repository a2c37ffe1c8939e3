"""From data to a verdict: embeddings, kNN and probes of several backbones, and what to take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

from medplus.analysis.verdict import Verdict
from medplus.backbones.build import load_backbone
from medplus.backbones.catalog import PAPER
from medplus.backbones.inference import Embedder
from medplus.backbones.sources import demo, expand, resolve, weights_files
from medplus.backbones.weights_folder import is_weights_folder, read_manifest
from medplus.config import as_tuple, finetune_recipe
from medplus.datasets import catalog, decode, sources
from medplus.datasets.dataset import DatasetRef
from medplus.datasets.files import find_files
from medplus.device import resolve_device, resolve_precision
from medplus.embeddings.extract import Extraction, extract_all
from medplus.embeddings.info import StoreInfo
from medplus.embeddings.select import identify, readable
from medplus.embeddings.store import EmbeddingStore
from medplus.errors import MedplusError, UsageError
from medplus.heads.knn import knn
from medplus.heads.probe import probe
from medplus.naming import counted, duration
from medplus.progress import Progress, silent
from medplus.reporting.report import Report, report
from medplus.run.record import RunRecord
from medplus.spec import AUTO, PIXELS, PRETRAINED, ExtractSpec, make_spec
from medplus.training import finetune_all
from medplus.training.watch import Watch
from medplus.vocabulary import SIZES, Fit, Precision

PROTOCOLS = ("knn", "probe", "finetune")
SEEDS = (1, 2, 3)
NEIGHBOURS = (1, 3, 5, 7, 11, 15, 21, 31, 51)
_FOLDER_SIZES = (64, 224)
_HEADERS = 200
_TIMED = 8
_OF_WEIGHTS = (".safetensors", ".bin", ".pth")
_TUNING = 3.0
"""Forwards that an epoch of fine-tuning takes the time of: one, and twice that for backward."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison made.

    Attributes
    ----------
    extractions : list of Extraction
    records : list of RunRecord
    report : Report
    left : tuple of str
        What the budget did not reach.
    seconds : float
    """

    extractions: list[Extraction]
    records: list[RunRecord]
    report: Report
    left: tuple[str, ...]
    seconds: float

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One per dataset, and one over all."""
        return self.report.analysis.verdicts


@dataclass(frozen=True)
class _Job:
    """Embeddings to be made and scored, or a network to be trained."""

    spec: ExtractSpec
    protocols: tuple[str, ...]
    seconds: float

    @property
    def name(self) -> str:
        return f"{' and '.join(self.protocols)} of {self.spec.describe()}"


def compare(
    datasets: str | Path | Iterable[str | Path],
    backbones: str | Sequence[str] | None = None,
    sizes: int | Sequence[int] | None = None,
    *,
    weights: str | Sequence[str] | None = None,
    fits: Fit | Sequence[Fit] | None = None,
    precision: Precision | Literal["auto"] | None = None,
    protocols: str | Sequence[str] = ("knn", "probe"),
    budget_s: float | None = None,
    group_column: str | None = None,
    device: str = "auto",
    data_root: str | Path = "data",
    out: str | Path = "comparison",
    progress: Progress = silent,
    watch: Watch | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Compare backbones on datasets, and say which to take. What is there is used again.

    Parameters
    ----------
    datasets : str or iterable of str
        As for `medplus.load_dataset`.
    backbones : str or sequence of str, optional
        By default raw pixels, the demo networks that are installed, and those of the paper's ten
        whose weights are at hand.
    sizes : int or sequence of int, optional
        In pixels; by default those on disk of a MedMNIST flag, a file's own, and 64 and 224 of a
        folder, as far as its images are that large.
    weights : str or sequence of str, optional
        As for `medplus.extract`; several are compared.
    group_column : str, optional
        As for `medplus.extract`.
    fits : {"pad", "resize", "native"} or several, optional
        By default what `medplus.extract` takes.
    precision : {"auto", "fp32", "bf16", "fp16"}, optional
        Of the extractions; fine-tuning has its recipe's.
    protocols : {"knn", "probe", "finetune"} or several
        kNN with nine k; probes with 13 learning rates and three seeds; the modern recipe.
    budget_s : float, optional
        Seconds; what does not fit any more is left out, the dearest first, and named.
    device : str
    data_root : str or Path
    out : str or Path
        Folder of ``embeddings``, ``runs`` and ``report``.
    progress, watch, tell
        Where to report progress, training, and each step in a sentence.

    Raises
    ------
    MedplusError
        If a dataset, a backbone or weights cannot be used.

    Examples
    --------
    >>> import medplus
    >>> found = medplus.compare("breastmnist", ["pixels"], [28])
    >>> found.verdicts[0].best.backbone
    'pixels'
    """
    start = time.perf_counter()
    root = Path(out)
    named = as_tuple(protocols) or ()
    _check_protocols(named)
    names = sources.expand(map(str, as_tuple(datasets) or ()))
    for name in names:
        place = sources.path(sources.resolve(name, group_column)).resolve()
        if place.is_dir() and root.resolve().is_relative_to(place):
            raise UsageError(
                f"--out {root} lies in the dataset's folder {place}, where its pictures would be "
                "taken for images; name another"
            )
    trained = as_tuple(weights) or (None,)
    asked = as_tuple(backbones)
    only = trained[0] if len(trained) == 1 else None
    networks = list(expand(asked)) if asked else default_backbones(only)
    specs = [
        make_spec(
            name, size, network, weights=own, fit=fit, precision=precision,
            group_column=group_column,
        )
        for name in names
        for size in as_tuple(sizes)
        or default_sizes(sources.resolve(name, group_column), Path(data_root))
        for network in networks
        for own in (trained if network != PIXELS else (None,))
        for fit in ((as_tuple(fits) if network != PIXELS else None) or (None,))
    ]  # fmt: skip
    made = [info for _, info in readable(root / "embeddings") if info.complete]
    jobs = _plan(specs, named, device, Path(data_root), made)
    expected = sum(job.seconds for job in jobs)
    tell(
        f"{counted(len(names), 'dataset')}, {', '.join(networks)}; "
        f"{counted(len(specs), 'store')} of embeddings in about {duration(expected)}, "
        f"heads in seconds each → {root}"
    )
    extractions: list[Extraction] = []
    records: list[RunRecord] = []
    left = []
    for job in jobs:
        elapsed = time.perf_counter() - start
        if records and budget_s is not None and elapsed + job.seconds > budget_s:
            left.append(job.name)
        elif job.protocols == ("finetune",):
            records += finetune_all(
                [job.spec], recipe="modern", device=device, data_root=data_root,
                runs=root / "runs", watch=watch,
            )  # fmt: skip
        else:
            extractions += extract_all(
                [job.spec], device=device, data_root=data_root, store=root / "embeddings",
                progress=progress,
            )  # fmt: skip
            store = extractions[-1].store
            records += _heads(store, job.protocols, device, root / "runs", progress)
    for name in left:
        tell(f"left out, since the budget does not reach: {name}")
    written = report(
        root / "runs",
        root / "report",
        tuned="val",
        only=[("dataset", name) for name in dict.fromkeys(r.dataset for r in records)],
        title=f"Comparison on {', '.join(names)}",
    )
    return Comparison(extractions, records, written, tuple(left), time.perf_counter() - start)


def default_backbones(weights: str | None = None) -> list[str]:
    """Return raw pixels, and the networks whose weights need no internet here."""
    if weights is not None and is_weights_folder(weights):
        carried = read_manifest(Path(weights)).weights
        return [PIXELS, *(name for name, tag in PAPER.items() if tag in carried)]
    if weights not in (None, PRETRAINED):
        raise UsageError(f"--weights {weights}: say with --backbone which networks are to have it")
    return [PIXELS, *demo.available(), *filter(_is_at_hand, PAPER)]


def _is_at_hand(name: str) -> bool:
    """Tell whether the caches have a network's pretrained weights."""
    files = weights_files(resolve(name)) or ()
    return any(path.suffix in _OF_WEIGHTS and path.is_file() for path in files)


def default_sizes(ref: DatasetRef, data_root: Path) -> list[int | None]:
    """Return the sizes at which a dataset is compared where none is named."""
    if ref.source == "medmnist":
        info = catalog.info(ref.spelling)
        return [s for s in SIZES if (data_root / info.filename(s)).is_file()] or [None]
    if ref.source == "npz":
        return [None]
    files = find_files(Path(ref.spelling)).files
    shown = files[:: max(1, len(files) // _HEADERS)]
    sides = []
    for file in shown:
        try:
            sides.append(min(decode.glance(Path(ref.spelling) / file.path).shape))
        except MedplusError:
            continue  # told when it is read
    side = median(sides) if sides else 0
    return [s for s in _FOLDER_SIZES if s <= side] or [
        max((s for s in SIZES if s <= side), default=SIZES[0])
    ]


def _heads(
    store: EmbeddingStore, protocols: Sequence[str], device: str, runs: Path, progress: Progress
) -> list[RunRecord]:
    records: list[RunRecord] = []
    if "knn" in protocols:
        k = [k for k in NEIGHBOURS if k <= store.info.n_samples["train"]]
        records += knn(store, k, device=device, runs=runs)
    if "probe" in protocols:
        records += probe(store, SEEDS, recipe="grid", device=device, runs=runs, progress=progress)
    return records


def _check_protocols(protocols: Sequence[str]) -> None:
    for name in protocols:
        if name not in PROTOCOLS:
            raise UsageError(f"unknown protocol '{name}' ({', '.join(PROTOCOLS)})")
    if not set(protocols) - {"finetune"}:
        raise UsageError("a comparison needs knn or probe; fine-tuning alone is medplus finetune")


def _plan(
    specs: list[ExtractSpec],
    protocols: tuple[str, ...],
    device: str,
    data_root: Path,
    made: Sequence[StoreInfo],
) -> list[_Job]:
    """Return what there is to do, the cheapest first: it tells most for its time.

    Embeddings that are `made` cost no forward any more.
    """
    heads = tuple(name for name in protocols if name != "finetune")
    per_image: dict[tuple[Any, ...], float] = {}
    jobs = []
    for spec in specs:
        outline = sources.describe(
            sources.resolve(spec.dataset, spec.group_column), spec.size, data_root
        )
        native = outline.size if spec.fit == "native" else None
        what = (spec.backbone, spec.weights, spec.fit, native)
        if what not in per_image:
            per_image[what] = _seconds_per_image(spec, outline.size, device)
        seconds = per_image[what] * sum(outline.n_samples.values())
        weights = resolve(spec.backbone, spec.weights).weights if spec.backbone != PIXELS else None
        sought = identify(replace(spec, weights=weights), data_root)
        is_made = any(sought.matches(info) for info in made)
        jobs.append(_Job(spec, heads, 0.0 if is_made else seconds))
        if "finetune" in protocols and spec.backbone != PIXELS:
            passes = _TUNING * finetune_recipe("modern").epochs
            jobs.append(_Job(spec, ("finetune",), passes * seconds))
    return sorted(jobs, key=lambda job: (job.protocols != heads, job.seconds))


def _seconds_per_image(spec: ExtractSpec, size: int, device: str) -> float:
    """Measure a network on empty images."""
    import torch

    if spec.backbone == PIXELS:
        return 0.0
    target = resolve_device(device)
    backbone = load_backbone(spec.backbone, spec.weights or PRETRAINED, size, spec.fit)
    embedder = Embedder(backbone, target, resolve_precision(spec.precision or AUTO, target), _TIMED)
    images = torch.zeros((_TIMED, size, size), dtype=torch.uint8)
    embedder(images)
    start = time.perf_counter()
    embedder(images)
    return (time.perf_counter() - start) / _TIMED

"""What a job will cost, from recorded costs, or from parameters and FLOPs where there are none.

Work is counted in floating-point operations; a rate turns it into seconds. Rates are the medians of
what runs have recorded on the same kind of device, per backbone where there are any. The defaults
are rough: they order jobs well, and tell hours from weeks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from statistics import median
from typing import Any

from medplus.backbones import sources
from medplus.backbones.servers import go_offline_if_unreachable
from medplus.datasets import sources as datasets
from medplus.errors import MedplusError
from medplus.preprocess import PAPER_CANVAS
from medplus.spec import PIXELS, PRELOGITS
from medplus.sweep.job import Job, Kind

# D, parameters, and floating-point operations (two per multiply-add) of a forward pass of one
# 224 × 224 image, so that planning the paper's grid needs no torch; a test counts them again.
PAPER_COSTS: dict[str, tuple[int, int, int]] = {
    PIXELS: (784, 0, 0),
    "vgg16": (4096, 134260544, 30932336640),
    "alexnet": (4096, 57003840, 1428376960),
    "resnet18": (512, 11176512, 3627122688),
    "densenet121": (1024, 6953856, 5666275328),
    "efficientnet_b4": (1792, 17548616, 3003836864),
    "vit_base_patch16_224": (768, 85798656, 35126120448),
    "vit_base_patch16_clip_224": (768, 85799424, 35126120448),
    "eva02_base_patch16_clip_224": (768, 85869312, 35126120448),
    "vit_base_patch16_224.dino": (768, 85798656, 35126120448),
    "samvit_base_patch16": (256, 89670912, 35351199744),
}

# Operations per second: of a CPU core with AVX2, and of a data-centre GPU. Low on purpose: small
# batches and odd shapes do not reach a chip's peak.
_PER_CORE: dict[Kind, float] = {"extract": 40e9, "knn": 20e9, "probe": 5e9, "finetune": 30e9}
_PER_GPU: dict[Kind, float] = {"extract": 20e12, "knn": 5e12, "probe": 0.5e12, "finetune": 10e12}
_OVERHEAD_S: dict[Kind, float] = {"extract": 2.0, "knn": 0.5, "probe": 0.5, "finetune": 4.0}
_RECORD_BYTES = 6000
_BOTH = "cls+avg"
"""The feature that is twice as wide; its module needs torch."""
_TELLING_S = 1.0
"""Jobs shorter than this tell of overheads, not of rates."""


@dataclass(frozen=True)
class Network:
    """What a backbone costs.

    Attributes
    ----------
    dim, n_parameters : int
    flops : float
        Floating-point operations of a forward pass of one image of 224 × 224 pixels.
    """

    dim: int
    n_parameters: int
    flops: float


@dataclass(frozen=True)
class Counts:
    """How many images and classes a dataset has, and the height and width of its images."""

    train: int
    val: int
    test: int
    n_classes: int
    n_labels: int
    side: int = field(default=PAPER_CANVAS, compare=False)

    @property
    def total(self) -> int:
        """Images of all splits."""
        return self.train + self.val + self.test


@dataclass(frozen=True)
class PastJob:
    """What a finished job has cost: from a record or a store.

    Attributes
    ----------
    work : float
        Floating-point operations.
    """

    kind: Kind
    backbone: str
    work: float
    seconds: float
    on_gpu: bool


class Estimator:
    """Estimates jobs from what finished ones have cost.

    Parameters
    ----------
    data_root : Path
    past : callable
        Returns what finished jobs have cost; asked when the first estimate is needed.
    cores : int
        CPU cores that one worker has.
    on_gpu : bool
        Whether a worker has a GPU.
    """

    def __init__(
        self,
        data_root: Path,
        past: Callable[[], Iterable[PastJob]],
        cores: int = 1,
        on_gpu: bool = False,
    ) -> None:
        self._data_root = data_root
        self._past = past
        self._cores = cores
        self._on_gpu = on_gpu

    @cached_property
    def _rates(self) -> dict[tuple[Kind, str | None], float]:
        """Operations per second by kind and backbone, and by kind alone."""
        rates: dict[tuple[Kind, str | None], list[float]] = defaultdict(list)
        for job in self._past():
            if job.on_gpu == self._on_gpu and job.seconds > _TELLING_S and job.work > 0:
                for key in ((job.kind, job.backbone), (job.kind, None)):
                    rates[key].append(job.work / job.seconds)
        return {key: median(values) for key, values in rates.items()}

    @property
    def basis(self) -> str:
        """Say what the estimates rest on."""
        kinds = sorted({kind for kind, backbone in self._rates if backbone is None})
        if kinds:
            return f"recorded costs of {', '.join(kinds)}; FLOPs and parameters for the rest"
        what = "a GPU" if self._on_gpu else f"{self._cores} CPU cores"
        return f"FLOPs and parameters on {what}, since nothing like it has been recorded"

    def cost(self, job: Job) -> tuple[float, int]:
        """Return a job's wall time in seconds and its disk space in bytes."""
        counts = count_images(job.spec.dataset, job.spec.size, self._data_root)
        network = network_of(job.spec.backbone, job.feature)
        work = work_of(
            job.kind, counts, network, {**job.options, "fit": job.spec.fit}, _epochs(job)
        )
        seconds = work * _heads(job) / self._rate(job.kind, job.spec.backbone)
        return _OVERHEAD_S[job.kind] + seconds, _nbytes(job, counts, network)

    def _rate(self, kind: Kind, backbone: str) -> float:
        default = _PER_GPU[kind] if self._on_gpu else _PER_CORE[kind] * self._cores
        return self._rates.get((kind, backbone)) or self._rates.get((kind, None)) or default


def work_of(
    kind: Kind,
    counts: Counts,
    network: Network,
    options: Mapping[str, Any],
    epochs: float,
) -> float:
    """Return the floating-point operations of a job; of a probe, those of one head."""
    side = counts.side if options.get("fit") == "native" else PAPER_CANVAS
    forward = network.flops * (side / PAPER_CANVAS) ** 2
    if kind == "extract":
        return counts.total * forward
    if kind == "knn":
        return 2.0 * counts.train * (counts.val + counts.test) * network.dim
    if kind == "probe":
        return epochs * (6.0 * counts.train + 2.0 * counts.val) * network.dim * counts.n_classes
    return epochs * (_passes(options) * counts.train + counts.val) * forward


def _passes(options: Mapping[str, Any]) -> int:
    """Return what learning from an image costs, in forward passes.

    A backward pass is two: the gradient of what goes in, and that of the weights, which low-rank
    updates are spared.
    """
    fields = options.get("fields", options)
    if fields.get("trainable", "all") == "head":
        return 1
    return 2 if fields.get("lora") else 3


def _epochs(job: Job) -> float:
    return float(job.options.get("fields", job.options).get("epochs", 1))


def _heads(job: Job) -> int:
    return job.n_runs if job.kind == "probe" else 1


def _nbytes(job: Job, counts: Counts, network: Network) -> int:
    labels = counts.n_labels + 8  # and the index
    if job.kind == "extract":
        width = 2 if job.spec.dtype == "float16" else 4
        return counts.total * (network.dim * width + labels)
    scores = (counts.val + counts.test) * (4 * counts.n_classes + labels) + _RECORD_BYTES
    head = 4 * network.dim * counts.n_classes
    if job.kind == "knn":
        return job.n_runs * scores
    if job.kind == "probe":
        return job.n_runs * (scores + head)
    return scores + head + 4 * network.n_parameters


def network_of(backbone: str, feature: str = PRELOGITS) -> Network:
    """Return what a backbone costs; a feature inside of it counts as wide as the pre-logits."""
    network = _network_of(backbone)
    return replace(network, dim=2 * network.dim) if feature == _BOTH else network


@cache
def _network_of(backbone: str) -> Network:
    """Build those beyond the paper's without memory."""
    if backbone in PAPER_COSTS:
        return Network(*PAPER_COSTS[backbone])
    from medplus.backbones.flops import count_flops

    try:
        ref = sources.resolve(backbone)
        if ":" in ref.tag:  # of the hub, which may have to be asked
            go_offline_if_unreachable()
        info = sources.describe(ref)
    except MedplusError:
        return Network(*PAPER_COSTS["resnet18"])  # the job itself will say what is wrong
    return Network(info.dim, info.n_parameters, count_flops(info))


@cache
def count_images(name: str, size: int | None, data_root: Path) -> Counts:
    """Return the counts of a dataset: from its file, or from the catalogue where it is absent."""
    try:
        found = datasets.describe(datasets.resolve(name), size, data_root)
    except (MedplusError, OSError):  # the job itself will say what is wrong
        return Counts(0, 0, 0, 2, 1, size or PAPER_CANVAS)
    n = found.n_samples
    return Counts(n["train"], n["val"], n["test"], found.n_classes, found.n_labels, found.size)

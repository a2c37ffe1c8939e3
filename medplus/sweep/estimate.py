"""What a job will cost, from recorded costs, or from parameters and FLOPs where there are none.

Work is counted in floating-point operations; a rate turns it into seconds. Rates are the medians of
what runs have recorded on the same kind of device, per backbone where there are any. The defaults
are rough: they order jobs well, and tell hours from weeks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import median

from medplus.backbones.flops import Network, network_of
from medplus.datasets import sources as datasets
from medplus.datasets.dataset import Outline
from medplus.errors import MedplusError
from medplus.preprocess import PAPER_CANVAS
from medplus.sweep.job import Job, Kind
from medplus.vocabulary import SPLITS

_SPEEDS: dict[Kind, tuple[float, float, float]] = {
    "extract": (40e9, 20e12, 2.0),
    "knn": (20e9, 5e12, 0.5),
    "probe": (5e9, 0.5e12, 0.5),
    "finetune": (30e9, 10e12, 4.0),
}
"""Operations per second of a CPU core with AVX2 and of a data-centre GPU, and seconds besides. Low
on purpose: small batches and odd shapes do not reach a chip's peak."""
_RECORD_BYTES = 6000
_TELLING_S = 1.0
"""Jobs shorter than this tell of overheads, not of rates."""


@dataclass
class Estimator:
    """Estimates jobs from what finished ones have cost.

    Parameters
    ----------
    data_root : Path
    past : callable
        Returns finished jobs, with the seconds that they took and among their options the epochs
        that they passed, and whether each ran on a GPU; asked when the first estimate is needed.
    cores : int
        CPU cores that one worker has.
    on_gpu : bool
        Whether a worker has a GPU.
    """

    data_root: Path
    past: Callable[[], Iterable[tuple[Job, bool]]]
    cores: int = 1
    on_gpu: bool = False

    @cached_property
    def _rates(self) -> dict[tuple[Kind, str | None], float]:
        """Operations per second by kind and backbone, and by kind alone."""
        rates: dict[tuple[Kind, str | None], list[float]] = defaultdict(list)
        for job, on_gpu in self.past():
            if on_gpu == self.on_gpu and job.seconds > _TELLING_S:
                work = _work(job, *self._sizes(job))
                for key in ((job.kind, job.spec.backbone), (job.kind, None)):
                    rates[key] += [work / job.seconds] if work else []
        return {key: median(values) for key, values in rates.items() if values}

    @property
    def basis(self) -> str:
        """Say what the estimates rest on."""
        kinds = sorted({kind for kind, backbone in self._rates if backbone is None})
        if kinds:
            return f"recorded costs of {', '.join(kinds)}; FLOPs and parameters for the rest"
        what = "a GPU" if self.on_gpu else f"{self.cores} CPU cores"
        return f"FLOPs and parameters on {what}, since nothing like it has been recorded"

    def cost(self, job: Job) -> tuple[float, int]:
        """Return the wall time in seconds and the disk space in bytes of what is left of a job."""
        sizes = self._sizes(job)
        per_core, per_gpu, overhead_s = _SPEEDS[job.kind]
        share = 1 - job.runs_done / job.n_runs
        default = per_gpu if self.on_gpu else per_core * self.cores
        general = self._rates.get((job.kind, None), default)
        rate = self._rates.get((job.kind, job.spec.backbone), general)
        seconds = overhead_s + _work(job, *sizes) / rate
        return share * seconds, int(share * _nbytes(job, *sizes))

    def _sizes(self, job: Job) -> tuple[Outline, Network]:
        """Return the job's images and network; two features in one are twice as wide."""
        network = network_of(job.spec.backbone)
        width = 1 + (job.spec.feature or "").count("+")
        images = outline_of(job.spec.dataset, job.spec.size, self.data_root)
        return images, network._replace(dim=width * network.dim)


def _work(job: Job, images: Outline, network: Network) -> float:
    """Return the floating-point operations of a job."""
    epochs = float(job.options.get("epochs", 1))
    train, val, test = (images.n_samples[split] for split in SPLITS)
    side = images.size if job.spec.fit == "native" else PAPER_CANVAS
    forward = network.flops * (side / PAPER_CANVAS) ** 2
    if job.kind == "extract":
        return (train + val + test) * forward
    if job.kind == "knn":
        return 2.0 * train * (val + test) * network.dim
    if job.kind == "probe":
        heads = job.n_runs * images.n_classes
        return heads * epochs * (6.0 * train + 2.0 * val) * network.dim
    # A backward pass is two: the gradient of what goes in, and that of the weights, which low-rank
    # updates are spared.
    passes = 2 if job.options.get("lora") else 3
    passes = 1 if job.options.get("trainable") == "head" else passes
    return epochs * (passes * train + val) * forward


def _nbytes(job: Job, images: Outline, network: Network) -> int:
    train, val, test = (images.n_samples[split] for split in SPLITS)
    labels = images.n_labels + 8  # 8: the index
    if job.kind == "extract":
        width = 2 if job.spec.dtype == "float16" else 4
        return (train + val + test) * (network.dim * width + labels)
    scores = (val + test) * (4 * images.n_classes + labels) + _RECORD_BYTES
    head = 4 * network.dim * images.n_classes if job.kind != "knn" else 0
    trained = 4 * network.n_parameters if job.kind == "finetune" else 0
    return job.n_runs * (scores + head + trained)


@cache
def outline_of(name: str, size: int | None, data_root: Path) -> Outline:
    """Return the counts of a dataset: from its file, or from the catalogue where it is absent."""
    try:
        return datasets.describe(datasets.resolve(name), size, data_root)
    except (MedplusError, OSError):  # the job itself will say what is wrong
        return Outline(dict.fromkeys(SPLITS, 0), 2, 1, size or PAPER_CANVAS)

"""Extraction: which images through which backbone into which store, each exactly once."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from medplus.backbones import sources as backbones
from medplus.backbones.identity import Identity
from medplus.backbones.known import Sighting, is_known, recall_backbone
from medplus.corruptions import Corruption
from medplus.cost import add_costs, measure_cost
from medplus.datasets import sources as datasets
from medplus.datasets.card import warn_of
from medplus.datasets.dataset import ImageDataset
from medplus.device import precision_here, resolve_device
from medplus.embeddings.info import StoreInfo, read_info, versions_of
from medplus.embeddings.provenance import corrupted, provenance_of, settle
from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.embeddings.writer import StoreWriter, WriteStatus, open_writer
from medplus.errors import StoreError, UsageError
from medplus.progress import Progress, silent
from medplus.run.scoring import Samples
from medplus.spec import AUTO, PRELOGITS, Choices, ExtractSpec, check_feature, make_spec
from medplus.vocabulary import SPLITS, Precision

if TYPE_CHECKING:
    from medplus.backbones.build import Backbone
    from medplus.backbones.inference import Embedder

log = logging.getLogger(__name__)

_TRIED, _MOVED = 2, 0.05
"""Images that are tried before, and how far rounding may move embeddings without a word."""
_MOST = 1 << 16  # images at once; the pipeline gives far fewer


@dataclass(frozen=True)
class Extraction:
    """What one extraction did.

    Attributes
    ----------
    status : {"extracted", "resumed", "skipped"}
    chunks_computed, chunks_reused : int
        Chunks of embeddings computed now, and found intact.
    seconds : float
        Wall time of the pipeline, without loading data and weights.
    images_per_second : float or None
        None if nothing was computed.
    """

    store: EmbeddingStore
    status: WriteStatus
    chunks_computed: int
    chunks_reused: int
    seconds: float
    images_per_second: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the document that ``medplus extract --json`` prints for this store."""
        own = {name: value for name, value in vars(self).items() if name != "store"}
        return {**self.store.to_dict(), **own}


def extract(
    dataset: str | Path,
    size: int | None = None,
    backbone: str | Path = "resnet18",
    *,
    batch_size: int | None = None,
    window: bool = True,
    compiled: bool | None = None,
    device: str = "auto",
    data_root: str | Path = "data",
    store: str | Path = "embeddings",
    **choices: Unpack[Choices],
) -> EmbeddingStore:
    """Embed one dataset at one size with one backbone, and return the store.

    An existing complete store is returned as it is; a partial or damaged one is completed.

    Parameters
    ----------
    dataset : str
        A MedMNIST flag, the path of an npz file in the same layout, or a folder of images.
    size : int, optional
        Size of the images in pixels; as for `medplus.load_dataset`.
    backbone : str
        One of the paper's ten, ``pixels``, any timm name, the folder of a fine-tuned run, or a
        Python file.
    batch_size : int, optional
        Images per forward; by default the first batches are measured, and the best size is
        remembered on this machine. Halved when memory runs out.
    window : bool, default True
        Of padded images compute only what they can change (`medplus.backbones.windowed`); the
        embeddings are the same up to rounding.
    compiled : bool, optional
        Whether to compile the network, with torch's Inductor; by default where so many images are
        left that it pays. The embeddings are the same up to rounding.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.
    data_root, store : str or Path
        Folder of the datasets, and root of the stores.
    **choices
        Further fields of `medplus.ExtractSpec`: `weights`, `fit`, `feature`, `precision`, `dtype`,
        `group_column`, `exclude`, `corruption`.

    Raises
    ------
    MedplusError
        UsageError, DatasetError, BackboneError or StoreError, saying what is wrong and what to do.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> store.embeddings("train").shape[1], store.info.classes
    (784, ['malignant', 'normal, benign'])
    """
    [extraction] = extract_all(
        [make_spec(dataset, size, backbone, **choices)],
        batch_size=batch_size,
        window=window,
        compiled=compiled,
        device=device,
        data_root=data_root,
        store=store,
    )
    return extraction.store


def extract_all(
    specs: Iterable[ExtractSpec],
    *,
    batch_size: int | None = None,
    window: bool = True,
    compiled: bool | None = None,
    device: str = "auto",
    data_root: str | Path = "data",
    store: str | Path = "embeddings",
    patience_s: float = math.inf,
    progress: Progress = silent,
) -> list[Extraction]:
    """Make the embeddings of every spec.

    All names are checked before any work starts, and specs that follow one another on the same
    images share them.

    Parameters
    ----------
    specs : iterable of ExtractSpec
    batch_size, window, compiled, device, data_root, store
        As for `extract`.
    patience_s : float
        Where another process fills the same store: how many seconds to wait until it has done so.
    progress : Progress
        Where to report the images of a folder that are read, and those that are embedded.

    Raises
    ------
    MedplusError
        As for `extract`, and where another process takes longer than `patience_s`.

    Examples
    --------
    >>> import medplus
    >>> done = medplus.extract_all([medplus.ExtractSpec("breastmnist", 28, "pixels")])
    >>> done[0].store.info.dim
    784
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, not {batch_size}")
    asked = list(specs)
    for spec in asked:
        check_feature(spec.feature or PRELOGITS)
        datasets.resolve(spec.dataset, spec.group_column)
        if not is_known(spec):
            backbones.resolve(spec.backbone, spec.weights)
    precisions = [precision_here(spec.precision or AUTO, device) for spec in asked]
    root, how = Path(store), (batch_size, compiled)
    results = []
    jobs = zip(asked, precisions, strict=True)
    of_images = attrgetter("dataset", "size", "group_column", "exclude")
    for _, group in groupby(jobs, key=lambda job: of_images(job[0])):
        todo = [*group]
        first, size = todo[0][0], todo[0][0].size
        data = datasets.resolve(first.dataset, first.group_column)
        embedder = loaded = None
        there = datasets.path(data, size, data_root).exists()
        if there and datasets.known_digest(data, size, data_root) is None and not is_known(first):
            # Weights that do not fit are told of before images are read for minutes.
            side = datasets.describe(data, size, data_root).size
            loaded = _load(first, side)
        images = datasets.load_spec(first, data_root, progress=progress)
        of = first
        for spec, precision in todo:
            if (done := _finished(spec, images, precision, root, patience_s)) is not None:
                results.append(done)
                loaded = None
                continue
            if embedder is None or replace(spec, corruption=of.corruption) != of:
                sighting, backbone = loaded or _load(spec, images.size)
                embedder = _embedder(backbone, device, precision, batch_size, window)
                dim = _dim(embedder, images)
                sighting.keep(backbone, _shape(images), dim)
                of, loaded = spec, None
            info = _new_info(spec, precision, images, embedder.backbone, dim)
            results.append(_extract_one(info, images, embedder, how, root, patience_s, progress))
    return results


def _load(spec: ExtractSpec, size: int) -> tuple[Sighting, Backbone]:
    from medplus.backbones.build import load

    sighting = Sighting(spec)
    return sighting, load(sighting.ref, size, spec.fit, feature=spec.feature or PRELOGITS)


def _embedder(
    backbone: Backbone, device: str, precision: Precision, batch_size: int | None, window: bool
) -> Embedder:
    from medplus.backbones.inference import Embedder

    compute = precision if backbone.is_network else "fp32"
    target = resolve_device(device)
    return Embedder(backbone, target, compute, batch_size or _MOST, window=window)


def _dim(embedder: Embedder, images: ImageDataset) -> int:
    from medplus.embeddings.pipeline import as_tensor

    embedder.backbone.preprocess.check(images.size)
    some = as_tensor(images, "train", slice(0, _TRIED))
    moved = embedder.rounding(some)
    if moved > _MOVED:
        log.warning(
            "%s at %s gives embeddings that differ from those of fp32 by %.0f %% of their norm; "
            "use --precision fp32 for them", embedder.backbone.name, embedder.precision, 100 * moved
        )  # fmt: skip
    return embedder(some[:1]).shape[1]


def _shape(images: ImageDataset) -> tuple[int, ...]:
    return images.splits["train"].images.shape[1:]


def _finished(
    spec: ExtractSpec, images: ImageDataset, precision: Precision, root: Path, patience_s: float
) -> Extraction | None:
    """Return a finished and intact store of a backbone that is known without being loaded."""
    backbone = recall_backbone(spec, _shape(images))
    if backbone is None:
        return None
    info = _new_info(spec, precision, images, backbone, backbone.dim)
    try:
        if not read_info(info.path_under(root)).complete:
            return None
    except StoreError:  # there is none, or it is to be repaired
        return None
    with _open_writer(root, info, images, patience_s) as writer:
        return _skipped(writer, info) if writer.status == "skipped" else None


def _skipped(writer: StoreWriter, asked: StoreInfo) -> Extraction:
    store = open_store(writer.path)
    if (known := store.info.spec.weights) != asked.spec.weights:
        log.warning("%s is there, of the same weights as --weights %s; later commands find it by "
                    "that name", store.path, known)  # fmt: skip
    return Extraction(store, "skipped", 0, writer.n_chunks, 0.0, None)


def _open_writer(
    root: Path, info: StoreInfo, images: ImageDataset, patience_s: float
) -> AbstractContextManager[StoreWriter]:
    of_both = [text for text in info.warnings if text not in images.card.warnings]
    warn_of(f"{images.name} at {images.size} px", of_both)  # those of the data were told
    samples = {split: Samples.of(images.splits[split]) for split in info.splits}
    return open_writer(info.path_under(root), info, samples, patience_s)


def _extract_one(
    info: StoreInfo,
    images: ImageDataset,
    embedder: Embedder,
    how: tuple[int | None, bool | None],
    root: Path,
    patience_s: float,
    progress: Progress,
) -> Extraction:
    from medplus.embeddings.pipeline import fill_store

    if info.spec.corruption is not None:
        images = corrupted(images, Corruption.parse(info.spec.corruption))
    with _open_writer(root, info, images, patience_s) as writer:
        missing = writer.n_missing
        reused = writer.n_chunks - missing
        status = writer.status
        if status == "skipped":
            return _skipped(writer, info)
        try:
            with measure_cost(embedder.device) as meter:
                filled = fill_store(writer, images, embedder, progress, *how)
        except BaseException:  # Ctrl-C above all
            with suppress(StoreError):
                writer.keep_cost(add_costs(writer.info.cost, meter.cost()))
            raise
        ways = vars(filled).copy()
        cost = {**meter.cost(ways.pop("n_images")), **ways}
        writer.finish(add_costs(writer.info.cost, cost))
    rate = cost.get("images_per_second")
    return Extraction(open_store(writer.path), status, missing, reused, meter.seconds, rate)


def _new_info(
    asked: ExtractSpec, precision: Precision, images: ImageDataset, backbone: Identity, dim: int
) -> StoreInfo:
    spec = settle(asked, images, backbone, precision, asked.dtype or "float32")
    splits = SPLITS if spec.corruption is None else ("test",)
    return StoreInfo(
        key=spec.key(images.digest, backbone.digest),
        dataset_path=str(Path(images.path).resolve()),
        preprocess=vars(backbone.preprocess).copy(),
        run_id=backbone.run_id,
        dim=dim,
        n_samples={s: len(of_it) for s, of_it in images.splits.items() if s in splits},
        versions=versions_of("torch", "timm", "zarr", "numpy"),
        **dict(provenance_of(spec, images, backbone)),
    )

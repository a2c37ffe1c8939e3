"""Where embeddings, and runs on images, come from: settled spec, data, backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from medplus.backbones.identity import Identity
from medplus.backbones.registry import overlap
from medplus.corruptions import Corruption
from medplus.corruptions.apply import CorruptedImages
from medplus.datasets import catalog
from medplus.datasets import sources as datasets
from medplus.datasets.dataset import ImageDataset
from medplus.errors import UsageError
from medplus.run.record import Provenance
from medplus.spec import NONE, ExtractSpec
from medplus.vocabulary import Precision, StoreDtype


def settle(
    asked: ExtractSpec,
    images: ImageDataset,
    backbone: Identity,
    precision: Precision,
    dtype: StoreDtype | None,
) -> ExtractSpec:
    """Return a spec with every choice made, as a store or a record is to carry it."""
    made = replace(
        asked,
        dataset=datasets.resolve(asked.dataset).spelling,
        exclude=asked.exclude and str(Path(asked.exclude).absolute()),
        corruption=asked.corruption and str(corruption_of(asked.corruption, images)),
        size=images.size,
        backbone=backbone.ref.spelling,
        dtype=dtype,
    )
    if not backbone.is_network:
        return replace(made, weights=None, fit=None, feature=None, precision=None)
    return replace(
        made,
        weights=backbone.ref.weights,
        fit=backbone.preprocess.fit,
        feature=backbone.feature,
        precision=precision,
    )


def corrupted(images: ImageDataset, corruption: Corruption) -> ImageDataset:
    """Return a dataset whose test images are made worse as they are read, by a settled corruption.

    All else is as it is.
    """
    test = images.splits["test"]
    worse: Any = CorruptedImages(test.images, corruption, test.positions)
    return replace(images, splits={**images.splits, "test": replace(test, images=worse)})


def corruption_of(text: str, images: ImageDataset) -> Corruption:
    """Return what a corruption means for a dataset's images."""
    return Corruption.parse(text).settled(images.name, images.channels)


def describe_data(images: ImageDataset) -> dict[str, Any]:
    """Return what is told of a dataset, by the names of `Provenance`."""
    return {
        "dataset": images.name,
        "size": images.size,
        "task": images.task,
        "classes": list(images.classes),
        "data_source": images.source,
        "licence": images.licence,
        "citation": images.citation,
        "dataset_digest": images.digest,
        "card_digest": images.card.digest,
        "warnings": images.card.warnings,
        "baseline_acc": images.card.baseline_acc,
        "reading": images.reading,
    }


def images_of(
    made: Provenance, what: object, data_root: str | Path | None = None, say: bool = True
) -> ImageDataset:
    """Load the images that a store or a run was made of, and `say` their card.

    Parameters
    ----------
    what : object
        The store or run, for messages.
    data_root : str or Path, optional
        Folder of the datasets; by default where a store's data lay, or ``data``.

    Raises
    ------
    MedplusError
        If they are not at hand, or are others.
    """
    if made.spec.is_imported:
        raise UsageError(f"{made.backbone} was imported without its images")
    lay = getattr(made, "dataset_path", None)
    if data_root is None and lay is not None and made.spec.dataset in catalog.FLAGS:
        data_root = Path(lay).parent
    images = datasets.load_spec(made.spec, data_root or "data", made.size, say=say)
    if images.digest != made.dataset_digest:
        raise UsageError(
            f"{images.path} holds other data than {what} was made on; name the folder of its data "
            "with --data-root"
        )
    return images


def provenance_of(spec: ExtractSpec, images: ImageDataset, backbone: Identity) -> Provenance:
    """Return what is told of a dataset and a backbone; `spec` is settled."""
    told = describe_data(images)
    seen = overlap(backbone.name, images.name)
    if seen is not None and backbone.weights != NONE:
        told["warnings"] = [*told["warnings"], f"{backbone.name} may know these images: {seen}"]
    return Provenance(
        spec=spec,
        backbone=backbone.name,
        tag=backbone.tag,
        weights=backbone.weights,
        weights_sha256=backbone.weights_sha256,
        backbone_digest=backbone.digest,
        weights_licence=backbone.licence,
        **told,
    )

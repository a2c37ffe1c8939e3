"""Where embeddings, and runs on images, come from: settled spec, data, backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from medplus.backbones.identity import Identity
from medplus.backbones.registry import overlap
from medplus.corruptions import Corruption
from medplus.datasets import sources as datasets
from medplus.datasets.dataset import ImageDataset
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

"""What stores and records tell alike of the data and the backbone that they were made with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from medplus.backbones.build import Backbone
from medplus.datasets import sources as datasets
from medplus.datasets.dataset import ImageDataset
from medplus.spec import ExtractSpec
from medplus.vocabulary import Precision


def settle(
    spec: ExtractSpec, images: ImageDataset, backbone: Backbone, precision: Precision
) -> ExtractSpec:
    """Return a spec with every choice made but the dtype, as stores and records carry it."""
    made = replace(
        spec,
        dataset=datasets.resolve(spec.dataset).spelling,
        size=images.size,
        backbone=backbone.ref.spelling,
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


def describe_data(images: ImageDataset) -> dict[str, Any]:
    """Return what is told of a dataset, by the names of `medplus.runs.record.Provenance`."""
    return {
        "dataset": images.name,
        "task": images.task,
        "classes": list(images.classes),
        "data_source": images.source,
        "licence": images.licence,
        "citation": images.citation,
        "dataset_digest": images.digest,
        "card_digest": images.card.digest,
        "warnings": images.card.warnings,
        "baseline_acc": images.card.baseline_acc,
    }


def describe_backbone(backbone: Backbone) -> dict[str, Any]:
    """Return what is told of a backbone, by the same names."""
    return {
        "backbone": backbone.name,
        "tag": backbone.tag,
        "weights": backbone.weights,
        "weights_sha256": backbone.weights_sha256,
        "backbone_digest": backbone.digest,
    }

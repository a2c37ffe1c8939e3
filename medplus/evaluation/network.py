"""Scoring the network of a fine-tuned run on images."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from medplus.backbones.build import Backbone, load_backbone
from medplus.backbones.finetuned import (
    NetworkDescription,
    network_file,
    read_description,
    read_network,
)
from medplus.backbones.inference import Embedder
from medplus.backbones.sources import is_code
from medplus.datasets import sources
from medplus.datasets.dataset import ImageDataset
from medplus.device import resolve_precision
from medplus.embeddings.pipeline import as_tensor
from medplus.embeddings.provenance import describe_data
from medplus.errors import BackboneError, RunError, UsageError, first_line
from medplus.evaluation.prepared import EvaluationOptions, Prepared
from medplus.run.ledger import find_run
from medplus.run.plan import RunPlan
from medplus.run.record import Provenance, RunRecord
from medplus.run.scoring import Samples
from medplus.spec import ExtractSpec
from medplus.training.network import Network, embedding_dim, keeps_channels_last
from medplus.vocabulary import Precision, Split

log = logging.getLogger(__name__)

_CPU_BATCH, _CUDA_BATCH = 64, 256


def prepare_network(run: Path, options: EvaluationOptions) -> Prepared:
    """Return the network in a run's folder, finished or under way, and the images to score it on.

    Raises
    ------
    MedplusError
        If network or record are damaged, or there are no such images.
    """
    description = read_description(run)
    if options.code is not None and not is_code(description.backbone):
        raise UsageError(
            f"--backbone {options.code} is for networks that a Python file defines; the one in "
            f"{run} is {description.backbone}, so leave it out"
        )
    record = find_run(run) or _provisional_record(run, description)
    if record.run_id != description.run_id:
        raise RunError(
            f"the network in {run} is that of the run {description.run_id}, but its record is of "
            f"{record.run_id}; restore the files that belong together, or make the run again"
        )
    precision = resolve_precision(options.precision or description.precision, options.device)
    images = _load_images(run, record, options)
    _warn_of_other_data(run, record, images, options)
    _check_canvas(run, description, images)

    def predict() -> dict[Split, torch.Tensor]:
        network = _load(run, record, images, options, precision)
        return _logits(network, run, images, options)

    named = options.dataset and sources.resolve(options.dataset).spelling
    spec = replace(record.spec, dataset=named or record.spec.dataset, size=images.size)
    seen = {"spec": spec, **describe_data(images)}
    on = Provenance.of(record).model_copy(update=seen)
    return Prepared(
        record=record,
        provenance=on,
        samples={split: Samples.of(images.splits[split]) for split in options.splits},
        predict=predict,
        config={"precision": precision, "epoch": description.epoch},
    )


def _check_canvas(run: Path, description: NetworkDescription, images: ImageDataset) -> None:
    own = description.spec
    if own.fit == "pad" and own.canvas is not None and images.size > own.canvas:
        raise UsageError(
            f"the network in {run} takes images of at most {own.canvas} px, not of {images.size}; "
            "use a smaller --size"
        )


def _load_images(run: Path, record: RunRecord, options: EvaluationOptions) -> ImageDataset:
    if options.dataset is not None:
        ref = sources.resolve(options.dataset)
        size = options.size or (record.size if ref.any_size else None)
        return sources.load(ref, size, options.data_root, progress=options.progress)
    if sources.find(record.spec.dataset) is None:
        raise UsageError(
            f"{run} was trained on a file of the name '{record.dataset}', and does not know "
            "where it lies; name it with --dataset"
        )
    size = options.size or record.size
    return sources.load_spec(record.spec, options.data_root, size, options.progress)


def _warn_of_other_data(
    run: Path, record: RunRecord, images: ImageDataset, options: EvaluationOptions
) -> None:
    """Say so where a file under the name of the run's own dataset holds other images."""
    known = record.config.get("dataset_digest")
    own = options.dataset is None and images.size == record.size
    if own and known not in (None, images.digest):
        log.warning("%s holds other data than %s was trained on", images.path, run)


def batch_on(device: torch.device) -> int:
    """Return how many images a network is given at once, where nobody says."""
    return _CUDA_BATCH if device.type == "cuda" else _CPU_BATCH


def _logits(
    network: Embedder, run: Path, images: ImageDataset, options: EvaluationOptions
) -> dict[Split, torch.Tensor]:
    """Run the network over the images."""
    precision = network.precision
    sizes, step = {s: len(images.splits[s]) for s in options.splits}, network.batch_limit
    what = f"{images.name} {images.size} px · {network.backbone.name} · {precision}"
    logits = {}
    with options.progress(what, sum(sizes.values()), "img") as advance:
        for split, n in sizes.items():
            parts = []
            for first in range(0, n, step):
                batch = as_tensor(images, split, slice(first, min(first + step, n)))
                parts.append(network(batch).cpu())
                advance(len(batch))
            logits[split] = torch.cat(parts)
            if not logits[split].isfinite().all():
                raise RunError(
                    f"the network in {run} gives scores of {split} that are not finite at "
                    f"{precision}; use --precision fp32"
                )
    return logits


def _load(
    run: Path,
    record: RunRecord,
    images: ImageDataset,
    options: EvaluationOptions,
    precision: Precision,
) -> Embedder:
    """Return the whole network, backbone and head, ready to map images to logits."""
    backbone = load_backbone(str(network_file(run)), size=images.size, code=options.code)
    description, head = read_trained_head(run)
    _check_images(run, backbone, description, images)
    whole = replace(backbone, module=Network(backbone.module, head).eval())
    return embedder_as_trained(whole, record, options.device, precision, options.batch_size)


def read_trained_head(run: Path) -> tuple[NetworkDescription, nn.Linear]:
    """Return the head of a fine-tuned run's network, and what the network says of itself."""
    description, state = read_network(run)
    head = nn.Linear(description.dim, len(description.classes))
    head.load_state_dict({name: state[f"head.{name}"] for name in ("weight", "bias")})
    return description, head


def embedder_as_trained(
    backbone: Backbone,
    record: RunRecord,
    device: torch.device,
    precision: Precision,
    batch_size: int | None,
) -> Embedder:
    """Return what computes as a run's network was evaluated in training, to the last bit.

    So nothing is folded or cast beforehand.
    """
    asked = record.config.get("recipe", {}).get("channels_last", False)
    last = keeps_channels_last(backbone.module, asked, precision, device)
    layout = torch.channels_last if last else torch.contiguous_format
    return Embedder(
        backbone,
        device,
        precision,
        batch_size or batch_on(device),
        preparation=lambda module, _: module.to(memory_format=layout),
    )


def _check_images(
    run: Path, backbone: Backbone, description: NetworkDescription, images: ImageDataset
) -> None:
    """Refuse images that the network cannot take, or that give it other embeddings."""
    try:
        found = embedding_dim(backbone, as_tensor(images, "test", slice(0, 1))[0])
        reason = f"they give {found} dimensions, its head takes {description.dim}"
    except BackboneError as error:
        found, reason = None, first_line(error.__cause__ or error)
    if found != description.dim:
        raise BackboneError(
            f"the network in {run} does not take the images of {images.name} at {images.size} px: "
            f"{reason}; it was trained on {description.dataset} at {description.size} px"
        )


def _provisional_record(run: Path, description: NetworkDescription) -> RunRecord:
    """Return what is known of a run that has no record yet."""
    provenance = Provenance(
        spec=ExtractSpec(description.dataset, description.size, str(run)),
        dataset=description.dataset,
        size=description.size,
        task=description.task,
        classes=list(description.classes),
        data_source="",
        licence="",
        dataset_digest="",
        backbone=description.backbone,
        tag=description.tag,
        weights=f"sha256:{description.weights_sha256[:8]}",
        weights_sha256=description.weights_sha256,
        backbone_digest="",
    )
    fields = {"best_epoch": description.epoch}
    plan = RunPlan(provenance, "finetune", description.run_id, run, {}, fields)
    return plan.record({}, 0.0, {})

"""Fine-tuned runs of medplus, by their folder or their network file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medplus.backbones import finetuned
from medplus.backbones import weights as weights_io
from medplus.backbones.catalog import PIXELS, BackboneInfo
from medplus.backbones.finetuned import NetworkDescription, is_path, read_description
from medplus.backbones.sources import (
    demo,
    medical,
    open_clip,
    pixels,
    python,
    timm,
    torchvision,
    transformers,
)
from medplus.backbones.sources.ref import BackboneRef, Built, Source
from medplus.errors import BackboneError, UsageError
from medplus.preprocess import PreprocessSpec
from medplus.spec import NONE, PRETRAINED
from medplus.vocabulary import Fit

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "build", "claims", "describe", "is_path", "origin", "read_description", "resolve",
]  # fmt: skip


def claims(name: str) -> bool:
    """Tell a run from other names, by what lies there."""
    return finetuned.is_finetuned(name)


def resolve(name: str, weights: str) -> BackboneRef:
    """Return what the run is: it is called after its backbone and its id, ``resnet18@<run_id>``.

    Raises
    ------
    UsageError
        If it is to have other weights than its own.
    BackboneError
        If its file is damaged.
    """
    if weights != PRETRAINED:
        raise UsageError(
            f"--weights {weights} cannot go with the fine-tuned run {name}, which has its own "
            "weights; leave --weights out"
        )
    path = Path(name)
    run = read_description(path)
    return BackboneRef(
        source="run",
        spelling=str(finetuned.network_file(path).resolve()),
        name=run.name,
        tag=run.full_tag,
        weights_from=PRETRAINED,
        weights_sha256=run.trained_sha256,
        run_id=run.run_id,
    )


def describe(ref: BackboneRef) -> BackboneInfo:
    """Return the facts of the network that it began as, with what its training fixed."""
    run = read_description(Path(ref.spelling))
    source, began_as = origin(run)
    return replace(
        source.describe(began_as),
        name=run.name,
        tag=run.full_tag,
        dim=run.dim,
        native_size=run.canvas,
        mean=run.spec.mean,
        std=run.spec.std,
    )


def origin(run: NetworkDescription) -> tuple[Source, BackboneRef]:
    """Return the backbone that was trained, without its weights, and what makes it.

    Raises
    ------
    BackboneError
        If it is code of a Python file, which no run has run.
    """
    if python.claims(run.backbone):
        raise BackboneError(
            f"the network of {run.name} is code of {run.backbone}; medplus backbones "
            f"{run.backbone} runs it and tells of it"
        )
    kinds: tuple[Source, ...] = (
        pixels, torchvision, demo, medical, open_clip, transformers, timm,
    )  # fmt: skip
    # By the tag: the name also tells a file of weights that it began with.
    source = next(kind for kind in kinds if kind.claims(run.tag))
    return source, BackboneRef("", run.backbone, run.backbone, run.tag, NONE, card=run.card)


def build(ref: BackboneRef, size: int, fit: Fit | None, code: str | None) -> Built:
    """Make the network as it was trained; another `fit` is tried where it is asked for.

    Raises
    ------
    UsageError, BackboneError
        If it is code that `code` does not name, or takes no such input.
    """
    file = Path(ref.spelling)
    run, state = finetuned.read_network(file)
    spec = run.spec
    if fit not in (None, spec.fit) and run.feature != PIXELS:
        spec = replace(PreprocessSpec.fitted(spec.mean, spec.std, fit), rgb=spec.rgb)
    canvas = spec.canvas or size
    made = _code_of(file, run, code) if python.claims(run.backbone) else None
    try:
        if made is None:
            source, began_as = origin(run)
            made = source.build(began_as, canvas, "native", None).module
        made.load_state_dict(finetuned.backbone_state(state), strict=True)
    except (BackboneError, RuntimeError) as error:
        raise _unsuitable(file, run, spec, canvas, error) from error
    return Built(made, spec, run.feature)


def _code_of(file: Path, run: NetworkDescription, code: str | None) -> nn.Module:
    """Run the Python file that defines the network of a run, if the user named it."""
    if code is None:
        raise BackboneError(
            f"the network in {file} is code of {run.backbone}, which runs only when you name it: "
            f"evaluate with --backbone {run.backbone}, extract with --backbone {run.backbone} "
            f"--weights {file}"
        )
    named = python.find(code)
    if named.tag != run.tag:
        raise BackboneError(
            f"the network in {file} was trained with {run.tag}, but {code} now is {named.tag}; "
            "name the file as it was"
        )
    return python.run(named).module


def _unsuitable(
    file: Path, run: NetworkDescription, spec: PreprocessSpec, canvas: int, error: Exception
) -> BackboneError:
    if canvas == run.canvas:
        if isinstance(error, BackboneError):
            return error
        return weights_io.misfit(run.tag, str(file), error)
    remedy = "leave --fit out" if spec.fit != run.spec.fit else f"use images of {run.canvas} px"
    return BackboneError(
        f"{run.name} takes an input of {run.canvas} px, as it was trained, not of {canvas} px "
        f"({weights_io.details(error)}); {remedy}"
    )

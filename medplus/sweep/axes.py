"""The axes of a grid: lists of names and numbers, spelled out and checked as they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from medplus.backbones import sources as backbone_sources
from medplus.datasets import sources as dataset_sources
from medplus.errors import MedplusError, UsageError
from medplus.run.record import Protocol
from medplus.spec import AUTO, NONE, PIXELS, PRELOGITS, PRETRAINED, ExtractSpec
from medplus.sweep.protocols import fault, several
from medplus.vocabulary import PAPER_SEEDS, SIZES, Fit, Precision

ALL = "all"


def _list_of(expand: Callable[[Sequence[Any]], Sequence[Any]]) -> BeforeValidator:
    """Let one value stand for a list, spell out what stands for several, drop repetitions."""

    def spell_out(value: Any) -> Any:
        items = several(value)
        if not all(isinstance(item, str | int) for item in items):
            return items  # which is refused
        return [*dict.fromkeys(expand(items))]

    return BeforeValidator(spell_out)


def each(check: Callable[[str], object]) -> BeforeValidator:
    """Check names as they are written, before they are spelled out."""

    def check_all(value: Any) -> Any:
        for position, item in enumerate(several(value)):
            if isinstance(item, str) and item:
                try:
                    check(item)
                except MedplusError as error:
                    raise fault(str(error), position) from None
        return value

    return BeforeValidator(check_all)


def _or_all(everything: Sequence[Any]) -> BeforeValidator:
    return _list_of(
        lambda items: [i for item in items for i in (everything if item == ALL else [item])]
    )


def _datasets(names: Sequence[Any]) -> list[Any]:
    found = [(name, dataset_sources.find(str(name))) for name in dataset_sources.expand(names)]
    return [name if ref is None else ref.spelling for name, ref in found]


def _backbones(names: Sequence[Any]) -> list[Any]:
    spelled = backbone_sources.expand(names)
    return [backbone_sources.portable(n) if isinstance(n, str) else n for n in spelled]


def _weights(names: Sequence[Any]) -> list[Any]:
    """Make paths absolute: workers have other working folders."""
    return [
        n if n in (PRETRAINED, NONE, "") or not isinstance(n, str) else str(Path(n).absolute())
        for n in names
    ]


def check_dataset(name: str) -> None:
    """Refuse what cannot be a dataset."""
    if name != ALL:
        dataset_sources.resolve(name)


def check_backbone(name: str) -> None:
    """Refuse what cannot be a backbone; timm is asked only where there is a doubt."""
    if backbone_sources.is_code(name):
        raise UsageError(
            f"{name} is code, which medplus runs only where a command line names it; extract with "
            f"--backbone {name}, then run knn and probe on the store"
        )
    papers = backbone_sources.PAPER
    if name in (ALL, PIXELS, *papers, *papers.values()) or backbone_sources.is_trained(name):
        return
    for each in backbone_sources.expand([name]):
        backbone_sources.resolve(each)


def check_feature_name(name: str) -> None:
    """Refuse what cannot be a feature."""
    if name != PRELOGITS:
        from medplus.backbones.features import check_feature  # which needs torch

        check_feature(name)


_Name = Annotated[str, Field(min_length=1)]
_Size = Annotated[int, Field(ge=1, strict=True)]
_Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Datasets = Annotated[tuple[_Name, ...], _list_of(_datasets)]
Sizes = Annotated[tuple[_Size, ...], _or_all(SIZES)]
Backbones = Annotated[tuple[_Name, ...], _list_of(_backbones)]
Weights = Annotated[tuple[_Name, ...], _list_of(_weights)]
Fits = Annotated[tuple[Fit, ...], _list_of(list)]
Features = Annotated[tuple[str, ...], _list_of(list)]
Precisions = Annotated[tuple[Precision | Literal["auto"], ...], _list_of(list)]
Seeds = Annotated[tuple[_Seed, ...], _or_all(PAPER_SEEDS)]
SOME = Field(min_length=1)


class Part(BaseModel):
    """A part of a grid: what matches all that is given.

    In a grid's file, ``all`` is everything of that grid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: Datasets = ()
    sizes: Sizes = ()
    backbones: Backbones = ()
    weights: Weights = ()
    fit: Fits = ()
    feature: Features = ()
    precision: Precisions = ()
    protocols: Annotated[tuple[Protocol, ...], BeforeValidator(several)] = ()
    seeds: Seeds = ()

    def covers(self, spec: ExtractSpec, protocol: Protocol, seed: int | None) -> bool:
        """Tell whether a run belongs to it; without a seed it does not, where seeds are given."""
        asked: list[tuple[Sequence[Any], Any]] = [
            (self.datasets, spec.dataset),
            (self.sizes, spec.size),
            (self.backbones, spec.backbone),
            (self.weights, spec.weights),
            (self.fit, spec.fit),
            (self.feature, spec.feature),
            (self.precision, spec.precision or AUTO),
            (self.protocols, protocol),
            (self.seeds, seed),
        ]
        return all(value in wanted for wanted, value in asked if wanted)

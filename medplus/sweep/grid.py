"""The grid: what a sweep is to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from medplus.backbones import sources as backbone_sources
from medplus.config import (
    FinetuneRecipe,
    KnnRecipe,
    ProbeRecipe,
    Recipe,
)
from medplus.datasets import sources as dataset_sources
from medplus.runs.record import Protocol
from medplus.spec import AUTO, NONE, PIXELS, PRELOGITS, PRETRAINED, ExtractSpec
from medplus.vocabulary import PAPER_SEEDS, SIZES, Fit, Precision, StoreDtype

ALL = "all"
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
WORDS = (PRETRAINED, NONE)
"""What weights may be besides a file."""


def several(value: Any) -> Any:
    """Let one value stand for a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def _once(expand: Callable[[Sequence[Any]], Sequence[Any]]) -> BeforeValidator:
    """Let one value stand for a list, spell out what stands for several, drop repetitions."""

    def spell_out(value: Any) -> Any:
        items = several(value)
        if not all(isinstance(item, str | int) for item in items):
            return items  # which is refused
        return [*dict.fromkeys(expand(items))]

    return BeforeValidator(spell_out)


def _or_all(everything: Sequence[Any]) -> BeforeValidator:
    return _once(
        lambda items: [i for item in items for i in (everything if item == ALL else [item])]
    )


def in_full(path: str) -> str:
    """Return an absolute path: workers have other working folders."""
    return str(Path(path).absolute())


def _datasets(names: Sequence[Any]) -> list[Any]:
    found = [(name, dataset_sources.find(str(name))) for name in dataset_sources.expand(names)]
    return [name if ref is None else ref.spelling for name, ref in found]


def _backbones(names: Sequence[Any]) -> list[Any]:
    spelled = backbone_sources.expand(names)
    return [backbone_sources.portable(n) if isinstance(n, str) else n for n in spelled]


Datasets = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], _once(_datasets)]
Sizes = Annotated[tuple[Annotated[int, Field(ge=1, strict=True)], ...], _or_all(SIZES)]
Backbones = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], _once(_backbones)]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**63, strict=True)], ...], _or_all(PAPER_SEEDS)
]


class ExtractOptions(Recipe):
    """How embeddings are computed and stored; see `medplus.extract`. Fine-tunings need none."""

    precision: Precision | Literal["auto"] = "auto"
    dtype: StoreDtype = "float32"
    feature: str = PRELOGITS
    batch_size: Annotated[int, Field(ge=1)] | None = None


class Knn(KnnRecipe):
    """The kNN protocol of a grid: the recipe, and what searches."""

    k: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(several), Field(min_length=1)
    ] = KnnRecipe.model_fields["k"].default
    backend: Literal["auto", "faiss", "torch"] = "auto"


class Probe(BaseModel):
    """The probe protocol of a grid: a recipe by name, with its fields settled."""

    model_config = ConfigDict(frozen=True)

    recipe: ProbeRecipe


class Finetune(BaseModel):
    """The fine-tuning protocol of a grid: a recipe with its fields settled.

    Attributes
    ----------
    name : str
        ``paper``, ``modern`` or the path of the recipe's YAML file.
    changes : dict
        The fields that the grid changes.
    batch_size : int or "auto" or None
        As for `medplus.finetune`.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    changes: dict[str, Any]
    batch_size: int | Literal["auto"] | None
    recipe: FinetuneRecipe


class Exclusion(BaseModel):
    """Cells that are left out: those that match all that is given.

    In a grid's file, ``all`` is everything of that grid.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: Datasets = ()
    sizes: Sizes = ()
    backbones: Backbones = ()
    protocols: Annotated[tuple[Protocol, ...], BeforeValidator(several)] = ()
    seeds: Seeds = ()

    def covers(self, spec: ExtractSpec, protocol: Protocol, seed: int | None) -> bool:
        """Tell whether a run is left out; one that has no seed is not, where seeds are given."""
        asked: list[tuple[Sequence[Any], Any]] = [
            (self.datasets, spec.dataset),
            (self.sizes, spec.size),
            (self.backbones, spec.backbone),
            (self.protocols, protocol),
            (self.seeds, seed),
        ]
        return all(value in wanted for wanted, value in asked if wanted)


class Grid(BaseModel):
    """Everything that a sweep is to run.

    Attributes
    ----------
    datasets : tuple of str
        MedMNIST flags or paths.
    sizes : tuple of int
        Sizes in pixels; files given by path have their own, folders do not.
    backbones : tuple of str
        The paper's ten, any timm name, or folders of fine-tuned runs.
    weights : str
        ``pretrained``, ``none``, a file, or a folder of pretrained weights.
    fit : {"pad", "resize", "native"} or None
    seeds : tuple of int
        For probes and fine-tunings.
    extract : ExtractOptions
    knn, probe, finetune : recipes, or None for protocols that are not to run
    exclude : tuple of Exclusion
    """

    model_config = ConfigDict(frozen=True)

    datasets: tuple[str, ...]
    sizes: tuple[int, ...]
    backbones: tuple[str, ...]
    weights: str
    fit: Fit | None
    seeds: tuple[int, ...]
    extract: ExtractOptions
    knn: Knn | None
    probe: Probe | None
    finetune: Finetune | None
    exclude: tuple[Exclusion, ...]

    def specs(self) -> Iterator[ExtractSpec]:
        """Yield the embeddings of every dataset, size and backbone, in the order of the file.

        A size is None where a file has its own; precision is None where each machine has its own.
        """
        for dataset in self.datasets:
            any_size = dataset_sources.resolve(dataset).any_size
            sizes: Sequence[int | None] = self.sizes if any_size else (None,)
            for size, backbone in product(sizes, self.backbones):
                yield self._spec(dataset, size, backbone)

    def _spec(self, dataset: str, size: int | None, backbone: str) -> ExtractSpec:
        extract = self.extract
        trained = backbone_sources.is_trained(backbone)
        if backbone == PIXELS:
            return ExtractSpec(dataset, size, backbone, dtype=extract.dtype)
        return ExtractSpec(
            dataset,
            size,
            backbone,
            weights=PRETRAINED if trained else self.weights,
            fit=self.fit or (None if trained else "pad"),
            feature=extract.feature,
            precision=None if extract.precision == AUTO else extract.precision,
            dtype=extract.dtype,
        )

    def only(self, spec: ExtractSpec) -> Grid:
        """Return the part of the grid that is one dataset, size and backbone."""
        sizes = self.sizes if spec.size is None else (spec.size,)
        part = {"datasets": (spec.dataset,), "sizes": sizes, "backbones": (spec.backbone,)}
        return self.model_copy(update=part)

    def includes(self, spec: ExtractSpec, protocol: Protocol, seed: int | None = None) -> bool:
        """Tell whether a run belongs to the grid."""
        return not any(exclusion.covers(spec, protocol, seed) for exclusion in self.exclude)

    def seeds_of(self, spec: ExtractSpec, protocol: Protocol) -> tuple[int, ...]:
        """Return the seeds that the runs of a protocol have."""
        return tuple(seed for seed in self.seeds if self.includes(spec, protocol, seed))

    def is_empty(self) -> bool:
        """Tell whether the exclusions leave nothing."""
        return not any(
            (self.knn is not None and self.includes(spec, "knn"))
            or (self.probe is not None and self.seeds_of(spec, "probe"))
            or (self.finetune is not None and self.seeds_of(spec, "finetune"))
            for spec in self.specs()
        )

"""The grid: what a sweep is to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from medplus.backbones import catalog as backbone_catalog
from medplus.backbones.finetuned import is_finetuned
from medplus.backbones.weights import NONE, PRETRAINED
from medplus.config import (
    FinetuneRecipe,
    KnnRecipe,
    ProbeRecipe,
    Recipe,
)
from medplus.datasets import catalog as dataset_catalog
from medplus.datasets import sources
from medplus.runs.record import Protocol
from medplus.vocabulary import PAPER_SEEDS, SIZES, Fit, Precision, StoreDtype

ALL = "all"
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
AUTO = "auto"
WORDS = (PRETRAINED, NONE)
"""What weights may be besides a file."""


def several(value: Any) -> Any:
    """Let one value stand for a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def _expanded(
    everything: Sequence[Any], canonical: Callable[[str], str] = lambda name: name
) -> BeforeValidator:
    """Replace ``all``, name things by one name each, and drop repetitions."""

    def expand(value: Any) -> Any:
        items = [i for item in several(value) for i in (everything if item == ALL else [item])]
        named = [canonical(i) if isinstance(i, str) else i for i in items]
        return [item for i, item in enumerate(named) if item not in named[:i]]

    return BeforeValidator(expand)


def in_full(path: str) -> str:
    """Return an absolute path: workers have other working folders."""
    return str(Path(path).absolute())


def _dataset_name(name: str) -> str:
    ref = sources.find(name)
    return name if ref is None else ref.spelling


def _backbone_name(name: str) -> str:
    if is_finetuned(name):
        return in_full(name)
    return SHORT_NAMES.get(name, name)


SHORT_NAMES = {tag: name for name, tag in backbone_catalog.PAPER.items()}
Datasets = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    _expanded(dataset_catalog.FLAGS, _dataset_name),
]
Sizes = Annotated[tuple[Annotated[int, Field(ge=1, strict=True)], ...], _expanded(SIZES)]
Backbones = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    _expanded(tuple(backbone_catalog.PAPER), _backbone_name),
]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, lt=2**63, strict=True)], ...], _expanded(PAPER_SEEDS)
]


class ExtractOptions(Recipe):
    """How embeddings are computed and stored; see `medplus.extract`. Fine-tunings need none."""

    precision: Precision | Literal["auto"] = "auto"
    dtype: StoreDtype = "float32"
    feature: str = backbone_catalog.PRELOGITS
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

    def covers(self, cell: Cell, protocol: Protocol, seed: int | None) -> bool:
        """Tell whether a run is left out; one that has no seed is not, where seeds are given."""
        asked: list[tuple[Sequence[Any], Any]] = [
            (self.datasets, cell.dataset),
            (self.sizes, cell.size),
            (self.backbones, cell.backbone),
            (self.protocols, protocol),
            (self.seeds, seed),
        ]
        return all(value in wanted for wanted, value in asked if wanted)


class Cell(NamedTuple):
    """One dataset at one size with one backbone; size None is a file's own."""

    dataset: str
    size: int | None
    backbone: str


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

    def cells(self) -> Iterator[Cell]:
        """Yield every dataset, size and backbone, in the order of the file."""
        for dataset in self.datasets:
            any_size = sources.resolve(dataset).any_size
            sizes: Sequence[int | None] = self.sizes if any_size else (None,)
            for size, backbone in product(sizes, self.backbones):
                yield Cell(dataset, size, backbone)

    def only(self, cell: Cell) -> Grid:
        """Return the part of the grid that is one cell."""
        sizes = self.sizes if cell.size is None else (cell.size,)
        part = {"datasets": (cell.dataset,), "sizes": sizes, "backbones": (cell.backbone,)}
        return self.model_copy(update=part)

    def includes(self, cell: Cell, protocol: Protocol, seed: int | None = None) -> bool:
        """Tell whether a run belongs to the grid."""
        return not any(exclusion.covers(cell, protocol, seed) for exclusion in self.exclude)

    def seeds_of(self, cell: Cell, protocol: Protocol) -> tuple[int, ...]:
        """Return the seeds that a cell's runs of a protocol have."""
        return tuple(seed for seed in self.seeds if self.includes(cell, protocol, seed))

    def is_empty(self) -> bool:
        """Tell whether the exclusions leave nothing."""
        return not any(
            (self.knn is not None and self.includes(cell, "knn"))
            or (self.probe is not None and self.seeds_of(cell, "probe"))
            or (self.finetune is not None and self.seeds_of(cell, "finetune"))
            for cell in self.cells()
        )

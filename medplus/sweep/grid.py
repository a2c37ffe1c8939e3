"""The grid: what a sweep is to run, checked as it is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from medplus.backbones import sources as backbone_sources
from medplus.config import Recipe, as_tuple
from medplus.datasets import sources as dataset_sources
from medplus.errors import MedplusError, UsageError, fault, nearest, value_fault
from medplus.run.record import Protocol
from medplus.spec import AUTO, PIXELS, PRELOGITS, PRETRAINED, ExtractSpec
from medplus.sweep.axes import ALL, AXES, axis, spell
from medplus.sweep.protocols import NO_FEATURE_TO_TRAIN, PROTOCOLS, Protocols
from medplus.vocabulary import PAPER_SEEDS, Fit, Precision, StoreDtype
from medplus.yamlfile import Place, first_fault, read_model

PAD: Fit = "pad"
Part = dict[str, tuple[Any, ...]]
"""A part of a grid: of some axes, some of the grid's values."""

_Name = Annotated[str, Field(min_length=1)]
_Size = Annotated[int, Field(ge=1, strict=True)]
_Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
_SOME = Field(min_length=1)


class ExtractOptions(Recipe):
    """How embeddings are computed and stored; see `medplus.extract`. Fine-tunings need none."""

    precision: Annotated[
        tuple[Precision | Literal["auto"], ...], axis("precision"), _SOME
    ] = ("auto",)  # fmt: skip
    dtype: StoreDtype = "float32"
    feature: Annotated[tuple[str, ...], axis("feature"), _SOME] = (PRELOGITS,)
    batch_size: Annotated[int, Field(ge=1)] | None = None


class Grid(BaseModel):
    """Everything that a sweep is to run, as its file has it.

    Attributes
    ----------
    datasets : tuple of str
        MedMNIST flags or paths.
    sizes : tuple of int
        Sizes in pixels; files given by path have their own, folders do not.
    backbones : tuple of str
        The paper's ten, any timm name, or folders of fine-tuned runs.
    weights : tuple of str
        Each ``pretrained``, ``none``, a file, or a folder of pretrained weights.
    fit : tuple of {"pad", "resize", "native"}
        Empty for the default: ``pad``, or as a fine-tuned run was trained.
    seeds : tuple of int
        For probes and fine-tunings.
    extract : ExtractOptions
    protocols : Protocols
    exclude : tuple of dict
        Parts of the grid, by axis.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: Annotated[tuple[_Name, ...], axis("datasets"), _SOME]
    sizes: Annotated[tuple[_Size, ...], axis("sizes"), _SOME] = (28,)
    backbones: Annotated[tuple[_Name, ...], axis("backbones"), _SOME]
    weights: Annotated[tuple[_Name, ...], axis("weights"), _SOME] = (PRETRAINED,)
    fit: Annotated[tuple[Fit, ...], axis("fit")] = ()
    seeds: Annotated[tuple[_Seed, ...], axis("seeds"), _SOME] = PAPER_SEEDS
    extract: ExtractOptions = ExtractOptions()
    protocols: Protocols
    exclude: tuple[dict[str, Any], ...] = ()

    def specs(self) -> Iterator[ExtractSpec]:
        """Yield the embeddings of every dataset, size, backbone and choice, in the file's order.

        A size is None where a file has its own; precision is None where each machine has its own.
        """
        extract = self.extract
        choices = [*product(self.weights, self.fit or (None,), extract.feature, extract.precision)]
        trained = {name: backbone_sources.is_trained(name) for name in self.backbones}
        for dataset in self.datasets:
            any_size = dataset_sources.resolve(dataset).any_size
            for size, name in product(self.sizes if any_size else (None,), self.backbones):
                if name == PIXELS:
                    yield ExtractSpec(dataset, size, name, dtype=extract.dtype)
                    continue
                yield from dict.fromkeys(
                    ExtractSpec(
                        dataset,
                        size,
                        name,
                        weights=PRETRAINED if trained[name] else weights,
                        fit=fit or (None if trained[name] else PAD),
                        feature=feature,
                        precision=None if precision == AUTO else precision,
                        dtype=extract.dtype,
                    )
                    for weights, fit, feature, precision in choices
                )

    def trained_specs(self) -> Iterator[ExtractSpec]:
        """Yield what networks are trained on: specs without what is embeddings' alone."""
        of_embeddings: Any = dict.fromkeys(("feature", "precision", "dtype"))
        yield from dict.fromkeys(replace(spec, **of_embeddings) for spec in self.specs())

    def only(self, spec: ExtractSpec) -> Grid:
        """Return the part of the grid that is one dataset, size and backbone."""
        sizes = self.sizes if spec.size is None else (spec.size,)
        part = {"datasets": (spec.dataset,), "sizes": sizes, "backbones": (spec.backbone,)}
        return self.model_copy(update=part)

    def narrowed(self, values: Mapping[str, Any]) -> Grid:
        """Return the part of the grid that has some values, by axis, such as a file has.

        Raises
        ------
        UsageError
            If they are not the grid's, or nothing remains.
        """
        try:
            part: dict[str, Any] = _part_of(self.__dict__, values)
        except PydanticCustomError as error:
            raise UsageError(error.message()) from None
        others = set(PROTOCOLS) - set(part.pop("protocols", PROTOCOLS))
        extract: dict[str, Any] = {n: part.pop(n) for n in ("feature", "precision") if n in part}
        part["extract"] = self.extract.model_copy(update=extract)
        part["protocols"] = self.protocols.model_copy(update=dict.fromkeys(others))
        grid = self.model_copy(update=part)
        if grid.is_empty():
            raise UsageError("nothing of the grid is left")
        return grid

    def includes(self, spec: ExtractSpec, protocol: Protocol, seed: int | None = None) -> bool:
        """Tell whether a run belongs to the grid; one without a seed is of no seed's exclusion."""
        run = {name: getattr(spec, field) for name, field in AXES.items()}
        run |= {"precision": spec.precision or AUTO, "protocols": protocol, "seeds": seed}
        return not any(all(run[name] in part[name] for name in part) for part in self.exclude)

    def seeds_of(self, spec: ExtractSpec, protocol: Protocol) -> tuple[int, ...]:
        """Return the seeds that the runs of a protocol have."""
        return tuple(seed for seed in self.seeds if self.includes(spec, protocol, seed))

    def is_empty(self) -> bool:
        """Tell whether the exclusions leave nothing."""
        return not any(
            self.includes(spec, name) if name == "knn" else self.seeds_of(spec, name)
            for spec in self.specs()
            for name in self.protocols.names
        )

    @field_validator("exclude")
    @classmethod
    def _check_exclude(cls, entries: tuple[Part, ...], info: ValidationInfo) -> tuple[Part, ...]:
        if not {"datasets", "backbones", "extract", "protocols"} <= info.data.keys():
            return entries  # something else is at fault
        return tuple(_part_of(info.data, entry, i) for i, entry in enumerate(entries))

    @model_validator(mode="after")
    def _check(self) -> Self:
        heads = {"knn", "probe"} & {*self.protocols.names}
        feature, networks = self.extract.feature, [n for n in self.backbones if n != PIXELS]
        if feature != (PRELOGITS,) and not heads:
            raise fault(
                f"feature = '{feature[-1]}' is of no use to this grid: {NO_FEATURE_TO_TRAIN}",
                "extract",
                "feature",
            )
        fresh = [name for name in networks if not backbone_sources.is_trained(name)]
        for place, values, users in (
            (("weights",), self.weights, fresh),
            (("fit",), self.fit, networks),
            (("extract", "feature"), feature, networks),
            (("extract", "precision"), self.extract.precision, networks if heads else []),
        ):
            if len(values) > 1 and not users:
                raise fault(
                    f"several values of {place[-1]} are of no use to this grid: nothing in it has "
                    "that choice (raw pixels have none, fine-tuned runs have their own weights, "
                    "and precision is of extractions)",
                    *place,
                )
        if self.is_empty():
            raise fault("the exclusions leave nothing of the grid", "exclude")
        return self


def _part_of(grid: Mapping[str, Any], given: Mapping[str, Any], *place: int) -> Part:
    """Return the part of a grid that values stand for, which are given `place` in the file."""
    if not given:
        raise fault("an exclusion must name what it leaves out", *place)
    extract = {name: getattr(grid["extract"], name) for name in ("feature", "precision")}
    own = {name: grid[name] for name in (*AXES, "seeds") if name in grid}
    fit, protocols = grid.get("fit") or (PAD,), grid["protocols"].names
    axes: Part = {**own, **extract, "fit": fit, "protocols": protocols}
    part = {}
    for name, value in given.items():
        if name not in axes:
            raise fault(f"unknown key '{name}'{nearest(str(name), axes)}", *place, name)
        found: dict[Any, None] = {}
        for item in as_tuple(value) or ():
            meant: Iterable[Any] = axes[name] if item == ALL else (item,)
            if isinstance(item, str) and item not in (ALL, ""):
                with suppress(MedplusError):
                    meant = [*spell(name, item, grid)]
            if any(one not in axes[name] for one in meant):
                near = nearest(str(item), map(str, axes[name]))
                raise fault(f"there is no '{item}' among the grid's {name}{near}", *place, name)
            found |= dict.fromkeys(meant)
        part[name] = tuple(found)
    return part


# --- reading --------------------------------------------------------------------------------------


def read_grid(path: Path) -> Grid:
    """Read and check a grid.

    Raises
    ------
    UsageError
        If the file cannot be read, or a key, name or value in it is not allowed; names the line.
    """
    return read_model(path, "grid", Grid, _explained)


def make_grid(values: Mapping[str, Any]) -> Grid:
    """Return the grid of values such as a file has.

    Raises
    ------
    UsageError
        If one is not allowed.

    Examples
    --------
    >>> grid = make_grid({"datasets": "breastmnist", "backbones": "pixels", "protocols": "knn"})
    >>> [spec.describe() for spec in grid.specs()]
    ['breastmnist at 28 px with pixels']
    """
    try:
        return Grid.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explained(first_fault(error))[1]) from None


def _explained(first: ErrorDetails) -> tuple[Place, str]:
    """Return where a fault lies, and a sentence of what it is."""
    place = first["loc"]
    if first["type"] == "sentence":
        return (*place, *first["ctx"]["within"]), first["ctx"]["message"]
    name = str(place[-1])
    if first["type"] == "extra_forbidden":
        if len(place) == 1 and name in ExtractOptions.model_fields:
            return place, f"'{name}' stands under 'extract'"
        if place[0] == "protocols":
            return place, f"unknown protocol '{name}'{nearest(name, PROTOCOLS)}"
    if first["type"] == "missing":
        return (), f"'{name}' is missing; a grid names its {name}"
    model = ExtractOptions if place[0] == "extract" else Grid
    return place, value_fault(first, model.model_fields)

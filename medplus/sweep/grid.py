"""The grid: what a sweep is to run, checked as it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from medplus.backbones import sources as backbone_sources
from medplus.backbones.weights_folder import is_weights_folder
from medplus.config import ProbeRecipe, Recipe
from medplus.datasets import sources as dataset_sources
from medplus.errors import MedplusError, UsageError
from medplus.run.record import Protocol
from medplus.spec import AUTO, NONE, PIXELS, PRELOGITS, PRETRAINED, ExtractSpec
from medplus.sweep.axes import (
    PAD,
    Backbones,
    Datasets,
    Features,
    Fits,
    Part,
    Precisions,
    Seeds,
    Sizes,
    Weights,
    covers,
    part_of,
)
from medplus.sweep.protocols import (
    NO_FEATURE_TO_TRAIN,
    PROTOCOLS,
    Finetune,
    Knn,
    Protocols,
    fault,
    several,
)
from medplus.vocabulary import PAPER_SEEDS, SIZES, StoreDtype


class ExtractOptions(Recipe):
    """How embeddings are computed and stored; see `medplus.extract`. Fine-tunings need none."""

    precision: Precisions = ("auto",)
    dtype: StoreDtype = "float32"
    feature: Features = (PRELOGITS,)
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

    datasets: Datasets
    sizes: Sizes = (28,)
    backbones: Backbones
    weights: Weights = (PRETRAINED,)
    fit: Fits = ()
    seeds: Seeds = PAPER_SEEDS
    extract: ExtractOptions = ExtractOptions()
    protocols: Protocols
    exclude: tuple[dict[str, Any], ...] = ()

    @property
    def knn(self) -> Knn | None:
        """The kNN protocol, where it is to run."""
        return self.protocols.knn

    @property
    def probe(self) -> ProbeRecipe | None:
        """The probes' recipe, where they are to run; its seeds are the grid's."""
        return self.protocols.probe

    @property
    def finetune(self) -> Finetune | None:
        """The fine-tuning protocol, where it is to run."""
        return self.protocols.finetune

    def specs(self) -> Iterator[ExtractSpec]:
        """Yield the embeddings of every dataset, size, backbone and choice, in the file's order.

        A size is None where a file has its own; precision is None where each machine has its own.
        """
        extract = self.extract
        choices = [*product(self.weights, self.fit or (None,), extract.feature, extract.precision)]
        trained = {name: backbone_sources.is_trained(name) for name in self.backbones}
        for dataset in self.datasets:
            any_size = dataset_sources.resolve(dataset).any_size
            sizes: Sequence[int | None] = self.sizes if any_size else (None,)
            for size, name in product(sizes, self.backbones):
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
        yield from dict.fromkeys(
            ExtractSpec(spec.dataset, spec.size, spec.backbone, spec.weights, spec.fit)
            for spec in self.specs()
        )

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
            part: dict[str, Any] = part_of(_axes(self.__dict__), values)
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
        """Tell whether a run belongs to the grid."""
        return not any(covers(part, spec, protocol, seed) for part in self.exclude)

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

    @field_validator("sizes", mode="before")
    @classmethod
    def _check_sizes(cls, value: Any, info: ValidationInfo) -> Any:
        datasets = map(dataset_sources.resolve, info.data.get("datasets", ()))
        if any(ref.source == "medmnist" for ref in datasets):
            for position, size in enumerate(several(value)):
                if isinstance(size, int) and size > 0 and size not in SIZES:
                    raise fault(
                        f"MedMNIST+ has no images of {size} px; use 28, 64, 128 or 224", position
                    )
        return value

    @field_validator("weights", mode="before")
    @classmethod
    def _check_weights(cls, value: Any, info: ValidationInfo) -> Any:
        for position, name in enumerate(several(value)):
            if not isinstance(name, str) or name in (PRETRAINED, NONE, "") or Path(name).is_file():
                continue
            if not is_weights_folder(name):
                raise fault(
                    f"weights = '{name}': there is no such file; say pretrained, none, or name a "
                    "file or a folder that medplus backbones --fetch … --to wrote",
                    position,
                )
            for backbone in info.data.get("backbones", ()):
                if backbone != PIXELS and not backbone_sources.is_trained(backbone):
                    try:
                        backbone_sources.resolve(backbone, name)
                    except MedplusError as error:
                        raise fault(f"weights = '{name}': {error}", position) from None
        return value

    @field_validator("exclude")
    @classmethod
    def _check_exclude(cls, entries: tuple[Part, ...], info: ValidationInfo) -> tuple[Part, ...]:
        if not {"datasets", "backbones", "extract", "protocols"} <= info.data.keys():
            return entries  # something else is at fault
        axes = _axes(info.data)
        for i, entry in enumerate(entries):
            if not entry:
                raise fault("an exclusion must name what it leaves out", i)
        return tuple(part_of(axes, entry, i) for i, entry in enumerate(entries))

    @model_validator(mode="after")
    def _check(self) -> Self:
        heads = self.knn is not None or self.probe is not None
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


def _axes(fields: Mapping[str, Any]) -> Part:
    """Return what a grid has of every axis."""
    names = ("datasets", "sizes", "backbones", "weights", "seeds")
    return {
        **{name: fields.get(name, ()) for name in names},
        "fit": fields.get("fit") or (PAD,),
        "feature": fields["extract"].feature,
        "precision": fields["extract"].precision,
        "protocols": fields["protocols"].names,
    }

"""The grid: what a sweep is to run, checked as it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

from medplus.backbones import sources as backbone_sources
from medplus.backbones.weights_folder import is_weights_folder
from medplus.config import ProbeRecipe, Recipe
from medplus.datasets import sources as dataset_sources
from medplus.errors import MedplusError, UsageError, nearest
from medplus.run.record import Protocol
from medplus.spec import AUTO, NONE, PIXELS, PRELOGITS, PRETRAINED, ExtractSpec
from medplus.sweep.axes import (
    ALL,
    SOME,
    Backbones,
    Datasets,
    Features,
    Fits,
    Part,
    Precisions,
    Seeds,
    Sizes,
    Weights,
    check_backbone,
    check_dataset,
    check_feature_name,
    each,
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
from medplus.vocabulary import PAPER_SEEDS, SIZES, Fit, StoreDtype

PAD: Fit = "pad"


class ExtractOptions(Recipe):
    """How embeddings are computed and stored; see `medplus.extract`. Fine-tunings need none."""

    precision: Annotated[Precisions, SOME] = ("auto",)
    dtype: StoreDtype = "float32"
    feature: Annotated[Features, each(check_feature_name), SOME] = (PRELOGITS,)
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
    exclude : tuple of Part
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: Annotated[Datasets, each(check_dataset), SOME]
    sizes: Annotated[Sizes, SOME] = (28,)
    backbones: Annotated[Backbones, each(check_backbone), SOME]
    weights: Annotated[Weights, SOME] = (PRETRAINED,)
    fit: Fits = ()
    seeds: Annotated[Seeds, SOME] = PAPER_SEEDS
    extract: ExtractOptions = ExtractOptions()
    protocols: Protocols
    exclude: tuple[Part, ...] = ()

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

    def narrowed(self, part: Part) -> Grid:
        """Return the grid without what a part leaves out.

        Raises
        ------
        UsageError
            If the part names what the grid does not have, or nothing remains.
        """
        axis, problem = _stranger(part, self._axes())
        if axis:
            raise UsageError(problem)
        given = {name: value for name, value in part if value}
        protocols = given.pop("protocols", PROTOCOLS)
        without: dict[str, None] = dict.fromkeys(set(PROTOCOLS) - set(protocols))
        extract: dict[str, Any] = {n: given.pop(n) for n in ("feature", "precision") if n in given}
        grid = self.model_copy(
            update={
                **given,
                "extract": self.extract.model_copy(update=extract),
                "protocols": self.protocols.model_copy(update=without),
            }
        )
        if grid.is_empty():
            raise UsageError("nothing of the grid is left")
        return grid

    def _axes(self) -> dict[str, Any]:
        axes = {name: getattr(self, name) for name in Part.model_fields if hasattr(self, name)}
        extract = {"feature": self.extract.feature, "precision": self.extract.precision}
        return {**axes, **extract, "protocols": self.protocols.names, "fit": self.fit or (PAD,)}

    def includes(self, spec: ExtractSpec, protocol: Protocol, seed: int | None = None) -> bool:
        """Tell whether a run belongs to the grid."""
        return not any(part.covers(spec, protocol, seed) for part in self.exclude)

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

    @field_validator("exclude", mode="before")
    @classmethod
    def _spell_out(cls, entries: Any, info: ValidationInfo) -> Any:
        """Put everything of the grid for ``all``."""
        protocols = info.data.get("protocols")
        have = {**info.data, **({"protocols": protocols.names} if protocols else {})}

        def spelled_out(key: str, value: Any) -> Any:
            return have[key] if key in have and ALL in several(value) else value

        if not isinstance(entries, list):
            return entries
        return [
            {key: spelled_out(key, value) for key, value in entry.items()}
            if isinstance(entry, dict)
            else entry
            for entry in entries
        ]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for i, part in enumerate(self.exclude):
            axis, problem = _stranger(part, self._axes())
            if axis:
                raise fault(problem, "exclude", i, axis)
            if part == Part():
                raise fault("an exclusion must name what it leaves out", "exclude", i)
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


def _stranger(part: Part, axes: dict[str, Any]) -> tuple[str, str]:
    """Return the axis of a value that a part names but a grid lacks, and a sentence, or nothing."""
    for axis, has in axes.items():
        for value in getattr(part, axis, ()):
            if value not in has:
                near = nearest(str(value), [str(known) for known in has])
                return axis, f"there is no '{value}' among the grid's {axis}{near}"
    return "", ""

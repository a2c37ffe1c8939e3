"""A grid's file: read from YAML and checked, with sentences that name the line at fault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from medplus.backbones import sources as backbone_sources
from medplus.backbones.weights_folder import is_weights_folder
from medplus.config import (
    FINETUNE_RECIPES,
    finetune_recipe,
    make_recipe,
    probe_recipe,
)
from medplus.datasets import sources as dataset_sources
from medplus.errors import BackboneError, UsageError, nearest, short
from medplus.runs.record import Protocol
from medplus.spec import AUTO, PIXELS, PRELOGITS
from medplus.sweep.grid import (
    ALL,
    PROTOCOLS,
    WORDS,
    Backbones,
    Datasets,
    Exclusion,
    ExtractOptions,
    Finetune,
    Grid,
    Knn,
    Probe,
    Seeds,
    Sizes,
    in_full,
    several,
)
from medplus.vocabulary import PAPER_SEEDS, SIZES, Fit
from medplus.yamlfile import Place, read_yaml_with_lines


def _with_options(value: Any) -> Any:
    """Let a list of protocols, or one, stand for each of them with its defaults."""
    if isinstance(value, str):
        return {value: None}
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return dict.fromkeys(value)
    return value


class _File(BaseModel):
    """A grid's file as it is written."""

    model_config = ConfigDict(extra="forbid")

    datasets: Annotated[Datasets, Field(min_length=1)]
    sizes: Annotated[Sizes, Field(min_length=1)] = (28,)
    backbones: Annotated[Backbones, Field(min_length=1)]
    weights: Annotated[str, Field(min_length=1)] = "pretrained"
    fit: Fit | None = None
    seeds: Annotated[Seeds, Field(min_length=1)] = PAPER_SEEDS
    extract: ExtractOptions = ExtractOptions()
    protocols: Annotated[
        dict[Protocol, dict[str, Any] | None], BeforeValidator(_with_options), Field(min_length=1)
    ]
    exclude: tuple[Exclusion, ...] = ()

    @field_validator("exclude", mode="before")
    @classmethod
    def _spell_out(cls, entries: Any, info: ValidationInfo) -> Any:
        """Put everything of the grid for ``all``."""

        def spelled_out(key: str, value: Any) -> Any:
            return tuple(info.data[key]) if key in info.data and ALL in several(value) else value

        if not isinstance(entries, list):
            return entries
        return [
            {key: spelled_out(key, value) for key, value in entry.items()}
            if isinstance(entry, dict)
            else entry
            for entry in entries
        ]


_NO_FEATURE_TO_TRAIN = (
    "fine-tuning has no choice of feature, since it trains the network as it is, up to a head on "
    "its pre-logits"
)
_TO_BE_EXTRACTED = "the feature stands under 'extract', for knn and probe alike"
_NO_FEATURE: dict[Protocol, str] = {
    "knn": _TO_BE_EXTRACTED,
    "probe": _TO_BE_EXTRACTED,
    "finetune": _NO_FEATURE_TO_TRAIN,
}


def read_grid(path: Path) -> Grid:
    """Read and check a grid.

    Raises
    ------
    UsageError
        If the file cannot be read, or a key, name or value in it is not allowed; names the line.
    """
    values, lines = read_yaml_with_lines(path, "grid")
    return _GridReader(path, lines).read(values)


class _GridReader:
    """Turns a file's values into a grid, and faults into sentences that name their line."""

    def __init__(self, path: Path, lines: dict[Place, int]) -> None:
        self._path = path
        self._lines = lines

    def read(self, values: dict[str, Any]) -> Grid:
        try:
            file = _File.model_validate(values)
        except ValidationError as error:
            raise self._fault(error) from None
        for position, name in enumerate(several(values["datasets"])):
            self._checked(("datasets", position), _check_dataset, name)
        for position, name in enumerate(several(values["backbones"])):
            self._checked(("backbones", position), _check_backbone, name)
        for position, size in enumerate(several(values.get("sizes", ()))):
            self._checked(("sizes", position), _check_size, size, file.datasets)
        self._checked(("extract", "feature"), _check_feature, file)
        self._checked(("weights",), _check_weights, file)
        self._check_exclusions(file)
        sections = {
            name: {key: value for key, value in (options or {}).items() if value is not None}
            for name, options in file.protocols.items()
        }
        grid = Grid(
            datasets=file.datasets,
            sizes=file.sizes,
            backbones=file.backbones,
            weights=file.weights if file.weights in WORDS else in_full(file.weights),
            fit=file.fit,
            seeds=file.seeds,
            extract=file.extract,
            knn=self._section(sections, "knn", lambda options: make_recipe(Knn, options)),
            probe=self._section(sections, "probe", lambda o: _probe(o, file.seeds)),
            finetune=self._section(sections, "finetune", _finetune),
            exclude=file.exclude,
        )
        if grid.is_empty():
            raise self._at(("exclude",), "the exclusions leave nothing of the grid")
        return grid

    def _section(self, sections: dict[Protocol, dict[str, Any]], name: Protocol, make: Any) -> Any:
        if name not in sections:
            return None
        options = sections[name]
        if "seeds" in options or "seed" in options:
            raise self._at(
                ("protocols", name, "seeds" if "seeds" in options else "seed"),
                "seeds stand at the top of a grid, for all protocols",
            )
        if "feature" in options:
            raise self._at(("protocols", name, "feature"), _NO_FEATURE[name])
        try:
            return make(options)
        except UsageError as error:
            raise self._at(self._field_in(name, str(error)), str(error)) from None

    def _field_in(self, protocol: Protocol, message: str) -> Place:
        """Return the place of the field that a recipe's error begins with or quotes."""
        section: Place = ("protocols", protocol)
        fields = [p for p in self._lines if p[:2] == section and len(p) == 3]
        named = [
            place
            for place in fields
            if message.startswith((f"{place[2]} =", f"unknown {place[2]} '"))
            or f"'{place[2]}'" in message
        ]
        return named[0] if named else section

    def _checked(self, place: Place, check: Any, *arguments: Any) -> None:
        try:
            check(*arguments)
        except UsageError as error:
            raise self._at(place, str(error)) from None

    def _check_exclusions(self, file: _File) -> None:
        """Refuse an exclusion that names what the grid does not have: a slip of the pen."""
        for i, exclusion in enumerate(file.exclude):
            for field, has in (
                ("datasets", file.datasets),
                ("sizes", file.sizes),
                ("backbones", file.backbones),
                ("protocols", tuple(file.protocols)),
                ("seeds", file.seeds),
            ):
                for value in getattr(exclusion, field):
                    if value not in has:
                        near = nearest(str(value), [str(known) for known in has])
                        raise self._at(
                            ("exclude", i, field),
                            f"there is no '{value}' among the grid's {field}{near}",
                        )
            if exclusion == Exclusion():
                raise self._at(("exclude", i), "an exclusion must name what it leaves out")

    def _fault(self, error: ValidationError) -> UsageError:
        # A key that is misspelt is also missing; the slip is what helps.
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        place: Place = tuple(p for p in first["loc"] if p != "[key]")
        name = place[-1]
        if first["type"] == "extra_forbidden":
            if len(place) == 1 and name in ExtractOptions.model_fields:
                return self._at(place, f"'{name}' stands under 'extract'")
            known = _known(place[:-1])
            return self._at(place, f"unknown key '{name}'{nearest(str(name), known)}")
        if first["type"] == "missing":
            return self._at((), f"'{name}' is missing; a grid names its {name}")
        if place[0] == "protocols" and first["type"] == "literal_error":
            return self._at(place, f"unknown protocol '{name}'{nearest(str(name), PROTOCOLS)}")
        where = ".".join(str(part) for part in place)
        return self._at(place, f"{where} = {short(first['input'])}: {first['msg'].lower()}")

    def _at(self, place: Place, message: str) -> UsageError:
        while place and place not in self._lines:
            place = place[:-1]
        where = f", line {self._lines[place]}" if place else ""
        return UsageError(f"{self._path}{where}: {message}")


def _known(place: Place) -> Sequence[str]:
    """Return the keys that are allowed at a place of a grid's file."""
    models: dict[Any, type[BaseModel]] = {"extract": ExtractOptions, "exclude": Exclusion}
    return list((models[place[0]] if place else _File).model_fields)


def _check_dataset(name: str) -> None:
    if name != ALL:
        dataset_sources.resolve(name)


def _check_size(size: int | str, datasets: Sequence[str]) -> None:
    flags = any(dataset_sources.resolve(name).source == "medmnist" for name in datasets)
    if flags and size not in (ALL, *SIZES):
        raise UsageError(f"MedMNIST+ has no images of {size} px; use 28, 64, 128 or 224")


def _check_feature(file: _File) -> None:
    feature = file.extract.feature
    if feature == PRELOGITS:
        return
    from medplus.backbones.features import check_feature  # which needs torch

    check_feature(feature)
    if not {"knn", "probe"} & file.protocols.keys():
        raise UsageError(f"feature = '{feature}' is of no use to this grid: {_NO_FEATURE_TO_TRAIN}")


def _check_backbone(name: str) -> None:
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


def _check_weights(file: _File) -> None:
    weights = file.weights
    if weights in WORDS or Path(weights).is_file():
        return
    if not is_weights_folder(weights):
        raise UsageError(
            f"weights = '{weights}': there is no such file; say pretrained, none, or name a file "
            "or a folder that medplus backbones --fetch … --to wrote"
        )
    for name in file.backbones:
        if name != PIXELS and not backbone_sources.is_trained(name):
            try:
                backbone_sources.resolve(name, weights)
            except BackboneError as error:
                raise UsageError(f"weights = '{weights}': {error}") from None


def _probe(options: dict[str, Any], seeds: tuple[int, ...]) -> Probe:
    name = options.pop("recipe", "paper")
    changes = {
        field: several(value) if field in ("lr", "weight_decay") else value
        for field, value in options.items()
    }
    return Probe(recipe=probe_recipe(str(name), seeds=seeds, **changes))


def _finetune(options: dict[str, Any]) -> Finetune:
    name = str(options.pop("recipe", "paper"))
    if name not in FINETUNE_RECIPES and Path(name).is_file():
        name = in_full(name)
    changes = {field: value for field, value in options.items() if value is not None}
    batch_size = changes.pop("batch_size", None)
    settled = None if batch_size == AUTO else batch_size
    recipe = finetune_recipe(name, batch_size=settled, **changes)
    return Finetune(name=name, changes=changes, batch_size=batch_size, recipe=recipe)

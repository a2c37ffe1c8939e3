"""The axes of a grid: lists of names and numbers, spelled out and checked as they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from medplus.backbones import sources as backbone_sources
from medplus.datasets import sources as dataset_sources
from medplus.errors import MedplusError, UsageError, nearest
from medplus.run.record import Protocol
from medplus.spec import AUTO, NONE, PIXELS, PRELOGITS, PRETRAINED, ExtractSpec, check_feature
from medplus.sweep.protocols import fault, several
from medplus.vocabulary import PAPER_SEEDS, SIZES, Fit, Precision

ALL = "all"
PAD: Fit = "pad"

Part = dict[str, tuple[Any, ...]]
"""A part of a grid: of some axes, some of the grid's values."""


def _dataset(name: str) -> Iterable[str]:
    return [dataset_sources.resolve(each).spelling for each in dataset_sources.expand([name])]


def _backbone(name: str) -> Iterable[str]:
    """Ask timm only where there is a doubt."""
    if backbone_sources.is_code(name):
        raise UsageError(
            f"{name} is code, which medplus runs only where a command line names it; extract with "
            f"--backbone {name}, then run knn and probe on the store"
        )
    known = {PIXELS, *backbone_sources.PAPER, *backbone_sources.PAPER.values()}
    for each in backbone_sources.expand([name]):
        if each not in known and not backbone_sources.is_trained(each):
            backbone_sources.resolve(each)
        yield backbone_sources.portable(each)


def _weights(name: str) -> Iterable[str]:
    """Make paths absolute: workers have other working folders."""
    yield name if name in (PRETRAINED, NONE) else str(Path(name).absolute())


def _feature(name: str) -> Iterable[str]:
    if name != PRELOGITS:
        check_feature(name)
    yield name


def _or_all(everything: Iterable[Any]) -> Callable[[Any], Iterable[Any]]:
    return lambda value: everything if value == ALL else (value,)


_SPELL: dict[str, Callable[[Any], Iterable[Any]]] = {
    "datasets": _dataset,
    "sizes": _or_all(SIZES),
    "backbones": _backbone,
    "weights": _weights,
    "fit": lambda value: (value,),
    "feature": _feature,
    "precision": lambda value: (value,),
    "protocols": lambda value: (value,),
    "seeds": _or_all(PAPER_SEEDS),
}
"""Per axis: what a value in a file stands for; refuses one that cannot be."""


def _axis(name: str) -> BeforeValidator:
    """Let one value stand for a list, spell out each, drop repetitions."""

    def read(value: Any) -> Any:
        found: dict[Any, None] = {}
        for position, item in enumerate(several(value)):
            if not isinstance(item, str | int) or item == "":
                return several(value)  # which is refused
            try:
                found |= dict.fromkeys(_SPELL[name](item) if isinstance(item, str) else (item,))
            except MedplusError as error:
                raise fault(str(error), position) from None
        return [*found]

    return BeforeValidator(read)


_Name = Annotated[str, Field(min_length=1)]
_Size = Annotated[int, Field(ge=1, strict=True)]
_Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
SOME = Field(min_length=1)
Datasets = Annotated[tuple[_Name, ...], _axis("datasets"), SOME]
Sizes = Annotated[tuple[_Size, ...], _axis("sizes"), SOME]
Backbones = Annotated[tuple[_Name, ...], _axis("backbones"), SOME]
Weights = Annotated[tuple[_Name, ...], _axis("weights"), SOME]
Fits = Annotated[tuple[Fit, ...], _axis("fit")]
Features = Annotated[tuple[str, ...], _axis("feature"), SOME]
Precisions = Annotated[tuple[Precision | Literal["auto"], ...], _axis("precision"), SOME]
Seeds = Annotated[tuple[_Seed, ...], _axis("seeds"), SOME]


def part_of(axes: Mapping[str, tuple[Any, ...]], given: Mapping[str, Any], *place: int) -> Part:
    """Return the part of a grid that values such as a file has stand for; ``all`` is all of it.

    Parameters
    ----------
    axes : mapping of str to tuple
        The grid's values.
    *place : int
        Where `given` stands in the file.

    Raises
    ------
    PydanticCustomError
        If an axis or a value is none of the grid's.
    """
    part = {}
    for axis, value in given.items():
        if axis not in axes:
            raise fault(f"unknown key '{axis}'{nearest(str(axis), axes)}", *place, axis)
        found: dict[Any, None] = {}
        for item in several(value):
            spelled: Iterable[Any] = axes[axis] if item == ALL else (item,)
            if isinstance(item, str) and item not in (ALL, ""):
                with suppress(MedplusError):
                    spelled = [*_SPELL[axis](item)]
            for one in spelled:
                if one not in axes[axis]:
                    near = nearest(str(item), [str(known) for known in axes[axis]])
                    text = f"there is no '{item}' among the grid's {axis}{near}"
                    raise fault(text, *place, axis)
                found[one] = None
        part[axis] = tuple(found)
    return part


def covers(part: Part, spec: ExtractSpec, protocol: Protocol, seed: int | None) -> bool:
    """Tell whether a run belongs to a part; without a seed it does not, where seeds are given."""
    run = {
        "datasets": spec.dataset, "sizes": spec.size, "backbones": spec.backbone,
        "weights": spec.weights, "fit": spec.fit, "feature": spec.feature,
        "precision": spec.precision or AUTO, "protocols": protocol, "seeds": seed,
    }  # fmt: skip
    return all(run[axis] in values for axis, values in part.items())

"""The axes of a grid: names and numbers, spelled out and checked as they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BeforeValidator, ValidationInfo

from medplus.backbones import sources as backbone_sources
from medplus.backbones.weights import missing_weights
from medplus.backbones.weights_folder import is_weights_folder
from medplus.config import as_tuple
from medplus.datasets import sources as dataset_sources
from medplus.errors import MedplusError, UsageError, fault
from medplus.spec import NONE, PIXELS, PRELOGITS, PRETRAINED, check_feature
from medplus.vocabulary import PAPER_SEEDS, SIZES

ALL = "all"

AXES = {
    "datasets": "dataset", "sizes": "size", "backbones": "backbone", "weights": "weights",
    "fit": "fit", "feature": "feature", "precision": "precision",
}  # fmt: skip
"""The axes of embeddings: the field of a spec that each is of. Besides there are protocols and
seeds."""


def spell(axis: str, value: Any, grid: Mapping[str, Any]) -> Iterable[Any]:
    """Return what a value in a file stands for; refuse one that cannot be.

    Parameters
    ----------
    grid : mapping
        The axes that have been read before.
    """
    if axis == "datasets":
        return [dataset_sources.resolve(name).spelling for name in dataset_sources.expand([value])]
    if axis == "backbones":
        return _backbones(value)
    if axis == "weights" and value not in (PRETRAINED, NONE):
        if not (Path(value).is_file() or is_weights_folder(value)):
            raise missing_weights(Path(value))
        for name in grid.get("backbones", ()) if is_weights_folder(value) else ():
            if name != PIXELS and not backbone_sources.is_trained(name):
                backbone_sources.resolve(name, value)  # or it is told that there are none for it
        return [str(Path(value).absolute())]  # workers have other working folders
    if axis == "feature" and value != PRELOGITS:
        check_feature(value)
    if axis == "sizes" and isinstance(value, int) and value > 0:
        for name in grid.get("datasets", ()):
            dataset_sources.path(dataset_sources.resolve(name), value)  # MedMNIST+ has not each
    every: dict[str, tuple[int, ...]] = {"sizes": SIZES, "seeds": PAPER_SEEDS}
    return every[axis] if value == ALL and axis in every else (value,)


def _backbones(name: str) -> Iterator[str]:
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


def axis(name: str) -> BeforeValidator:
    """Let one value stand for a list, spell out each, drop repetitions."""

    def read(value: Any, info: ValidationInfo) -> Any:
        found: dict[Any, None] = {}
        for position, item in enumerate(as_tuple(value) or ()):
            if not isinstance(item, str | int) or item == "":
                return as_tuple(value)  # which is refused
            try:
                spelled = isinstance(item, str) or name == "sizes"
                found |= dict.fromkeys(spell(name, item, info.data) if spelled else (item,))
            except MedplusError as error:
                raise fault(str(error), position) from None
        return [*found]

    return BeforeValidator(read)

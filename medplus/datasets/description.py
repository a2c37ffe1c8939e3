"""`dataset.yaml`: what the owner of a folder says of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import ErrorDetails

from medplus.errors import value_fault
from medplus.reading import Channels, Policy
from medplus.spec import PATTERN
from medplus.vocabulary import MULTI_LABEL, Task
from medplus.yamlfile import Place, read_model

DESCRIPTION_FILE = "dataset.yaml"
DEFAULT_SIZE = 224
LARGEST_SIZE = 4096
_LONGEST_NAME = 80


def _text(value: Any) -> Any:
    """Take numbers for names: YAML reads a class ``0`` as one."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _plain(value: str) -> str:
    if len(value) > _LONGEST_NAME or not value.isprintable():
        raise ValueError(f"a name takes at most {_LONGEST_NAME} characters, all of them printable")
    return value


def _several(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _task(value: Any) -> Any:
    return MULTI_LABEL if value == "multi-label" else value


Name = Annotated[str, BeforeValidator(_text), Field(min_length=1), AfterValidator(_plain)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_several)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Fractions(BaseModel):
    """The shares of the images that the splits get."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Fraction = 0.7
    val: Fraction = 0.1
    test: Fraction = 0.2

    @model_validator(mode="after")
    def _check_sum(self) -> Fractions:
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError("train, val and test must add up to 1")
        return self


class Description(BaseModel):
    """The keys of `dataset.yaml`; all may be left out.

    Attributes
    ----------
    name : str or None
        The dataset's name; by default the folder's.
    task : Task or None
        Inferred where it is None; ``multi-label`` is short for MedMNIST's longer name.
    classes : tuple of str
        Names in the order of the class indices; by default sorted, numbers by value.
    table : str or None
        The table in the folder; by default ``labels.csv`` or ``labels.parquet``, if there is one.
    label_columns : tuple of str
        The table's label columns: one for classes, several of 0 and 1 for multi-label.
    group_column : str or None
        The column whose groups (patients) must not be torn apart; ``none`` for no groups.
    group_pattern : str or None
        Instead, a regular expression that finds the group in an image's path.
    allow_shared_groups : bool
        Take given splits although they share groups.
    size : int or None
        Height and width in pixels where the command names none.
    policy : {"squash", "crop", "pad"}
        How images that are not square are made so.
    channels : {"auto", "grey", "rgb"}
    value_range : tuple of two floats, "auto", or None
        The values that become 0 and 255, for 16-bit, float and DICOM images; ``auto`` takes them
        from the train split.
    seed : int
        Of the split.
    fractions : Fractions
    licence, citation : str
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = None
    task: Annotated[Task | None, BeforeValidator(_task)] = None
    classes: Names = ()
    table: Annotated[str, Field(min_length=1)] | None = None
    label_columns: Names = ()
    group_column: Name | None = None
    group_pattern: Annotated[str, Field(min_length=1)] | None = None
    allow_shared_groups: Annotated[bool, Field(strict=True)] = False
    size: Annotated[int, Field(ge=1, le=LARGEST_SIZE, strict=True)] | None = None
    policy: Policy = "squash"
    channels: Channels = "auto"
    value_range: tuple[float, float] | Literal["auto"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = 0
    fractions: Fractions = Fractions()
    licence: str = ""
    citation: str = ""

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _check(self) -> Description:
        if self.group_column is not None and self.group_pattern is not None:
            raise ValueError("say group_column or group_pattern, not both")
        if isinstance(self.value_range, tuple):
            low, high = self.value_range
            if not (low < high and math.isfinite(high - low)):
                raise ValueError("value_range must be [low, high] with low < high, both finite")
        for field in ("classes", "label_columns"):
            names = getattr(self, field)
            if len(set(names)) < len(names):
                raise ValueError(f"{field} names something twice")
        return self


def read_description(root: Path) -> Description:
    """Return what a folder's `dataset.yaml` says; without one, the defaults.

    Its group pattern also stands in `group_column`, as specs have it.

    Raises
    ------
    UsageError
        If the file cannot be read, or a key or value in it is not allowed; names the line.
    """
    path = root / DESCRIPTION_FILE
    if not path.is_file():
        return Description()
    said = read_model(path, "dataset", Description, _explained)
    if said.group_pattern is None:
        return said
    return said.model_copy(update={"group_column": f"{PATTERN}{said.group_pattern}"})


def _explained(fault: ErrorDetails) -> tuple[Place, str]:
    """Return where a fault lies, and a sentence of what it is."""
    place = fault["loc"]
    if fault["type"] == "extra_forbidden":
        model: type[BaseModel] = Description if len(place) == 1 else Fractions
        return place, value_fault(fault, model.model_fields)
    reason = fault["msg"].removeprefix("Value error, ")
    key = ".".join(str(part) for part in place)
    return place, f"{key}: {reason}" if key else reason

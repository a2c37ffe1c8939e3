"""Reading a grid, with sentences that name the line at fault."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from medplus.errors import UsageError, nearest, short
from medplus.sweep.axes import Part
from medplus.sweep.grid import ExtractOptions, Grid
from medplus.sweep.protocols import PROTOCOLS
from medplus.yamlfile import Place, read_yaml_with_lines


def read_grid(path: Path) -> Grid:
    """Read and check a grid.

    Raises
    ------
    UsageError
        If the file cannot be read, or a key, name or value in it is not allowed; names the line.
    """
    values, lines = read_yaml_with_lines(path, "grid")
    try:
        return Grid.model_validate(values)
    except ValidationError as error:
        place, message = _explained(error)
    while place and place not in lines:
        place = place[:-1]
    where = f", line {lines[place]}" if place else ""
    raise UsageError(f"{path}{where}: {message}")


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
    return _made(Grid, values)


def make_part(values: Mapping[str, Any]) -> Part:
    """Return a part of a grid; as `make_grid`."""
    return _made(Part, values)


ModelT = TypeVar("ModelT", bound=BaseModel)


def _made(model: type[ModelT], values: Mapping[str, Any]) -> ModelT:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explained(error)[1]) from None


def _explained(error: ValidationError) -> tuple[Place, str]:
    """Return where a fault lies, and a sentence of what it is."""
    # A key that is misspelt is also missing; the slip is what helps.
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    place: Place = first["loc"]
    if first["type"] == "sentence":
        return (*place, *first["ctx"]["within"]), first["ctx"]["message"]
    name = place[-1]
    if first["type"] == "extra_forbidden":
        if len(place) == 1 and name in ExtractOptions.model_fields:
            return place, f"'{name}' stands under 'extract'"
        if place[0] == "protocols":
            return place, f"unknown protocol '{name}'{nearest(str(name), PROTOCOLS)}"
        return place, f"unknown key '{name}'{nearest(str(name), _known(place[:-1]))}"
    if first["type"] == "missing":
        return (), f"'{name}' is missing; a grid names its {name}"
    where = ".".join(part for part in place if isinstance(part, str))
    return place, f"{where} = {short(first['input'])}: {first['msg'].lower()}"


def _known(place: Place) -> list[str]:
    """Return the keys that are allowed at a place of a grid's file."""
    models: dict[Any, type[BaseModel]] = {"extract": ExtractOptions, "exclude": Part}
    return list((models[place[0]] if place else Grid).model_fields)

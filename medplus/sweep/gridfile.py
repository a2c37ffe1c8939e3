"""Reading a grid, with sentences that name the line at fault."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medplus.errors import UsageError, nearest, short
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
    try:
        return Grid.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explained(error)[1]) from None


def _explained(error: ValidationError) -> tuple[Place, str]:
    """Return where a fault lies, and a sentence of what it is."""
    # A key that is misspelt is also missing; the slip is what helps.
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    place: Place = first["loc"]
    if first["type"] == "sentence":
        return (*place, *first["ctx"]["within"]), first["ctx"]["message"]
    name = str(place[-1])
    if first["type"] == "extra_forbidden":
        if len(place) == 1 and name in ExtractOptions.model_fields:
            return place, f"'{name}' stands under 'extract'"
        if place[0] == "protocols":
            return place, f"unknown protocol '{name}'{nearest(name, PROTOCOLS)}"
        known = ExtractOptions if place[0] == "extract" else Grid
        return place, f"unknown key '{name}'{nearest(name, known.model_fields)}"
    if first["type"] == "missing":
        return (), f"'{name}' is missing; a grid names its {name}"
    where = ".".join(part for part in place if isinstance(part, str))
    return place, f"{where} = {short(first['input'])}: {first['msg'].lower()}"

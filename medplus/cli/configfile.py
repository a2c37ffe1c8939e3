"""Reading a command's options from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from medplus.errors import UsageError, nearest, short
from medplus.yamlfile import read_yaml


def read_config(
    path: Path, known: Mapping[str, click.Parameter], ctx: click.Context, *, blank: bool = False
) -> dict[str, Any]:
    """Return a config file's values by parameter name, checked against a command's options.

    Keys are the options' names as on the command line, with ``_`` or ``-``.

    Parameters
    ----------
    blank : bool
        Whether a key may be left without a value, and is then not given.

    Raises
    ------
    UsageError
        If the file cannot be read, is not a mapping, or has an unknown key or an invalid value.
    """
    by_option = {
        option.lstrip("-").replace("-", "_"): parameter
        for parameter in known.values()
        for option in parameter.opts
        if option.startswith("--")
    }
    values = {}
    for key, value in read_yaml(path, "config").items():
        if blank and (value is None or not str(value).strip()):
            continue
        option = key.replace("-", "_")
        if option not in by_option:
            known_names = ", ".join(sorted(by_option))
            raise UsageError(
                f"{path}: unknown key '{key}'{nearest(option, by_option)} (known: {known_names})"
            )
        parameter = by_option[option]
        values[str(parameter.name)] = _checked(path, key, value, parameter, ctx)
    return values


def _checked(
    path: Path, key: Any, value: Any, parameter: click.Parameter, ctx: click.Context
) -> Any:
    option = parameter if isinstance(parameter, click.Option) else None
    repeats = option is not None and option.multiple
    items = value if repeats and isinstance(value, list) else [value]
    for item in items:
        if item is None:
            raise UsageError(f"{path}: '{key}' has no value; give one, or leave the key out")
        if isinstance(item, list | dict):
            number = "one value or a list of values" if repeats else "one value"
            raise UsageError(f"{path}: '{key}' takes {number}, not {short(item)}")
        if isinstance(item, bool) and not (option is not None and option.is_flag):
            raise UsageError(
                f"{path}: '{key}' takes text or a number, but YAML reads its value as {item}; "
                "put it in quotes"
            )
    try:
        if repeats:
            value = [str(item) for item in items]
        parameter.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise UsageError(f"{path}: '{key}': {error.message}") from None
    return value

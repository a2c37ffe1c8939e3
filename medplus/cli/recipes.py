"""Recipe fields as command-line options: names, types and help come from the recipe itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from medplus import remembered
from medplus.cli.options import together
from medplus.cli.output import Command

if TYPE_CHECKING:
    from medplus.config import Recipe


Flag = tuple[str, str | list[str], str]
"""A field's name; ``bool``, ``int``, ``float`` or the words that it may be; and the help."""


def finetune_options(command: Command) -> Command:
    """Add an option for every field of a fine-tuning's recipe; one that is not given is None.

    The help shows what each recipe has by default. They are remembered on this machine, for
    pydantic takes longer to import than all else that ``--help`` needs.
    """
    root = Path(__file__).parents[1]
    sources = [root / "config.py", root / "vocabulary.py", Path(__file__)]
    key = str([(str(path), remembered.stamp(path.stat())) for path in sources])
    known = remembered.recall("flags", key)
    if known is None:
        known = {"finetune": _flags()}
        remembered.remember("flags", key, known)
    return together(*(_option(*flag) for flag in known["finetune"]))(command)


def _flags() -> list[Flag]:
    from medplus.config import FINETUNE_RECIPES, FinetuneRecipe, finetune_recipe

    recipes = {name: finetune_recipe(name) for name in FINETUNE_RECIPES}
    return [
        (name, _kind_of(field.annotation), f"{field.description}  [{_defaults(name, recipes)}]")
        for name, field in FinetuneRecipe.model_fields.items()
        if name != "batch_size"  # which may also be auto
    ]


def _defaults(name: str, recipes: Mapping[str, Recipe]) -> str:
    values = {recipe: _shown(getattr(fields, name)) for recipe, fields in recipes.items()}
    if len(set(values.values())) == 1:
        return f"default: {next(iter(values.values()))}"
    return ", ".join(f"{recipe}: {value}" for recipe, value in values.items())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _option(name: str, kind: str | list[str], text: str) -> Callable[[Command], Command]:
    flag = name.replace("_", "-")
    if kind == "bool":
        return click.option(f"--{flag}/--no-{flag}", name, default=None, help=text)
    numbers: dict[str, click.ParamType[Any]] = {"int": click.INT, "float": click.FLOAT}
    of = click.Choice(kind) if isinstance(kind, list) else numbers[kind]
    return click.option(f"--{flag}", name, type=of, help=text)


def _kind_of(annotation: Any) -> str | list[str]:
    words = {bool: "bool", int: "int"}
    return _choices(annotation) or words.get(annotation, "float")


def _choices(annotation: Any) -> list[str]:
    """Return the words of a Literal, or of a union of them."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _choices(part)]

"""Recipe fields as command-line options: names, types and help come from the recipe itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from medplus.cli.options import Command, together

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from medplus.config import Recipe


def recipe_options(
    recipes: Mapping[str, Recipe], leave_out: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Add an option for every field of some recipes of one kind; one that is not given is None.

    Parameters
    ----------
    recipes : mapping of str to Recipe
        The help shows what each of them has by default.
    leave_out : collection of str
        Fields that get no option.
    """
    [kind] = {type(recipe) for recipe in recipes.values()}

    return together(
        *(
            _option(name, field, f"{field.description}  [{_defaults(name, recipes)}]")
            for name, field in kind.model_fields.items()
            if name not in leave_out
        )
    )


def _defaults(name: str, recipes: Mapping[str, Recipe]) -> str:
    values = {recipe: _shown(getattr(fields, name)) for recipe, fields in recipes.items()}
    if len(set(values.values())) == 1:
        return f"default: {next(iter(values.values()))}"
    return ", ".join(f"{recipe}: {value}" for recipe, value in values.items())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _option(name: str, field: FieldInfo, text: str) -> Callable[[Command], Command]:
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=text)
    return click.option(flag, name, type=_type_of(field.annotation), help=text)


def _type_of(annotation: Any) -> click.ParamType[Any]:
    choices = _choices(annotation)
    if choices:
        return click.Choice(choices)
    return click.INT if annotation is int else click.FLOAT


def _choices(annotation: Any) -> list[str]:
    """Return the words of a Literal, or of a union of them."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _choices(part)]

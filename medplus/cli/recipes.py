"""Recipe fields as command-line options: names, types and help come from the recipe itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin

import click

from medplus import remembered
from medplus.cli.options import together
from medplus.cli.output import Command

if TYPE_CHECKING:
    from medplus.config import Recipe


class Flag(NamedTuple):
    """One field of a recipe as an option.

    Attributes
    ----------
    name : str
        The field's.
    kind : str or list of str
        ``bool``, ``int``, ``float``, or the words that it may be.
    text : str
        The help.
    """

    name: str
    kind: str | list[str]
    text: str


def finetune_options(leave_out: Collection[str] = ()) -> Callable[[Command], Command]:
    """Add the options of `recipe_options` for all recipes of fine-tuning.

    They are remembered on this machine, for pydantic takes longer to import than all else that
    ``--help`` needs.
    """
    root = Path(__file__).parents[1]
    sources = [root / "config.py", root / "vocabulary.py", Path(__file__)]
    stats = [(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
             for path in sources if (stat := path.stat())]  # fmt: skip
    known = remembered.recall("flags", str(stats))
    if known is None:
        from medplus.config import FINETUNE_RECIPES, finetune_recipe

        flags = _flags({name: finetune_recipe(name) for name in FINETUNE_RECIPES})
        remembered.remember("flags", str(stats), {"finetune": flags})
    else:
        flags = [Flag(*flag) for flag in known["finetune"]]
    return _options(flags, leave_out)


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
    return _options(_flags(recipes), leave_out)


def _options(flags: Sequence[Flag], leave_out: Collection[str]) -> Callable[[Command], Command]:
    return together(*(_option(flag) for flag in flags if flag.name not in leave_out))


def _flags(recipes: Mapping[str, Recipe]) -> list[Flag]:
    [kind] = {type(recipe) for recipe in recipes.values()}
    return [
        Flag(name, _kind_of(field.annotation), f"{field.description}  [{_defaults(name, recipes)}]")
        for name, field in kind.model_fields.items()
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


def _option(field: Flag) -> Callable[[Command], Command]:
    flag = f"--{field.name.replace('_', '-')}"
    if field.kind == "bool":
        return click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=field.text)
    return click.option(flag, field.name, type=_type_of(field.kind), help=field.text)


def _type_of(kind: str | list[str]) -> click.ParamType[Any]:
    if isinstance(kind, list):
        return click.Choice(kind)
    return click.INT if kind == "int" else click.FLOAT


def _kind_of(annotation: Any) -> str | list[str]:
    words = {bool: "bool", int: "int"}
    return _choices(annotation) or words.get(annotation, "float")


def _choices(annotation: Any) -> list[str]:
    """Return the words of a Literal, or of a union of them."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _choices(part)]

"""Options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from medplus.cli.output import Command, reporting
from medplus.errors import UsageError
from medplus.vocabulary import SIZES, Precision

PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
AT_LEAST_1 = click.IntRange(min=1)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def together(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return one decorator that adds several options, which the help shows in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


class Comma(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """A value, or several separated by commas; the option may also be repeated."""

    def __init__(self, of: click.ParamType[Any]) -> None:
        self.of = of
        self.name = f"{of.name.removesuffix(' range')}[,…]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Split and convert each part."""
        if isinstance(value, tuple):
            return value
        text = str(value)
        # The name of a file or folder may have commas of its own.
        whole = "," in text and Path(text).exists()
        parts = [text] if whole else [part.strip() for part in text.split(",")]
        if not all(parts):
            self.fail(f"'{text}' has an empty part", param, ctx)
        return tuple(self.of.convert(part, param, ctx) for part in parts)


def seconds(text: object) -> float:
    """Return a time such as ``90s``, ``30m``, ``2h`` in seconds: the type of an option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", str(text).strip())
    if match is None:
        raise click.BadParameter(f"{text!r} is no time; say 90s, 30m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def flatten(
    ctx: click.Context, param: click.Parameter, value: Sequence[tuple[Any, ...]]
) -> tuple[Any, ...] | None:
    """Return the parts of what repeats or takes commas, each once; None if there are none."""
    flat = dict.fromkeys(item for part in value for item in part)
    return tuple(flat) or None


def named_code(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Take backbones, and a Python file among them only where the command line itself names it."""
    from medplus.backbones.sources import is_code

    value = flatten(ctx, param, value) if isinstance(value, tuple) else value
    named = () if value is None else value if isinstance(value, tuple) else (value,)
    code = next((name for name in named if is_code(name)), None)
    source = ctx.get_parameter_source(str(param.name))
    if code is not None and source is not ParameterSource.COMMANDLINE:
        raise UsageError(
            f"{code} is code, which runs only where the command line names it: leave it out of "
            f"the config file, and say {param.opts[0]} {code}"
        )
    return value


def several(
    *names: str, of: click.ParamType[Any] = click.STRING, **settings: Any
) -> Callable[[Command], Command]:
    """Return an option that repeats or takes commas; its value is a tuple, or None if not given."""
    settings.setdefault("callback", flatten)
    return click.option(*names, type=Comma(of), multiple=True, **settings)


def config_file(
    *spellings: str, text: str, keys: Collection[str] | None = None
) -> Callable[[Command], Command]:
    """Return an option that makes a YAML file's values the defaults, so that flags still win.

    Parameters
    ----------
    keys : collection of str, optional
        The parameters that a file may hold, blank where they are not given; by default all are,
        and none may be blank.
    """

    def read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
        if path is None:
            return
        from medplus.cli.configfile import read_config

        params = {p.name: p for p in ctx.command.params if p.name and p is not param}
        known = {name: p for name, p in params.items() if keys is None or name in keys}
        values = read_config(path, known, ctx, blank=keys is not None)
        ctx.default_map = {**(ctx.default_map or {}), **values}

    return click.option(
        *spellings, type=FILE, is_eager=True, expose_value=False, callback=read, help=text
    )


def common(command: Command) -> Command:
    """Add the options that every command has, and set up logging and the console."""
    text = "YAML file with this command's options; flags win over it."
    return config_file("--config", text=text)(reporting(command))


def _folder(flag: str, variable: str, default: str, text: str) -> Callable[[Command], Command]:
    """Return an option that names a folder, by flag or by environment variable."""
    return click.option(
        flag,
        variable,
        type=FOLDER,
        default=default,
        envvar=f"MEDPLUS_{flag.lstrip('-').replace('-', '_').upper()}",
        show_envvar=True,
        help=text,
    )


data_root = _folder("--data-root", "data_root", "data", "Folder of the datasets' npz files.")
store_root = _folder("--store", "store_root", "embeddings", "Root of the embedding stores.")
runs_root = _folder("--runs", "runs", "runs", "Root of the runs.")


device = click.option("--device", default="auto", help="auto, cpu, cuda or cuda:i.")
exclude = click.option(
    "--exclude",
    type=FILE,
    help="A suspects.csv of medplus audit: leave out the images whose verdict says exclude.",
)
overwrite = click.option("--overwrite", is_flag=True, help="Compute runs again that exist.")
transform = click.option(
    "--transform",
    metavar="pca:N|whiten|l2",
    help="What is done to embeddings as they are read, fitted on train alone.  [default: nothing]",
)
batch_size = click.option(
    "--batch-size", type=AT_LEAST_1, help="Images per forward.  [default: automatic]"
)


def code(name: str = "code") -> Callable[[Command], Command]:
    """Return ``--backbone`` of commands on a run, whose network a Python file may define."""
    return click.option(
        "--backbone",
        name,
        metavar="FILE.py[:FUNCTION]",
        callback=named_code,
        help="The Python file that defines the network of a RUN: it runs only when you name it.",
    )


def network_precision(default: str) -> Callable[[Command], Command]:
    """Return ``--precision`` of commands on a run's network."""
    return click.option(
        "--precision",
        type=click.Choice(["auto", *get_args(Precision)]),
        help=f"Precision of a network.  [default: {default}]",
    )


def seeds(default: str, text: str = "") -> Callable[[Command], Command]:
    """Return ``--seed``; the default is told, not set."""
    help_text = f"{text}Repeat or use commas.  [default: {default}]"
    return several("--seed", "seeds", of=click.IntRange(0, 2**63 - 1), help=help_text)


def gradual(rates: str) -> Callable[[Command], Command]:
    """Return the options of heads that have learning rates, by default these."""
    return together(
        several("--lr", "lr", of=click.FLOAT, help=f"Learning rates.  [default: {rates}]"),
        click.option(
            "--epochs", type=AT_LEAST_1, help="Passes over train, at most.  [default: 100]"
        ),
        click.option("--batch-size", type=AT_LEAST_1, help="Rows per step.  [default: 64]"),
        click.option(
            "--patience",
            type=AT_LEAST_1,
            help="Stop after so many epochs without a better val loss.  [default: 5]",
        ),
    )


def folding(command: Command) -> Command:
    """Add the options of cross-validation, and give the command `Folds` or None as ``folds``."""

    @click.option(
        "--folds",
        "n_folds",
        type=click.IntRange(min=3),
        help="Cross-validate over train and val, stratified, groups such as patients kept whole.",
    )
    @click.option("--repeats", type=AT_LEAST_1, help="Deal the folds out so often.")
    @click.option("--pool", is_flag=True, help="With --folds: over the test split too.")
    @wraps(command)
    def wrapped(n_folds: int | None, repeats: int | None, pool: bool, **given: Any) -> Any:
        from medplus.run.folds import Folds

        if n_folds is None and (pool or repeats is not None):
            raise UsageError(f"--{'pool' if pool else 'repeats'} goes with --folds; name both")
        folds = None if n_folds is None else Folds(n_folds, repeats or 1, pool)
        return command(folds=folds, **given)

    return wrapped  # type: ignore[return-value]


def place(text: str) -> Any:
    """Return a path, or a URL as it is: what --store may name."""
    from medplus.embeddings.container import to_place

    return to_place(text)


store_or_root = click.option(
    "--store",
    "store_root",
    type=place,
    metavar="PATH",
    default="embeddings",
    envvar="MEDPLUS_STORE",
    show_envvar=True,
    help="Root of the embedding stores; or one store: a .zarr folder, a .zarr.zip file or a "
    "URL such as s3://bucket/NAME.zarr.",
)
"""``--store`` that may also name one store."""


def names(default_size: str, *, required: bool = True) -> Callable[[Command], Command]:
    """Add the selectors ``--dataset``, ``--size`` and ``--backbone``."""
    return together(
        several(
            "--dataset",
            "datasets",
            required=required,
            help="MedMNIST flag, path of an npz file or a folder of images, or all; repeat or "
            "use commas.",
        ),
        _sizes(f"28, 64, 128, 224 or all.  [default: {default_size}]"),
        several(
            "--backbone",
            "backbones",
            required=required,
            callback=named_code,
            help="timm name, alexnet, pixels, the folder of a fine-tuned run, a Python file "
            "(FILE.py[:FUNCTION]), or all (the paper's ten); repeat or use commas.",
        ),
    )


def _sizes(text: str, **settings: Any) -> Callable[[Command], Command]:
    """Return ``--size``, whose value is a tuple of numbers, or None if not given."""
    return several("--size", "sizes", callback=_expand_sizes, help=text, **settings)


def _expand_sizes(
    ctx: click.Context, param: click.Parameter, value: Sequence[tuple[str, ...]]
) -> tuple[int, ...] | None:
    """Turn sizes into numbers; ``all`` is MedMNIST+'s four."""
    sizes: dict[int, None] = {}
    for text in flatten(ctx, param, value) or ():
        if text == "all":
            sizes |= dict.fromkeys(SIZES)
        elif text.isdecimal() and int(text) > 0:
            sizes[int(text)] = None
        else:
            raise UsageError(f"--size {text} is not a size; use 28, 64, 128, 224 or all")
    return tuple(sizes) or None


pixel_sizes = _sizes("28, 64, 128, 224 or all; repeat or use commas.", default=["28"])
"""``--size`` of files: 28 px where none is given."""

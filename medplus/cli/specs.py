"""The options that make an `ExtractSpec`, for the commands that extract, select or train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from medplus.cli import options
from medplus.cli.output import Command
from medplus.errors import UsageError
from medplus.spec import AUTO, PATTERN, ExtractSpec, specs
from medplus.vocabulary import Fit, Precision, StoreDtype

if TYPE_CHECKING:
    from medplus.embeddings.container import Place
    from medplus.embeddings.store import EmbeddingStore

_ANY = "any"
_CHOICES: dict[str, tuple[dict[str, Any], str, str]] = {
    "weights": (
        {},
        "pretrained, none (random), a .safetensors or .pth file, or a folder that medplus "
        "backbones --fetch … --to wrote; a fine-tuned run has its own.",
        "pretrained",
    ),
    "precision": (
        {"type": click.Choice([AUTO, *get_args(Precision)])},
        "Precision of the computation; auto is what the hardware runs natively.",
        AUTO,
    ),
    "dtype": (
        {"type": click.Choice(get_args(StoreDtype))},
        "How embeddings are stored.",
        "float32",
    ),
    "fit": (
        {"type": click.Choice(get_args(Fit))},
        "Zero-pad to the backbone's input (the paper's way), resize to it, or neither.",
        "pad, or as a fine-tuned run was trained",
    ),
    "feature": (
        {"metavar": "prelogits|cls|avg|cls+avg|pooler|layer:NAME"},
        "What of the network is stored: what its classifier would see; class token, mean of the "
        "patch tokens, or both; or the averaged output of a module inside.",
        "prelogits",
    ),
    "exclude": (
        {"type": click.Path(dir_okay=False)},
        "A suspects.csv of medplus audit: leave out the images whose verdict says exclude.",
        "none",
    ),
    "corruption": (
        {"metavar": "NAME:SEVERITY"},
        "Embed the test images alone, made worse as in MedMNIST-C, such as gaussian_noise:3; "
        "medplus robust does so for all.",
        "none",
    ),
    "group_column": (
        {"metavar": "NAME"},
        "Of a folder of images: the column of its table whose groups, such as patients, stay in "
        "one split, or none. The split remembers it.",
        "dataset.yaml's, else a column that looks like patients",
    ),
}
"""Per choice of a spec: settings of its option, what it does, and what an extraction takes."""

EXTRACT = tuple(_CHOICES)
TRAIN = ("weights", "fit", "exclude", "group_column")
SELECT = ("weights", "precision", "dtype", "fit", "feature")
_SELECTORS = ("datasets", "sizes", "backbones", *SELECT, "key", "data_root", "store_root")


def choices(*names: str, default: str | None = None) -> Callable[[Command], Command]:
    """Add the options of some choices; what is not given stays None.

    Parameters
    ----------
    default : str, optional
        What the help says of a choice that is not made; by default what an extraction takes.
    """

    def add(command: Command) -> Command:
        if "group_column" in names:
            command = _with_group_pattern(command)
        for name in reversed(names):
            settings, text, own = _CHOICES[name]
            flag = f"--{name.replace('_', '-')}"
            help_text = f"{text}  [default: {default or own}]"
            command = click.option(flag, name, help=help_text, **settings)(command)
        return command

    return add


def axes(*names: str) -> Callable[[Command], Command]:
    """Add the options of some choices, each of which may have several values."""
    added = []
    for name in names:
        settings, text, own = _CHOICES[name]
        help_text = f"{text} Repeat or use commas.  [default: {own}]"
        look = {key: value for key, value in settings.items() if key != "type"}
        of = settings.get("type", click.STRING)
        added.append(options.several(f"--{name}", name, of=of, help=help_text, **look))
    return options.together(*added)


def _with_group_pattern(command: Command) -> Command:
    """Add ``--group-pattern``, another way to say the group column."""

    @click.option(
        "--group-pattern",
        metavar="REGEX",
        help="Instead: a regular expression that finds the group in an image's path below the "
        "folder, such as '(patient\\d+)'; its first group counts, or all that it matches.",
    )
    @wraps(command)
    def wrapped(*args: Any, group_pattern: str | None, **given: Any) -> Any:
        if group_pattern is not None:
            if given["group_column"] is not None:
                raise UsageError("say --group-column or --group-pattern, not both")
            given["group_column"] = f"{PATTERN}{group_pattern}"
        return command(*args, **given)

    return wrapped  # type: ignore[return-value]


def making(*names: str) -> Callable[[Command], Command]:
    """Add the options that name data and backbones, and these choices; give it all as ``specs``."""

    def add(command: Command) -> Command:
        @options.names(default_size="28; a file's own; a folder's, else 224")
        @choices(*names)
        @wraps(command)
        def wrapped(**given: Any) -> Any:
            said = {name: given.pop(name) for name in ("datasets", "sizes", "backbones", *names)}
            return command(specs=to_specs(**said), **given)

        return wrapped  # type: ignore[return-value]

    return add


def selecting(command: Command) -> Command:
    """Add the options that select stores, and give the command these stores as ``stores``."""

    @options.names(default_size=_ANY, required=False)
    @choices(*SELECT, default=_ANY)
    @click.option("--key", help="The start of a store's key, as `medplus store ls` shows it.")
    @click.option(
        "--data-root",
        type=options.FOLDER,
        help="Only stores of the datasets in this folder.  [default: any]",
    )
    @options.store_or_root
    @options.transform
    @options.device
    @wraps(command)
    def wrapped(device: str, transform: str | None, **given: Any) -> Any:
        selection = {name: given.pop(name) for name in _SELECTORS}
        stores = select_stores(device=device, transform=transform, **selection)
        return command(stores=stores, device=device, **given)

    return wrapped  # type: ignore[return-value]


def to_specs(
    datasets: Sequence[str],
    sizes: Sequence[int] | None,
    backbones: Sequence[str],
    **chosen: Any,
) -> list[ExtractSpec]:
    """Return a spec for every dataset, size and backbone that the options name.

    Raises
    ------
    UsageError
        If a pattern matches no backbone, or too many.
    """
    from medplus.backbones.sources import expand as expand_backbones
    from medplus.datasets.sources import expand as expand_datasets

    return specs(
        expand_datasets(datasets),
        sizes or (None,),
        expand_backbones(backbones),
        **chosen,
    )


def select_stores(
    *,
    store_root: Place,
    data_root: Path | None = None,
    key: str | None = None,
    device: str = "auto",
    transform: str | None = None,
    **selection: Any,
) -> list[EmbeddingStore]:
    """Return one store for every spec that the options of `selecting` name, or the one named.

    A backbone ``a+b`` names the embeddings of both side by side.
    """
    from medplus.embeddings.derived import DerivedStore
    from medplus.embeddings.select import find_stores
    from medplus.embeddings.store import is_store, open_store
    from medplus.embeddings.transform import Transform

    done = None if transform is None else Transform.parse(transform)
    missing = [name for name in ("dataset", "backbone") if not selection[f"{name}s"]]
    if len(missing) == 2 and is_store(store_root):
        only = open_store(store_root)
        return [only if done is None else DerivedStore([only], done)]
    if missing:
        raise UsageError(
            f"missing option --{missing[0]}; name what is meant, or one store with --store"
        )
    backbones = selection.pop("backbones")

    def find(names: Sequence[str]) -> list[EmbeddingStore]:
        asked = to_specs(backbones=names, **selection)
        return find_stores(store_root, asked, key=key, data_root=data_root, device=device)

    joined = {name: name.split("+") for name in backbones if "+" in name and not _exists(name)}
    if not joined and done is None:
        return find(backbones)
    found: list[EmbeddingStore] = []
    for name in backbones:
        parts = joined.get(name, [name])
        if not all(parts):
            raise UsageError(f"--backbone {name} joins nothing; write it as a+b")
        of_parts = [find([part]) for part in parts]
        if len({len(stores) for stores in of_parts}) > 1:
            raise UsageError(f"--backbone {name} joins a pattern; name each backbone in full")
        for stores in zip(*of_parts, strict=True):
            plain = len(stores) == 1 and done is None
            found.append(stores[0] if plain else DerivedStore(stores, done))
    return found


def _exists(name: str) -> bool:
    """Tell a path, whose name may have a plus of its own."""
    return Path(name.partition(":")[0]).exists()

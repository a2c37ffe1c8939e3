"""Where backbones come from: one module per kind, each the only place that knows its names.

`resolve` asks the modules of `ORDER`, first to last, whether a name is of their kind. A new kind of
backbone is a new module, named there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from medplus.backbones.catalog import ALEXNET, DEMO, PAPER, PIXELS, BackboneInfo
from medplus.backbones.sources import demo, folder, python, run
from medplus.backbones.sources.ref import BackboneRef, Source
from medplus.backbones.weights import weights_label
from medplus.backbones.weights_folder import MANIFEST, find_weights, is_weights_folder
from medplus.errors import UsageError, nearest
from medplus.spec import IMPORTED, NONE, PRETRAINED

__all__ = [
    "PAPER", "BackboneRef", "describe", "expand", "is_at_hand", "is_code", "is_pattern",
    "is_trained", "kind_of", "portable", "resolve", "source_of", "weights_files",
    "weights_label",
]  # fmt: skip

ORDER = (
    "run", "python", "pixels", "torchvision", "demo", "medical", "open_clip", "transformers",
    "folder", "hub", "timm",
)  # fmt: skip
"""Whoever claims a name first has it; timm claims what nobody else does, or refuses it."""
ALL = "all"
MOST = 32
"""A pattern that means more networks than this is hardly meant."""


def _source(name: str) -> Source:
    return cast("Source", import_module(f"{__name__}.{name}"))


def source_of(ref: BackboneRef) -> Source:
    """Return the module that makes a backbone."""
    return _source(ref.source)


def resolve(name: str, weights: str | None = None) -> BackboneRef:
    """Return what a name means, with weights.

    Parameters
    ----------
    name : str
        One of the paper's ten, ``pixels``, any timm name, a model of the hub (``hf-hub:``) or of a
        folder in timm's format (``local-dir:``), the folder of a fine-tuned run, or a Python file
        (``FILE.py[:FUNCTION]``), which is not run for this; ``hf:`` and ``open_clip:`` begin the
        names of models of transformers and open_clip.
    weights : str, optional
        ``pretrained`` (the default), ``none``, a file, or a folder of pretrained weights.

    Raises
    ------
    UsageError
        If no such backbone is known (names the nearest), or it cannot have these weights.
    BackboneError
        If the file of a run is damaged, a Python file is no Python, or a folder of weights has none
        for it.

    Examples
    --------
    >>> resolve("resnet18.a1_in1k").name, resolve("resnet18").tag
    ('resnet18', 'resnet18.a1_in1k')
    """
    if name.startswith(IMPORTED):
        raise UsageError(
            f"{name} names embeddings that were made elsewhere, which no network here computes; "
            "medplus store ls lists those that are there, medplus store import takes in others"
        )
    ref = _source(kind_of(name)).resolve(name, weights or PRETRAINED)
    label = weights_label(ref.weights_from)
    if label == PRETRAINED != ref.weights_from:
        find_weights(Path(ref.weights_from), ref.tag)  # or it is told here that there are none
    if label not in (PRETRAINED, NONE):  # called after its file, too: two files are two backbones
        ref = replace(ref, name=f"{ref.name}@{Path(label).stem}")
    return replace(ref, weights=label)


def kind_of(name: str) -> str:
    """Return the module that a name belongs to, whether there is such a backbone or not."""
    return next(source for source in ORDER if _source(source).claims(name))


def weights_files(ref: BackboneRef) -> list[Path] | None:
    """Return the files that decide the weights of a backbone, beside the versions of packages.

    None where that cannot be told: of code, which may read whatever it likes, and of libraries
    that keep their files their own way.
    """
    if ref.run_id is not None:
        return [Path(ref.spelling)]
    source: Any = source_of(ref)
    if not hasattr(source, "pretrained_files"):
        return None
    if ref.weights_from == NONE:
        return []
    if ref.weights_from == PRETRAINED:
        found: list[Path] | None = source.pretrained_files(ref)
        return found
    folder = Path(ref.weights_from)
    if not is_weights_folder(ref.weights_from):
        return [folder]
    return [folder / MANIFEST, *find_weights(folder, ref.tag).files_in(folder)]


def describe(name: str | BackboneRef) -> BackboneInfo:
    """Return what is known of a backbone, without allocating or fetching its weights."""
    ref = resolve(name) if isinstance(name, str) else name
    return _source(ref.source).describe(ref)


# --- lists of names -----------------------------------------------------------------------------


def expand(names: Iterable[str], most: int | None = MOST) -> list[str]:
    """Spell out lists of backbones: ``all`` is the paper's ten, a pattern all that match it.

    Parameters
    ----------
    most : int or None
        How many networks a pattern may mean.

    Raises
    ------
    UsageError
        If a pattern matches nothing, or too much.
    """
    found: dict[str, None] = {}
    for name in names:
        if name == ALL:
            found |= dict.fromkeys(PAPER)
        elif isinstance(name, str) and is_pattern(name):
            matching = _matching(name)
            if most is not None and len(matching) > most:
                raise UsageError(
                    f"'{name}' matches {len(matching)} backbones, of which at most {most} are "
                    f"taken at once; medplus backbones '{name}' lists them"
                )
            found |= dict.fromkeys(matching)
        else:
            found[name] = None
    return list(found)


def is_pattern(name: str) -> bool:
    """Tell a name with wildcards; a run's folder may have such signs in its name."""
    return any(sign in name for sign in "*?[") and not run.is_path(name)


def _matching(pattern: str) -> list[str]:
    """Return the backbones with pretrained weights whose name or full tag matches wildcards.

    In timm's order; what is not timm's comes first.
    """
    from medplus.backbones.lean import timm

    own = [name for name in (ALEXNET, PIXELS, *demo.available()) if fnmatchcase(name, pattern)]
    found = [*own, *timm.list_models(pattern, pretrained=True)]
    if not found:
        bare = pattern.strip("*?")
        raise UsageError(
            f"no backbone with pretrained weights matches '{pattern}'"
            f"{nearest(bare, timm.list_models()) if bare else ''} (quote a pattern, so that the "
            "shell leaves it alone)"
        )
    return found


# --- kinds of names -----------------------------------------------------------------------------


def is_code(name: str) -> bool:
    """Tell a Python file, which runs only where the command line names it; it need not exist."""
    return python.claims(name)


def is_trained(name: str) -> bool:
    """Tell a fine-tuned run, which has weights of its own."""
    return run.claims(name)


def is_at_hand(name: str) -> bool:
    """Tell a run, a file or a folder that is there from what is only a name."""
    return run.claims(name) or python.exists(name) or folder.claims(name)


def portable(name: str) -> str:
    """Return a name that means the same from any folder, and one for what has several."""
    if run.claims(name):
        return str(Path(name).absolute())
    if folder.claims(name):
        return resolve(name).spelling
    return next((short for short, tag in {**PAPER, **DEMO}.items() if tag == name), name)

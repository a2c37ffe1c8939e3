"""Fetching pretrained weights before they are needed: into the cache, and into a folder to carry.

The cache is filled by the load that an extraction does, so whatever that needs is there afterwards:
the hub's cache (``HF_HOME``), or ``TORCH_HOME`` for torchvision's AlexNet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medplus.backbones.build import load
from medplus.backbones.sources import BackboneRef, resolve, source_of
from medplus.backbones.weights_folder import write_folder_weights
from medplus.errors import BackboneError, UsageError

_SIDE = 28


@dataclass(frozen=True)
class Fetched:
    """Weights that are at hand now.

    Attributes
    ----------
    weights_sha256 : str
        Digest of the weights in memory, for images padded to 224 px, as a store's key has it.
    path : str or None
        The file in the folder to carry, if one was asked for.
    sha256, bytes
        SHA-256 and size of that file.
    """

    name: str
    tag: str
    weights_sha256: str
    path: str | None = None
    sha256: str | None = None
    bytes: int | None = None


def fetch_weights(
    names: Iterable[str],
    to: str | Path | None = None,
    tell: Callable[[Fetched], None] = lambda fetched: None,
) -> list[Fetched]:
    """Fetch the pretrained weights of backbones, and write them to a folder if one is named.

    Parameters
    ----------
    names : iterable of str
        Of the paper's ten, or any timm names.
    to : str or Path, optional
        The folder; what it holds already stays. It serves as ``weights`` elsewhere.
    tell : callable
        Told of each backbone when it is done.

    Raises
    ------
    UsageError
        If a name is unknown, or has no weights that can be fetched or carried.
    BackboneError
        If weights cannot be had or written. What was fetched before stays.
    """
    refs = [_fetchable(name) for name in dict.fromkeys(names)]  # all before the first gigabyte
    done = []
    for ref in refs:
        done.append(_fetch(ref, None if to is None else Path(to)))
        tell(done[-1])
    return done


def _fetchable(name: str) -> BackboneRef:
    ref = resolve(name)
    if not hasattr(source_of(ref), "whole"):
        raise UsageError(
            f"'{name}' has no weights on a hub: there is nothing to fetch; leave it out"
        )
    if ref.source == "timm":
        from medplus.backbones.lean import timm

        config = timm.models.get_pretrained_cfg(ref.tag)
        if config is None or not config.has_weights:
            raise UsageError(f"timm has no pretrained weights of '{name}'; leave it out")
    return ref


def _fetch(ref: BackboneRef, to: Path | None) -> Fetched:
    loaded = load(ref, _SIDE)
    found = Fetched(ref.name, ref.tag, loaded.weights_sha256)
    if to is None:
        return found
    source: Any = source_of(ref)
    path, entry = write_folder_weights(to, ref.tag, *source.whole(ref))
    again = load(resolve(ref.spelling, str(to)), _SIDE)
    if again.weights_sha256 != found.weights_sha256:
        raise BackboneError(
            f"the weights of {ref.tag} are not the same from {path} as from the hub; carry the "
            "hub's cache (HF_HOME) instead"
        )
    return replace(found, path=str(path), sha256=entry.sha256, bytes=entry.bytes)

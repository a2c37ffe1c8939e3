"""Which store a dataset's name means where no backbone is said."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from medplus.datasets import sources as datasets
from medplus.embeddings.container import Place
from medplus.embeddings.select import find_store, readable
from medplus.embeddings.store import EmbeddingStore
from medplus.spec import PIXELS, Choices, ExtractSpec

_AT_HAND = "efficientnet_lite0"
"""The network that the message says to extract: its weights need no hub."""


def newest_store(
    root: Place, dataset: str, size: int | None = None, **chosen: Unpack[Choices]
) -> tuple[EmbeddingStore, str | None]:
    """Return the newest complete store of a dataset, of a network before one of raw pixels.

    Parameters
    ----------
    root : str or Path
        Of the stores.
    dataset : str
        A flag, a path, or the name that stores know it by.
    size : int, optional
    chosen : str
        Choices of a spec that the store must have.

    Returns
    -------
    EmbeddingStore
    str or None
        Which was taken, where there were several.

    Raises
    ------
    MedplusError
        If there is none: with the command that makes one.
    """
    name, folder = datasets.name_of(dataset), Path(root)
    stores = [
        (path, info)
        for path, info in (readable(folder) if folder.is_dir() else ())
        if info.complete and ExtractSpec(name, size, info.backbone, **chosen).matches(info)
    ]
    if not stores:
        if not folder.is_dir():
            datasets.resolve(dataset)  # a name that is none is told before a missing folder
        return find_store(root, ExtractSpec(dataset, size, _AT_HAND, **chosen)), None
    stores.sort(key=lambda found: (found[1].backbone != PIXELS, found[1].created, str(found[0])))
    path, info = stores.pop()
    if not stores:
        return EmbeddingStore(path, info), None
    others = ", ".join(f"{other.backbone} at {other.size} px" for _, other in stores)
    taken = (
        f"of {len(stores) + 1} stores of {name} that of {info.backbone} at {info.size} px; "
        f"--backbone and --size name another ({others})"
    )
    return EmbeddingStore(path, info), taken

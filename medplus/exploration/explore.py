"""From a store, and what runs and an audit say of its images, to a page."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from medplus import atomic
from medplus.config import as_tuple
from medplus.embeddings.container import Place
from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.errors import writing
from medplus.exploration.atlas import command, to_parquet
from medplus.exploration.collection import Collection, collect
from medplus.exploration.maps import MapKind, tsne_map
from medplus.naming import safe_name
from medplus.progress import SAID, Progress, silent

log = logging.getLogger(__name__)

MOST_IMAGES = 20_000
"""Images of a page; of more a parquet file is made."""
_TAKES_TIME = 2_000


@dataclass(frozen=True, eq=False)
class Exploration:
    """What was written.

    Attributes
    ----------
    path : Path
        The page, or of more than 20,000 images the parquet file.
    collection : Collection
    seconds : float
    """

    path: Path
    collection: Collection
    seconds: float

    @property
    def is_page(self) -> bool:
        """Whether it is a page, and no parquet file."""
        return self.path.suffix == ".html"

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        view = self.collection
        return {
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "dataset": view.pool.dataset,
            "backbone": view.backbone,
            "n_images": len(view.pool),
            "maps": list(view.maps),
            "columns": [one.key for one in view.columns],
            "runs": [run.path for run in view.runs],
            "thumbnails": None if view.sheets is None else view.sheets.side,
            "show": None if self.is_page else command(shlex.quote(str(self.path))),
            "notes": view.notes,
            "seconds": self.seconds,
        }


def explore(
    store: EmbeddingStore | Place,
    *,
    out: str | Path | None = None,
    runs: str | Path | Sequence[str | Path] | None = None,
    suspects: str | Path | None = None,
    data_root: str | Path | None = None,
    kind: MapKind = "tsne",
    clusters: int | Literal["hdbscan"] | None = None,
    most_images: int = MOST_IMAGES,
    progress: Progress = silent,
) -> Exploration:
    """Write a page with a map of a store's images; it needs no network and no file beside it.

    Parameters
    ----------
    store : EmbeddingStore or path
        Derived ones too.
    out : str or Path, optional
        Folder of the page; by default ``explore/<dataset>/<size>``.
    runs : str, Path, or several, optional
        Runs, and roots of runs, whose predictions are shown; by default ``runs``, where it is.
    suspects : str or Path, optional
        A ``suspects.csv``; by default that of ``audit/<dataset>/<size>``, where it is.
    data_root : str or Path, optional
        Folder of the datasets' npz files; by default where the images of the store lay.
    kind : {"tsne", "pca"}
        The map: t-SNE and PCA, or PCA alone. The page has the PCA at once, and the t-SNE when that
        is computed. Of more images than a page holds always PCA.
    clusters : int or "hdbscan", optional
        So many by k-means (by default twice the classes, from 8 to 24), or as HDBSCAN finds.
    most_images : int
        Of a page; of more a parquet file for embedding-atlas is made.
    progress : Progress

    Returns
    -------
    Exploration

    Raises
    ------
    MedplusError
        If the store, a run or a table cannot be read.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> medplus.explore(store, kind="pca").path
    PosixPath('explore/breastmnist/28/pixels.html')
    """
    begin = time.monotonic()
    opened = store if isinstance(store, EmbeddingStore) else open_store(store)
    info = opened.info
    n = sum(info.n_samples.values())
    is_page = n <= most_images
    usual = Path("explore") / safe_name(info.dataset) / str(info.size)
    folder = usual if out is None else Path(out)
    path = folder / f"{safe_name(info.backbone)}{'.html' if is_page else '.parquet'}"
    with progress(f"{info.dataset} · explore", 4, "step") as advance:
        view = collect(
            opened, as_tuple(runs), suspects, data_root, clusters, is_page, lambda: advance(1)
        )
        _write(path, view)
        if is_page and kind == "tsne":
            if n > _TAKES_TIME:
                log.log(SAID, "%s has the PCA already; t-SNE takes longer", path)
            placed = tsne_map(view.features)
            if placed is not None:
                view = replace(view, maps={"t-SNE": placed, **view.maps})
                _write(path, view)
        advance(1)
    return Exploration(path, view, time.monotonic() - begin)


def _write(path: Path, view: Collection) -> None:
    from medplus.exploration.page import render

    content = render(view) if path.suffix == ".html" else to_parquet(view)
    with writing(path, "name another folder with --out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, content)

"""Importing: from a file of embeddings to a store, in two passes of bounded memory."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np

from medplus import atomic, lock
from medplus.datasets.dataset import data_digest
from medplus.embeddings import layout
from medplus.embeddings.imported.arrays import HDF5, open_arrays
from medplus.embeddings.imported.content import Content, read_content
from medplus.embeddings.imported.parquet import open_parquet
from medplus.embeddings.imported.slides import open_slides
from medplus.embeddings.imported.source import Rows, Source
from medplus.embeddings.imported.tensors import TORCH
from medplus.embeddings.info import StoreInfo, versions_of
from medplus.embeddings.store import EmbeddingStore, open_store
from medplus.embeddings.writer import WriteStatus, open_writer
from medplus.errors import StoreError, UsageError
from medplus.memory import release_pages
from medplus.naming import safe_name
from medplus.progress import Progress, silent
from medplus.spec import IMPORTED, ExtractSpec
from medplus.vocabulary import MULTI_LABEL, SPLITS, StoreDtype, Task

log = logging.getLogger(__name__)

DEFAULT_SIZE = 224
"""The size in pixels that images of unknown size are filed under: what most encoders take."""
_ENDINGS = (".npz", ".parquet", *HDF5, *TORCH)


@dataclass(frozen=True)
class Import:
    """What one import did.

    Attributes
    ----------
    status : {"imported", "resumed", "skipped"}
    seconds : float
        Wall time.
    """

    store: EmbeddingStore
    status: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the document that ``medplus store import --json`` prints."""
        return {**self.store.to_dict(), "status": self.status, "seconds": self.seconds}


def import_store(
    path: str | Path,
    dataset: str,
    backbone: str,
    size: int | None = None,
    *,
    table: str | Path | None = None,
    task: str | None = None,
    group_column: str | None = None,
    rows: Rows = "slides",
    store: str | Path = "embeddings",
    progress: Progress = silent,
) -> Import:
    """Make a store of embeddings that were made elsewhere.

    The same again is found done, and what was interrupted goes on.

    Parameters
    ----------
    path : str or Path
        A ``.npz``, ``.parquet``, ``.h5`` or ``.pt`` file, or a folder of one ``.h5`` or ``.pt`` per
        slide (see ``docs/import.md``).
    dataset, backbone : str
        What the images and the encoder are called; the store's backbone is ``imported:`` and this.
    size : int, optional
        Of the images in pixels; by default 224, which is said.
    table : str or Path, optional
        A CSV or parquet file with the labels; by default what the file itself tells, else the
        ``labels.csv`` beside it.
    task : str, optional
        By default as for a folder of images.
    group_column : str, optional
        The column whose groups, such as patients, stay in one split.
    rows : {"slides", "patches"}
        Of a folder of slides: one row per slide, the mean of its patches, or one per patch.
    store : str or Path
        Root of the stores.
    progress : Progress
        Where to report the rows that are read.

    Raises
    ------
    MedplusError
        UsageError, DatasetError or StoreError, saying what is wrong and what to do.

    Examples
    --------
    >>> import medplus
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> arrays = {"embeddings": rng.normal(size=(60, 8)), "labels": np.arange(60) % 2}
    >>> np.savez("features.npz", **arrays)
    >>> medplus.import_store("features.npz", "toy", "uni").store.info.backbone
    'imported:uni'
    """
    begin = time.monotonic()
    path, root = Path(path), Path(store)
    for flag, name in (("--dataset", dataset), ("--backbone", backbone)):
        if safe_name(name) != name:
            raise UsageError(
                f"{flag} {name}: what is imported goes by a plain name of letters, digits, '.', "
                "'_' and '-'"
            )
    task = MULTI_LABEL if task == "multi-label" else task
    if task is not None and task not in get_args(Task):
        words = ", ".join(word.partition(",")[0] for word in get_args(Task))
        raise UsageError(f"--task {task} is none of {words}")
    with _scratch(root, f"{dataset}-{backbone}") as scratch, _opened(path, rows, scratch) as found:
        place = None if table is None else Path(table)
        content = read_content(found, place, task, group_column)
        side = size or found.size or DEFAULT_SIZE
        if size is None and found.size is None:
            content.card.images += f"; filed under {side} px, as no --size says otherwise"
        content.card.say(dataset, str(path))
        values = _spool(found, scratch, progress)
        command = _command(
            path,
            dataset=dataset,
            backbone=backbone,
            size=size,
            table=place and place.absolute(),
            task=task,
            group_column=group_column,
            rows=None if rows == "slides" else rows,
        )
        info = _new_info(found, content, values, (dataset, side, backbone), command)
        made, status = _write(root, info, content, values)
    return Import(made, status, time.monotonic() - begin)


def _command(path: Path, **options: Any) -> list[str]:
    """Return the words of the command that imports the same again."""
    words = ["medplus", "store", "import", str(path.absolute())]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


@contextmanager
def _opened(path: Path, rows: Rows, scratch: Path) -> Iterator[Source]:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir():
        yield open_slides(path, rows)
    elif path.suffix not in _ENDINGS:
        raise UsageError(
            f"{path} cannot be imported: medplus reads {', '.join(_ENDINGS)}, and folders of "
            f"{' or '.join((*HDF5, *TORCH))}; of arrays in memory, "
            "numpy.savez('x.npz', embeddings=…, labels=…, names=…) makes one"
        )
    elif path.suffix == ".parquet":
        yield open_parquet(path)
    else:
        with open_arrays(path, scratch) as found:
            yield found


@contextmanager
def _scratch(root: Path, name: str) -> Iterator[Path]:
    """Make a folder under the root of the stores for what is unpacked, removed at the end."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        place = root / f"import-{name}"
        with lock.hold(root / f".import-{name}.lock", f"the import of {name} to {root}"):
            atomic.remove_leftovers(place)
            with atomic.temporary_folder(place) as folder:
                yield folder
    except OSError as error:
        raise StoreError(
            f"the import to {root} stopped ({error}): see to it that what is imported can be read, "
            "free space or choose another folder with --store, then run the same command again"
        ) from error


def _spool(found: Source, scratch: Path, progress: Progress) -> np.memmap:
    """Write all rows to a file as they are to be stored, and map it.

    Raises
    ------
    UsageError
        If an embedding is not finite, or there are other numbers of them than was said.
    """
    place = scratch / "rows"
    done = 0
    what = f"{found.path.name} · reading"
    with place.open("wb") as file, progress(what, found.n_rows, "row") as tell:
        for block in found.blocks():
            with np.errstate(over="ignore"):
                rows = np.ascontiguousarray(block, found.dtype)
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
            if len(bad):
                raise UsageError(
                    f"{found.path}: row {done + int(bad[0]):,} is not finite as {found.dtype.name} "
                    f"({len(bad):,} such rows among the next {len(rows):,}); leave them out"
                )
            file.write(rows.data)
            done += len(rows)
            tell(len(rows))
    if done != found.n_rows:
        raise UsageError(f"{found.path} holds {done:,} embeddings, not {found.n_rows:,}")
    return np.memmap(place, found.dtype, "r", shape=(done, found.dim))


def _take(values: np.memmap, rows: np.ndarray) -> np.ndarray:
    taken = np.asarray(values[rows])
    release_pages(values)
    return taken


def _digests(content: Content, values: np.memmap) -> tuple[str, str]:
    """Return what identifies the data, their names, labels and groups, and the embeddings."""
    data, embeddings = hashlib.sha256(), hashlib.sha256()
    for split in SPLITS:
        part = content.parts[split]
        for array in (part.labels.astype("<i8"), part.index.astype("<i8")):
            data.update(f"{split} {array.shape}".encode() + array.tobytes())
        for text in chain(part.names, part.groups):
            data.update(text.encode("utf-8", "surrogateescape") + b"\0")
        embeddings.update(f"{split} {len(part.rows)} {values.shape[1]} {values.dtype}".encode())
        for start in range(0, len(part.rows), layout.CHUNK_ROWS):
            embeddings.update(_take(values, part.rows[start : start + layout.CHUNK_ROWS]).data)
    return data_digest(data.hexdigest(), content.task, content.classes), embeddings.hexdigest()


def _new_info(
    found: Source,
    content: Content,
    values: np.memmap,
    names: tuple[str, int, str],
    command: list[str],
) -> StoreInfo:
    dataset, size, backbone = names
    data, embeddings = _digests(content, values)
    full = f"{IMPORTED}{backbone}"
    dtype: StoreDtype = "float16" if found.dtype.itemsize == 2 else "float32"
    spec = ExtractSpec(dataset, size, full, dtype=dtype)
    card = content.card
    return StoreInfo(
        spec=spec,
        dataset=dataset,
        task=content.task,
        classes=list(content.classes),
        data_source="imported",
        licence=content.description.licence,
        citation=content.description.citation,
        dataset_digest=data,
        backbone=full,
        tag=full,
        weights="imported",
        weights_sha256=embeddings,
        backbone_digest=embeddings,
        card_digest=card.digest,
        warnings=card.warnings,
        baseline_acc=card.baseline_acc,
        key=spec.key(data, embeddings),
        size=size,
        dataset_path=str(found.path.resolve()),
        preprocess={},
        dim=found.dim,
        n_samples={split: len(part.rows) for split, part in content.parts.items()},
        versions=versions_of("zarr", "numpy"),
        made_by=command,
    )


def _write(
    root: Path, info: StoreInfo, content: Content, values: np.memmap
) -> tuple[EmbeddingStore, str]:
    """Write what is missing of the store."""
    path, parts = info.path_under(root), content.parts
    status: WriteStatus
    with open_writer(path, info, parts) as writer:
        status = writer.status
        if status != "skipped":
            for split in SPLITS:
                of_chunk = writer.info.layout(split).rows
                for chunk in writer.missing[split]:
                    writer.commit(split, chunk, _take(values, parts[split].rows[of_chunk(chunk)]))
            writer.finish({})
    return open_store(path), "imported" if status == "extracted" else status

"""Predicting new images with a saved run: from files to a table, however many there are."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from medplus._version import __version__
from medplus.datasets.intensity import ImageFaultError
from medplus.embeddings.pipeline import read_ahead
from medplus.errors import UsageError
from medplus.naming import counted, quoted, some, utc_now
from medplus.prediction.decision import decide
from medplus.prediction.images import Images, Read, find_images
from medplus.prediction.model import Model, load_model
from medplus.prediction.rows import N_NEAREST, Columns
from medplus.prediction.scorers import TrainedHead
from medplus.prediction.table import PredictionTable
from medplus.progress import SAID, Progress, silent
from medplus.reading import Policy

log = logging.getLogger(__name__)

_BLOCK = 256
"""Images that are read, embedded and scored as one, at least."""
_PART_ROWS, _PART_S = 4096, 5.0
"""Rows are kept on the disk when there are so many, or after so many seconds."""
_LISTED = 100

Status = Literal["predicted", "resumed", "skipped"]


@dataclass(frozen=True)
class Predicted:
    """What was predicted, and where it lies.

    Attributes
    ----------
    path : Path
        The CSV file.
    status : {"predicted", "resumed", "skipped"}
    document : dict
        What is told of it in the JSON file beside it: counts, the decision, what was assumed, and
        the images that cannot be read.
    """

    path: Path
    status: Status
    document: dict[str, Any]


def predict(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path = "predictions.csv",
    *,
    positive: str | None = None,
    sensitivity: float | None = None,
    specificity: float | None = None,
    threshold: float | None = None,
    calibrated: bool = False,
    split: str | None = None,
    policy: Policy | None = None,
    store: str | Path = "embeddings",
    backbone: str | None = None,
    exclude: str | Path | None = None,
    device: str = "auto",
    precision: str | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Progress = silent,
) -> Predicted:
    """Predict images with a saved run, and write a table with a row for each.

    The columns are ``name``, ``predicted``, ``p_<class>`` …, ``decision`` where a class is named as
    positive, ``distance``, ``unlike`` and ``nearest`` where the run's embeddings of train are at
    hand, and ``error``: why an image cannot be read. An interrupted call goes on when it is
    repeated.

    Parameters
    ----------
    run : str or Path
        The folder of a run of `medplus.probe`, `medplus.knn` or `medplus.finetune`.
    images : str, Path, or several
        Files, folders with all below, and npz files.
    out : str or Path
        The CSV file; a JSON file of the same name describes it.
    positive, sensitivity, specificity, threshold
        When to call an image positive: as for `medplus.prediction.decision.decide`. Without
        `positive` nothing is decided.
    calibrated : bool
        Scale probabilities by the temperature that suits val best.
    split : {"train", "val", "test"}, optional
        Of npz files in a dataset's layout; by default test.
    policy, store, backbone, exclude, device, precision
        As for `medplus.prediction.model.load_model`.
    batch_size : int, optional
        Images per forward; automatic by default.
    overwrite : bool
        Replace a table of something else.
    progress : Progress
        Where to report images.

    Returns
    -------
    Predicted

    Raises
    ------
    MedplusError
        UsageError for a path that is no run or no image, or a table of something else; others for
        what is missing or damaged of the run.

    Examples
    --------
    >>> import medplus
    >>> store = medplus.extract("breastmnist", 28, "pixels")
    >>> [run] = medplus.probe(store, seeds=1, lr=0.01)
    >>> medplus.predict(run.path, "data/breastmnist.npz", overwrite=True).path
    PosixPath('predictions.csv')
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, not {batch_size}")
    path = Path(out)
    if path.suffix != ".csv":
        raise UsageError(f"--out {path} must end in .csv")
    found = find_images([images] if isinstance(images, str | Path) else images, split)
    model = load_model(
        run, store=store, backbone=backbone, device=device, precision=precision,
        batch_size=batch_size, policy=policy, exclude=exclude,
    )  # fmt: skip
    for note in _notes(model):
        log.log(SAID, "%s", note)
    decision = decide(
        model, positive, sensitivity=sensitivity, specificity=specificity, threshold=threshold,
        calibrated=calibrated,
    )  # fmt: skip
    columns = Columns(model, decision, calibrated)
    table = PredictionTable(path, columns.names, _settings(columns, found))
    with table.hold(overwrite) as done:
        if done is None:
            return Predicted(path, "skipped", table.description())
        status: Status = "resumed" if done else "predicted"
        start = time.perf_counter()
        with (
            closing(rows_in_blocks(columns, found, done, batch_size)) as rows,
            _keeping(table, done) as put,
            progress(_title(model), len(found) - done, "img") as advance,
        ):
            for block in rows:
                put(block)
                advance(len(block))
        seconds = time.perf_counter() - start
        document = _describe(columns, table, found)
        rate = (len(found) - done) / max(seconds, 1e-9)
        table.finish({**document, "seconds": seconds, "images_per_second": rate})
        _warn_of_faults(document)
        return Predicted(path, status, table.description())


def _notes(model: Model) -> list[str]:
    """Return what is assumed, and what is left out."""
    return [*model.notes, *([f"no distances: {model.missing}"] if model.missing else [])]


def _warn_of_faults(document: dict[str, Any]) -> None:
    n, listed = document["n_unreadable"], document["unreadable"]
    if n:
        more = "; the column error has the others" if n > 1 else ""
        log.warning(
            "%s cannot be read %s: %s%s", counted(n, "image"),
            some([one["name"] for one in listed]), quoted(listed[0]["error"]), more,
        )  # fmt: skip


def _title(model: Model) -> str:
    compute = model.extractors[0].embedder.precision
    return f"{model.record.backbone} · {model.record.protocol} · {compute}"


def _settings(columns: Columns, images: Images) -> dict[str, Any]:
    """Return all that decides what is in the table."""
    model = columns.model
    decision = columns.decision
    return {
        "run": f"{model.record.run_id}, made {model.record.created}",
        "images": images.digest,
        "reading": model.reading.model_dump(mode="json"),
        "precision": [extractor.embedder.precision for extractor in model.extractors],
        "calibration": columns.calibrated,
        "decision": None if decision is None else decision.to_dict(),
        "columns": columns.names,
    }


def rows_in_blocks(
    columns: Columns, images: Images, start: int, batch_size: int | None
) -> Generator[list[list[str]], None, None]:
    """Yield the rows of the images from number `start` on, block by block."""
    model = columns.model
    todo = len(images) - start
    nbytes = model.reading.size**2 * (1 if model.reading.channels == "grey" else 3)
    if not isinstance(model.scorer, TrainedHead):
        tuned = [extractor.tuned_for(todo, nbytes, batch_size) for extractor in model.extractors]
        model = replace(model, extractors=tuple(tuned))
    step = max(
        extractor.embedder.batch_limit if extractor.tuned is None else extractor.tuned.block
        for extractor in model.extractors
    )
    block = step * -(-_BLOCK // step)  # whole batches, as when all images are one after the other
    with (
        closing(images.read(model.reading, start)) as stream,
        closing(read_ahead(_blocks(stream, block))) as blocks,
    ):
        for first, read in blocks:
            names = images.names[start + first : start + first + len(read)]
            yield _rows_of(columns, model, names, read)


def _blocks(stream: Iterator[Read], length: int) -> Iterator[tuple[int, list[Read]]]:
    first = 0
    while block := list(islice(stream, length)):
        yield first, block
        first += len(block)


def _rows_of(
    columns: Columns, model: Model, names: Sequence[str], read: Sequence[Read]
) -> list[list[str]]:
    """Return the rows of a block, those of images that cannot be used with the reason."""
    faults = {i: str(one) for i, one in enumerate(read) if isinstance(one, ImageFaultError)}
    usable = [i for i in range(len(read)) if i not in faults]
    if not usable:
        return [columns.fault(name, faults[i]) for i, name in enumerate(names)]
    pixels = np.stack([one for one in read if not isinstance(one, ImageFaultError)])
    embeddings = model.embed(torch.from_numpy(pixels))
    finite = np.all([np.isfinite(part).all(axis=1) for part in embeddings], axis=0)
    if not finite.all():
        embeddings = [part[finite] for part in embeddings]
    kept = [i for i, fine in zip(usable, finite, strict=True) if fine]
    rows = iter(
        columns.rows([names[i] for i in kept], model.examine(embeddings, N_NEAREST)) if kept else ()
    )
    own = {i: next(rows) for i in kept}
    precision = model.extractors[0].embedder.precision
    lost = f"the network gives numbers at {precision} that are not finite"
    return [
        own[i] if i in own else columns.fault(name, faults.get(i, lost))
        for i, name in enumerate(names)
    ]


@contextmanager
def _keeping(table: PredictionTable, start: int) -> Iterator[Any]:
    """Give what takes rows; a thread writes them, also those that are left when the block ends."""
    waiting: list[list[str]] = []
    written: deque[Future[None]] = deque()
    end, last = start, time.monotonic()

    def flush() -> None:
        nonlocal waiting, end, last
        if waiting:
            written.append(thread.submit(table.add, end, waiting))
            end, waiting = end + len(waiting), []
        last = time.monotonic()

    def put(rows: list[list[str]]) -> None:
        waiting.extend(rows)
        if len(waiting) >= _PART_ROWS or time.monotonic() - last >= _PART_S:
            flush()
        while len(written) > 1:
            written.popleft().result()

    with ThreadPoolExecutor(1, "medplus-writer") as thread:
        try:
            yield put
        finally:  # also after Ctrl-C: what is computed is worth keeping
            flush()
            while written:
                written.popleft().result()


def _describe(columns: Columns, table: PredictionTable, images: Images) -> dict[str, Any]:
    """Return what is told of a table, counted over its rows."""
    model, names = columns.model, columns.names
    found = {name: names.index(name) for name in names}
    predicted, decided, unlike = Counter[str](), Counter[str](), 0
    unreadable: list[dict[str, str]] = []
    n_unreadable = 0
    for row in table.rows():
        if row[found["error"]]:
            n_unreadable += 1
            if len(unreadable) < _LISTED:
                unreadable.append({"name": row[0], "error": row[found["error"]]})
            continue
        predicted[row[1]] += 1
        if "decision" in found:
            decided[row[found["decision"]]] += 1
        if "unlike" in found:
            unlike += row[found["unlike"]] == "true"
    record = model.record
    return {
        "medplus": __version__,
        "created": utc_now(),
        "run": record.path,
        "protocol": record.protocol,
        "dataset": record.dataset,
        "size": record.size,
        "backbone": record.backbone,
        "task": record.task,
        "classes": record.classes,
        "n_images": len(images),
        "n_predicted": len(images) - n_unreadable,
        "n_unreadable": n_unreadable,
        "predicted": dict(predicted.most_common()),
        **columns.describe(),
        "decided": dict(decided),
        "n_unlike": unlike if "unlike" in found else None,
        "unreadable": unreadable,
        "notes": _notes(model),
    }


def summarise(document: dict[str, Any]) -> list[str]:
    """Return in sentences what was predicted."""
    told = ", ".join(f"{name or 'none'} {n:,}" for name, n in document["predicted"].items())
    lines = [f"{counted(document['n_predicted'], 'image')} predicted{told and f': {told}'}"]
    decision = document["decision"]
    if decision is not None:
        n = document["decided"].get("positive", 0)
        at = "no" if decision["threshold"] is None else f"{decision['threshold']:.4g}"
        lines.append(
            f"{n:,} called '{decision['positive']}', at a score of {at} or more "
            f"({decision['chosen']})"
        )
    if document["n_unlike"]:
        lines.append(
            f"{counted(document['n_unlike'], 'image')} unlike anything in train: further from it "
            f"than {document['distance']['limit']:.4g}, {document['distance']['defined']}"
        )
    return lines

"""From files to arrays on disk: each worker decodes its share into its own rows."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from medplus.datasets import decode, dicom
from medplus.datasets.decode import Glance, Reading
from medplus.datasets.files import DICOM, Sample
from medplus.datasets.intensity import ImageFaultError
from medplus.datasets.wording import count, quoted, some
from medplus.datasets.workers import in_workers, worker_count
from medplus.errors import DatasetError
from medplus.progress import Advance
from medplus.vocabulary import SPLITS, Split

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Row:
    """An image, and where its pixels go: the file of an array, and the byte at which they begin."""

    path: str
    array: Path
    offset: int


def fill_arrays(
    root: Path,
    samples: Sequence[Sample],
    labels: npt.NDArray[np.integer],
    reading: Reading,
    folder: Path,
    advance: Advance,
) -> int:
    """Write images, labels and names of every split into `folder`; return the number of channels.

    `advance` is told of the images that have been decoded.

    Raises
    ------
    DatasetError
        If images cannot be used; counts them, and names the first and what is wrong with it. What
        a header tells is told before anything is decoded.
    """
    paths = [sample.path for sample in samples]
    n_dicom = sum(path.lower().endswith(DICOM) for path in paths)
    if n_dicom:
        dicom.check_installed(root, n_dicom)
    glances = _look_at_all(root, paths, partial(_glance, root), paths, lambda n: None)
    grey = _are_grey(root, glances, reading)
    rows: list[Row] = []
    for split in SPLITS:
        members = [i for i, sample in enumerate(samples) if sample.split == split]
        rows += _lay_out(folder, split, [paths[i] for i in members], reading.size, grey)
        np.save(folder / f"{split}_labels.npy", labels[members])
    read = partial(_read, root, reading, grey)
    contents = _look_at_all(root, [row.path for row in rows], read, rows, advance)
    _warn_of_copies(root, samples, contents)
    return 1 if grey else 3


def _lay_out(folder: Path, split: Split, paths: list[str], size: int, grey: bool) -> list[Row]:
    """Write a split's names, and an array for its images; return where each is to go."""
    (folder / f"{split}_names.json").write_text(json.dumps(paths), encoding="utf-8")
    path = folder / f"{split}_images.npy"
    shape = (len(paths), size, size) if grey else (len(paths), size, size, 3)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    return [Row(name, path, array.offset + i * array[0].nbytes) for i, name in enumerate(paths)]


def _look_at_all(
    root: Path,
    paths: Sequence[str],
    look: Callable[[Item], Seen],
    items: Sequence[Item],
    advance: Advance,
) -> dict[str, Seen]:
    """Return by path what was seen of every image, or refuse those that cannot be used."""
    seen: dict[str, Seen] = {}
    faults: dict[str, str] = {}
    results = in_workers(partial(_attempt, look), items, worker_count(len(items)))
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, ImageFaultError):
            faults[path] = str(result)
        else:
            seen[path] = result
        advance(1)
    if faults:
        first, *more = sorted(faults)
        others = f"; the others: {some(more)}" if more else ""
        raise DatasetError(
            f"{root}: {count(len(faults), 'image')} cannot be used: {quoted(first)}: "
            f"{faults[first]}{others}; mend or remove them"
        )
    return seen


def _attempt(look: Callable[[Item], Seen], item: Item) -> Seen | ImageFaultError:
    try:
        return look(item)
    except ImageFaultError as error:
        return error
    except MemoryError:
        return ImageFaultError("it does not fit into memory")


def _glance(root: Path, path: str) -> Glance:
    return decode.glance(root / path)


def _read(root: Path, reading: Reading, grey: bool, row: Row) -> str:
    """Decode an image into its row, and return what identifies its content."""
    pixels, content = decode.read(root / row.path, reading, grey)
    with row.array.open("r+b") as file:
        file.seek(row.offset)
        file.write(np.ascontiguousarray(pixels).data)
    return content


def _are_grey(root: Path, glances: Mapping[str, Glance], reading: Reading) -> bool:
    """Tell whether the dataset is grey, and say what of its images differs."""
    shapes = Counter(glance.shape for glance in glances.values())
    if len(shapes) > 1:
        (low, high) = min(shapes), max(shapes)
        mixed_series = any(glance.dicom for glance in glances.values())
        log.log(
            logging.WARNING if mixed_series else logging.INFO,
            "%s: images of %d shapes (%d × %d to %d × %d px) are brought to %d px (%s)",
            root, len(shapes), low[1], low[0], high[1], high[0], reading.size, reading.policy,
        )  # fmt: skip
    if reading.channels != "auto":
        return reading.channels == "grey"
    dicom = {path: glance.colour for path, glance in glances.items() if glance.dicom}
    if len(set(dicom.values())) > 1:
        colour = sorted(path for path, is_colour in dicom.items() if is_colour)
        raise DatasetError(
            f"{root}: {len(colour)} of {count(len(dicom), 'DICOM file')} {some(colour)} have "
            "colour, the others are grey; say channels: grey or rgb in dataset.yaml, or take apart "
            "what does not belong together"
        )
    n_colour = sum(glance.colour for glance in glances.values())
    if 0 < n_colour < len(glances):
        log.info("%s: %d of %d images have colour, so all become RGB", root, n_colour, len(glances))
    return n_colour == 0


def _warn_of_copies(root: Path, samples: Sequence[Sample], contents: Mapping[str, str]) -> None:
    """Say how many images of val and test are in train too, pixel by pixel."""
    by_split: dict[Split | None, dict[str, str]] = {name: {} for name in SPLITS}
    for sample in samples:
        by_split[sample.split].setdefault(contents[sample.path], sample.path)
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        shared = set(by_split[one]) & set(by_split[other])  # type: ignore[index]
        if shared:
            n = sum(s.split == other and contents[s.path] in shared for s in samples)
            first = sorted(by_split[other][content] for content in shared)  # type: ignore[index]
            log.warning(
                "%s: %s of %s %s the same content as one of %s %s; scores will be too good",
                root, count(n, "image"), other, "has" if n == 1 else "have", one, some(first),
            )  # fmt: skip

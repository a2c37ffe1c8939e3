"""From files to arrays on disk: each worker decodes its share into its own rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from medplus.datasets import decode, dicom
from medplus.datasets.card import Card, copies
from medplus.datasets.decode import Glance, Look
from medplus.datasets.files import Sample, is_dicom
from medplus.datasets.intensity import ImageFaultError
from medplus.datasets.workers import in_workers, worker_count
from medplus.errors import DatasetError, UsageError
from medplus.naming import counted, quoted, some
from medplus.progress import Advance
from medplus.reading import RULES, Channels, Reading
from medplus.vocabulary import SPLITS, Split

_MOST_FOR_RANGE = 500
_LEAST_SHARE = 0.25

Item = TypeVar("Item")
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Row:
    """An image, and where its pixels go: the file of an array, and the byte at which they begin."""

    path: Path
    array: Path
    offset: int


def fill_arrays(
    root: Path,
    samples: Sequence[Sample],
    labels: npt.NDArray[np.integer],
    reading: Reading,
    folder: Path,
    advance: Advance,
    card: Card,
) -> Reading:
    """Write what there is of every split into `folder`; return the reading, settled.

    The card is told what the images are; `advance` is told of the images that have been decoded.

    Raises
    ------
    DatasetError
        If images cannot be used; counts them, and names the first and what is wrong with it. What
        a header tells is told before anything is decoded.
    """
    paths = [sample.path for sample in samples]
    dicom.check_installed(root, sum(map(is_dicom, paths)))
    glances = _look_at_all(root, decode.glance, {path: root / path for path in paths})
    channels = _settle_channels(root, glances, reading, card)
    train = [sample.path for sample in samples if sample.split == "train"]
    settled = _settle_range(root, train, reading).model_copy(update={"channels": channels})
    rows: dict[str, Row] = {}
    for split in SPLITS:
        members = [i for i, sample in enumerate(samples) if sample.split == split]
        rows |= _lay_out(root, folder, split, [paths[i] for i in members], settled)
        groups = [samples[i].group or "" for i in members]
        (folder / f"{split}_groups.json").write_text(json.dumps(groups), encoding="utf-8")
        np.save(folder / f"{split}_labels.npy", labels[members])
    looks = _look_at_all(root, partial(_read, settled), rows, advance)
    if settled.ends is not None:
        card.images += "; values from {:g} to {:g} become 0 to 255".format(*settled.ends)
    _warn_of_contrast(list(looks.values()), settled, card)
    contents = [looks[path].content for path in paths]
    splits = [sample.split for sample in samples]
    card.warnings += copies(contents, splits, labels.tolist(), paths)
    return settled


def read_files(paths: Sequence[Path], reading: Reading) -> npt.NDArray[np.uint8]:
    """Read files as a dataset's own were read, whose reading its stores and records keep.

    Parameters
    ----------
    paths : sequence of Path
        At least one; all are held in memory.
    reading : Reading
        Settled: that of an `ImageDataset`, a store or a record.

    Returns
    -------
    ndarray of uint8, shape (n_files, size, size) or (n_files, size, size, 3)
        To the byte what the dataset would hold of them.

    Raises
    ------
    DatasetError
        If files cannot be used; counts them, and names the first and what is wrong with it. Also
        if the reading is of other rules than `medplus.reading.RULES`.
    """
    root = paths[0].parent
    _check_readable(paths, reading)
    items = {str(path): path for path in paths}
    images = _look_at_all(root, partial(_read_further, reading), items)
    return np.stack([images[str(path)] for path in paths])


def stream_files(
    paths: Sequence[Path], reading: Reading
) -> Iterator[npt.NDArray[np.uint8] | ImageFaultError]:
    """Yield what `read_files` would read of each file, or why it cannot be used; few are held.

    Raises
    ------
    DatasetError
        If no file can be read: by other rules, or DICOM without pydicom.
    """
    if paths:
        _check_readable(paths, reading)
    look = partial(_attempt, partial(_read_further, reading))
    return in_workers(look, paths, worker_count(len(paths)))


def _check_readable(paths: Sequence[Path], reading: Reading) -> None:
    if reading.rules != RULES:
        raise DatasetError(
            f"the dataset was read by rules {reading.rules}, and this medplus reads by {RULES}; "
            "make the run or the store again"
        )
    dicom.check_installed(paths[0].parent, sum(is_dicom(path.name) for path in paths))


def _read_further(reading: Reading, path: Path) -> npt.NDArray[np.uint8]:
    decode.glance(path)
    return decode.read(path, reading)[0]


def _settle_range(root: Path, train: Sequence[str], reading: Reading) -> Reading:
    """Return the reading with numbers for ``auto``: the middle 99 % of train's values."""
    if reading.value_range != "auto":
        return reading
    some_images = train[:: max(1, len(train) // _MOST_FOR_RANGE)]
    found = _look_at_all(root, decode.quantiles, {path: root / path for path in some_images})
    values = np.concatenate(list(found.values()))
    if not values.size:
        raise UsageError(
            f"{root}: value_range: auto is for images of more than 8 bits, and these have 8; leave "
            "it out of dataset.yaml"
        )
    low, high = np.percentile(values, [0.5, 99.5])
    settled = (float(low), float(max(high, low + 1e-6)))
    return reading.model_copy(update={"value_range": settled})


def _warn_of_contrast(looks: Sequence[Look], reading: Reading, card: Card) -> None:
    """Say where most of the 256 grey levels lie idle, and how many images are of one value."""
    spans = np.array([look.span for look in looks if look.span is not None])
    if reading.ends is None and len(spans):
        low, high = np.percentile(spans[:, 0], 1), np.percentile(spans[:, 1], 99)
        whole = 1.0 if high <= 1 else 65535.0
        share = float(np.median(spans[:, 1] - spans[:, 0]) / whole)
        if share < _LEAST_SHARE:
            card.warn(
                f"{counted(len(spans), 'image')} of more than 8 bits: typically {share:.1%} of the "
                f"range 0 to {whole:g}, which becomes 0 to 255, is used ({256 * share:.0f} of 256 "
                f"grey levels); say value_range: [{low:g}, {high:g}], or auto, in dataset.yaml"
            )
    blank = sum(look.blank for look in looks)
    if blank:
        card.warn(
            f"{blank:,} of {counted(len(looks), 'image')} "
            f"{'is' if blank == 1 else 'are'} of one value only, without any contrast"
        )


def _lay_out(
    root: Path, folder: Path, split: Split, paths: list[str], reading: Reading
) -> dict[str, Row]:
    """Write a split's names, and an array for its images; return where each is to go."""
    (folder / f"{split}_names.json").write_text(json.dumps(paths), encoding="utf-8")
    file = folder / f"{split}_images.npy"
    colours = () if reading.channels == "grey" else (3,)
    shape = (len(paths), reading.size, reading.size, *colours)
    array = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    offsets = range(array.offset, array.offset + array.nbytes, array[0].nbytes)
    return {p: Row(root / p, file, offset) for p, offset in zip(paths, offsets, strict=True)}


def _look_at_all(
    root: Path,
    look: Callable[[Item], Seen],
    items: Mapping[str, Item],
    advance: Advance = lambda n: None,
) -> dict[str, Seen]:
    """Return by path what was seen of every image, or refuse those that cannot be used."""
    seen: dict[str, Seen] = {}
    faults: dict[str, str] = {}
    results = in_workers(partial(_attempt, look), [*items.values()], worker_count(len(items)))
    for path, result in zip(items, results, strict=True):
        if isinstance(result, ImageFaultError):
            faults[path] = str(result)
        else:
            seen[path] = result
        advance(1)
    if faults:
        first, *more = sorted(faults)
        others = f"; the others: {some(more)}" if more else ""
        raise DatasetError(
            f"{root}: {counted(len(faults), 'image')} cannot be used: {quoted(first)}: "
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


def _read(reading: Reading, row: Row) -> Look:
    """Decode an image into its row, and return what was seen of it."""
    pixels, look = decode.read(row.path, reading)
    with row.array.open("r+b") as file:
        file.seek(row.offset)
        file.write(np.ascontiguousarray(pixels).data)
    return look


def _settle_channels(
    root: Path, glances: Mapping[str, Glance], reading: Reading, card: Card
) -> Channels:
    """Return grey or rgb, and note what the images are."""
    shapes = Counter(glance.shape for glance in glances.values())
    low, high = min(shapes), max(shapes)
    modes = Counter(glance.mode for glance in glances.values())
    told = ", ".join(f"{n:,} {mode}" if len(modes) > 1 else mode for mode, n in modes.items())
    spread = f"{low[1]} × {low[0]}" + (f" to {high[1]} × {high[0]}" if len(shapes) > 1 else "")
    done = ""
    if set(shapes) != {(reading.size, reading.size)}:
        size = reading.size
        done = f"; brought to {size} × {size} px ({reading.policy})"
        larger = sum(n for shape, n in shapes.items() if min(shape) < size)
        if larger:
            done += f", {larger:,} of {len(glances):,} enlarged"
    card.images = f"files of {spread} px ({told}){done}"
    if len(shapes) > 1 and any(glance.dicom for glance in glances.values()):
        card.warn(f"images of {len(shapes)} shapes ({spread} px) are brought to {reading.size} px "
                  f"({reading.policy})")  # fmt: skip
    if reading.channels != "auto":
        return reading.channels
    dicom = {path: glance.colour for path, glance in glances.items() if glance.dicom}
    if len(set(dicom.values())) > 1:
        colour = sorted(path for path, is_colour in dicom.items() if is_colour)
        raise DatasetError(
            f"{root}: {len(colour)} of {counted(len(dicom), 'DICOM file')} {some(colour)} have "
            "colour, the others are grey; say channels: grey or rgb in dataset.yaml, or take apart "
            "what does not belong together"
        )
    n_colour = sum(glance.colour for glance in glances.values())
    if 0 < n_colour < len(glances):
        card.images += f"; {n_colour:,} of {len(glances):,} have colour, so all become RGB"
    return "rgb" if n_colour else "grey"

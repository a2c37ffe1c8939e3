"""From files to arrays on disk: each worker decodes its share into its own rows."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medplus.datasets import decode
from medplus.datasets.decode import Glance, Reading
from medplus.datasets.files import DICOM, Sample
from medplus.datasets.intensity import ImageFaultError
from medplus.datasets.wording import count, quoted, some
from medplus.datasets.workers import in_workers, worker_count
from medplus.errors import DatasetError
from medplus.progress import Advance
from medplus.vocabulary import SPLITS, Split

log = logging.getLogger(__name__)

_SHARE = 64
_BLOCK_ROWS = 256


@dataclass
class Seen:
    """What a worker saw of its images: results by path, and faults by path."""

    results: dict[str, Glance | str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Share:
    """Images of one split that lie in consecutive rows of its array."""

    array: Path
    first_row: int
    paths: tuple[str, ...]


def fill_arrays(
    root: Path,
    samples: Sequence[Sample],
    labels: npt.NDArray[np.integer],
    reading: Reading,
    folder: Path,
    advance: Advance,
) -> tuple[int, str]:
    """Write images, labels and names of every split into `folder`; return channels and digest.

    The digest is a SHA-256 over the arrays and over how they were read. `advance` is told of the
    images that have been decoded.

    Raises
    ------
    DatasetError
        If images cannot be used; counts them, and names the first and what is wrong with it.
    """
    workers = worker_count(len(samples))
    glances = _look_at_all(root, [sample.path for sample in samples], workers)
    grey = _are_grey(root, glances, reading)
    rows = {name: [i for i, s in enumerate(samples) if s.split == name] for name in SPLITS}
    shares = []
    pixel = () if grey else (3,)
    for split, members in rows.items():
        np.save(folder / f"{split}_labels.npy", labels[members])
        array = folder / f"{split}_images.npy"
        shape = (len(members), reading.size, reading.size, *pixel)
        np.lib.format.open_memmap(array, mode="w+", dtype=np.uint8, shape=shape).flush()
        paths = [samples[i].path for i in members]
        (folder / f"{split}_names.json").write_text(json.dumps(paths), encoding="utf-8")
        shares += [
            Share(array, first, tuple(paths[first : first + _SHARE]))
            for first in range(0, len(paths), _SHARE)
        ]
    read = partial(_read_share, root, reading, grey)
    contents: dict[str, str] = {}
    faults: dict[str, str] = {}
    for seen in in_workers(read, shares, workers):
        contents.update({path: str(content) for path, content in seen.results.items()})
        faults.update(seen.faults)
        advance(len(seen.results) + len(seen.faults))
    _refuse(root, faults)
    _warn_of_copies(root, samples, contents)
    return (1 if grey else 3), _digest(folder, reading)


def _look_at_all(root: Path, paths: Sequence[str], workers: int) -> dict[str, Glance]:
    """Look at the headers first: what is wrong there is told before anything is decoded."""
    n_dicom = sum(path.lower().endswith(DICOM) for path in paths)
    if n_dicom:
        from medplus.datasets.dicom import check_installed

        check_installed(root, n_dicom)
    shares = [tuple(paths[first : first + _SHARE]) for first in range(0, len(paths), _SHARE)]
    glances: dict[str, Glance] = {}
    faults: dict[str, str] = {}
    for seen in in_workers(partial(_look_at_share, root), shares, workers):
        glances.update({p: g for p, g in seen.results.items() if isinstance(g, Glance)})
        faults.update(seen.faults)
    _refuse(root, faults)
    return glances


def _look_at_share(root: Path, paths: Sequence[str]) -> Seen:
    return _each(paths, lambda path: decode.glance(root / path))


def _read_share(root: Path, reading: Reading, grey: bool, share: Share) -> Seen:
    images = np.lib.format.open_memmap(share.array, mode="r+")
    row = {path: share.first_row + i for i, path in enumerate(share.paths)}

    def read(path: str) -> str:
        images[row[path]], content = decode.read(root / path, reading, grey)
        return content

    return _each(share.paths, read)


def _each(paths: Sequence[str], look: Callable[[str], Glance | str]) -> Seen:
    seen = Seen()
    for path in paths:
        try:
            seen.results[path] = look(path)
        except ImageFaultError as error:
            seen.faults[path] = str(error)
        except MemoryError:
            seen.faults[path] = "it does not fit into memory"
    return seen


def _refuse(root: Path, faults: Mapping[str, str]) -> None:
    if not faults:
        return
    first = min(faults)
    more = [path for path in sorted(faults) if path != first]
    others = f"; the others: {some(more)}" if more else ""
    raise DatasetError(
        f"{root}: {count(len(faults), 'image')} cannot be used: {quoted(first)}: {faults[first]}"
        f"{others}; mend or remove them"
    )


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


def _digest(folder: Path, reading: Reading) -> str:
    digest = hashlib.sha256(json.dumps(reading.to_dict(), sort_keys=True).encode())
    for split in SPLITS:
        for name in (f"{split}_images", f"{split}_labels"):
            array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            digest.update(f"{name}:{array.shape}:{array.dtype.str}".encode())
            for first in range(0, len(array), _BLOCK_ROWS):
                digest.update(np.ascontiguousarray(array[first : first + _BLOCK_ROWS]).data)
    return digest.hexdigest()

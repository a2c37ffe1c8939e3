"""Images to predict: files, folders and npz files, named and read one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medplus.datasets import npzfile
from medplus.datasets.build import stream_files
from medplus.datasets.decode import refit
from medplus.datasets.files import EXTENSIONS, begins_as_dicom, find_files
from medplus.datasets.intensity import ImageFaultError
from medplus.errors import DatasetError, UsageError, nearest
from medplus.jsonfile import digest_of
from medplus.naming import counted
from medplus.progress import SAID
from medplus.reading import Reading
from medplus.remembered import stamp
from medplus.vocabulary import SPLITS

log = logging.getLogger(__name__)

Read = npt.NDArray[np.uint8] | ImageFaultError
"""An image's pixels, or why it cannot be used."""


@dataclass(frozen=True)
class ImageSource:
    """Some of the images, in a fixed order.

    Attributes
    ----------
    names : sequence of str
        What each is called: a file by its path, as it was given; ``file.npz/array/0``, … .
    stamp : list
        What changes where the images do: paths, sizes, times of change.
    read : callable
        Yields the images from a number on, read as a reading says: uint8 (size, size) or
        (size, size, 3).
    """

    names: Sequence[str]
    stamp: list[object]
    read: Callable[[Reading, int], Iterator[Read]]


def _files(paths: Sequence[Path]) -> ImageSource:
    """Return image files, each of which is one image, read as the run's own images were."""
    return ImageSource(
        [path.as_posix() for path in paths],
        [_stamp(path) for path in paths],
        lambda reading, start: stream_files(paths[start:], reading),
    )


def _no_image(path: Path) -> ImageSource:
    """Return a file that was named, but is of no kind that medplus reads."""
    fault = ImageFaultError(f"it is none of {', '.join(EXTENSIONS)}")
    return ImageSource(
        [path.as_posix()], [_stamp(path)], lambda reading, start: iter([fault][start:])
    )


def _array(path: Path, header: npzfile.Header) -> ImageSource:
    """Return an npz file's array: uint8 (n, height, width) or (n, height, width, 1 or 3)."""
    prefix = f"{path.as_posix()}/{header.name.removesuffix('_images')}"

    def read(reading: Reading, start: int) -> Iterator[Read]:
        """Yield them; where the file is damaged, all that come after."""
        done = start
        try:
            with npzfile.open_npz(path) as archive:
                for row in npzfile.read_rows(archive, path, header, start):
                    yield _refitted(row, reading)
                    done += 1
        except DatasetError as error:
            for _ in range(done, header.shape[0]):
                yield ImageFaultError(str(error))

    names = [f"{prefix}/{i}" for i in range(header.shape[0])]
    return ImageSource(names, [_stamp(path), header.name], read)


def _refitted(row: np.ndarray, reading: Reading) -> Read:
    try:
        return refit(row[..., 0] if row.ndim == 3 and row.shape[2] == 1 else row, reading)
    except ImageFaultError as error:
        return error


@dataclass(frozen=True)
class Images:
    """All images to predict.

    Attributes
    ----------
    sources : tuple of ImageSource
    names : list of str
        Of all images, in order.
    digest : str
        SHA-256, in hex, of names, sizes and times of change.
    """

    sources: tuple[ImageSource, ...]
    names: list[str]
    digest: str

    def __len__(self) -> int:
        return len(self.names)

    def read(self, reading: Reading, start: int = 0) -> Generator[Read, None, None]:
        """Yield the images from number `start` on, few of them at once in memory.

        Raises
        ------
        DatasetError
            If no file can be read, for want of a package.
        """
        for source in self.sources:
            n = len(source.names)
            if start < n:
                yield from source.read(reading, start)
            start = max(0, start - n)


def find_images(given: Sequence[str | Path], split: str | None = None) -> Images:
    """Find images by files, folders (with all below) and npz files, in the order they are given.

    Parameters
    ----------
    split : {"train", "val", "test"}, optional
        Of npz files in a dataset's layout; by default test, which is said.

    Raises
    ------
    UsageError
        If there is no such path, or an npz file holds several arrays that may be meant.
    DatasetError
        If a folder or an npz file cannot be read, or holds no images.
    """
    found: dict[Path, ImageSource | None] = {}
    for path in dict.fromkeys(Path(one) for one in given):
        found |= _below(path, split)
    sources: list[ImageSource] = []
    for is_file, group in groupby(found.items(), key=lambda item: item[1] is None):
        own = [*group]
        sources += [_files([path for path, _ in own])] if is_file else [s for _, s in own if s]
    names = list(chain.from_iterable(source.names for source in sources))
    stamps = [source.stamp for source in sources]
    return Images(tuple(sources), names, digest_of({"images": stamps}))


def _below(path: Path, split: str | None) -> dict[Path, ImageSource | None]:
    """Return the files that a path means; what is more or less than an image as a source."""
    if path.is_dir():
        inside = find_files(path)
        for warning in inside.warnings:
            log.warning("%s: %s", path, warning)
        return {path / file.path: None for file in inside.files}
    if not path.exists():
        beside: list[str] = []
        with suppress(OSError):
            beside = [file.name for file in path.parent.iterdir()]
        raise UsageError(f"there is no {path}{nearest(path.name, beside)}")
    if path.suffix == ".npz":
        return {path: _array_of(path, split)}
    is_image = path.suffix.lower() in EXTENSIONS or begins_as_dicom(str(path))
    return {path: None if is_image else _no_image(path)}


def _array_of(path: Path, split: str | None) -> ImageSource:
    """Return the array of images that is meant, of those in an npz file."""
    found = {}
    with npzfile.open_npz(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist()]
        for name in members:
            with suppress(DatasetError):  # pickles and what is damaged are no images
                header = npzfile.read_header(archive, path, name)
                if _is_of_images(header):
                    found[name] = header
    split_arrays = [f"{each}_images" for each in SPLITS if f"{each}_images" in found]
    if split is not None:
        if f"{split}_images" not in found:
            raise UsageError(
                f"{path} has no images of {split} (it holds {', '.join(members[:8])}); leave "
                "--split out, or name another"
            )
        return _array(path, found[f"{split}_images"])
    if "test_images" in found and len(split_arrays) > 1:
        n = found["test_images"].shape[0]
        log.log(SAID, "%s: the %s of test are predicted; --split names others", path,
                counted(n, "image"))  # fmt: skip
        return _array(path, found["test_images"])
    if "images" in found:
        return _array(path, found["images"])
    if len(found) == 1:
        return _array(path, next(iter(found.values())))
    listed = ", ".join(members[:8]) or "nothing"
    if not found:
        raise DatasetError(
            f"{path} holds no array of images (it holds {listed}): uint8, in shape (n, height, "
            "width) or (n, height, width, 3), in C order"
        )
    raise UsageError(
        f"{path} holds several arrays of images ({', '.join(found)}); say --split, or call the one "
        "that is meant 'images'"
    )


def _is_of_images(header: npzfile.Header) -> bool:
    shape = header.shape
    right = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    return header.dtype == np.uint8 and right and 0 not in shape and not header.fortran_order


def _stamp(path: Path) -> list[object]:
    try:
        size, time, *_ = stamp(path.stat())
    except OSError:  # it is told of when it is read
        return [path.as_posix()]
    return [path.as_posix(), size, time]  # as a copy has them, too

"""Which images a folder holds, and what their places say of them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medplus.datasets.wording import count, quoted, some
from medplus.errors import DatasetError, UsageError
from medplus.vocabulary import Split

log = logging.getLogger(__name__)

DICOM = ".dcm"
EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", DICOM)
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_BESIDE_IMAGES = (
    ".csv", ".parquet", ".yaml", ".yml", ".txt", ".md", ".json", ".xml", ".pdf", ".db", ".ini",
)  # fmt: skip


@dataclass(frozen=True)
class File:
    """One image file; its path is relative to the root, with slashes."""

    path: str
    nbytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Sample:
    """One image and what is known of it.

    Attributes
    ----------
    split : Split or None
        None where it is still to be chosen.
    labels : tuple of str
        The class by name, or ``0`` and ``1`` for every label.
    group : str or None
        What must not be torn apart, such as a patient.
    """

    path: str
    split: Split | None
    labels: tuple[str, ...]
    group: str | None = None


def find_files(root: Path) -> list[File]:
    """Return the image files under a folder, sorted by path; hidden ones are passed over.

    Raises
    ------
    DatasetError
        If there are none, a folder cannot be read, a link leads out of the root or to a folder, or
        a name is not valid Unicode.
    """
    inside = root.resolve()
    files, others, links, odd = [], Counter[str](), [], []
    for entry in _walk(root):
        path = Path(entry.path).relative_to(root).as_posix()
        suffix = PurePosixPath(entry.name).suffix.lower()
        if entry.is_symlink() and not _stays_inside(entry, inside):
            links.append(path)
        elif suffix not in EXTENSIONS:
            others[suffix or "without ending"] += suffix not in _BESIDE_IMAGES
        elif not path.isascii() and not _is_unicode(path):
            odd.append(path)
        elif entry.is_file():
            stat = entry.stat()
            files.append(File(path, stat.st_size, stat.st_mtime_ns))
    if links:
        raise DatasetError(
            f"{root}: {count(len(links), 'link')} {some(sorted(links))} to folders, to nothing or "
            "out of the dataset's folder; put the files themselves there"
        )
    if odd:
        raise DatasetError(
            f"{root}: {count(len(odd), 'name')} {some(sorted(odd))} not valid Unicode; rename"
        )
    left_out = ", ".join(f"{suffix} {n}" for suffix, n in others.most_common(5) if n)
    if not files:
        there = f" (other files: {left_out})" if left_out else ""
        remedy = f"medplus reads {', '.join(EXTENSIONS)}"
        if others[".npz"]:
            remedy = "name the npz file in it"
        raise DatasetError(f"the folder {root} holds no images{there}; {remedy}")
    if left_out:
        log.warning("%s: files that are no images are left out (%s)", root, left_out)
    return sorted(files, key=lambda file: file.path)


def _walk(root: Path) -> Iterator[os.DirEntry[str]]:
    """Yield all entries but folders; links to folders are yielded, not followed."""
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith((".", "__MACOSX")):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry
        except OSError as error:
            raise DatasetError(f"{quoted(folder)} cannot be read: {error.strerror}") from None


def _stays_inside(entry: os.DirEntry[str], root: Path) -> bool:
    try:
        return entry.is_file() and Path(entry.path).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links
        return False


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8, as Python smuggles them through
        return False
    return True


def from_places(root: Path, files: list[File]) -> list[Sample]:
    """Read splits and classes from ``split/class/…`` or ``class/…``, the same for all files.

    Raises
    ------
    UsageError
        If files lie in no class's folder, or folders of splits lie beside others.
    """
    parts = [PurePosixPath(file.path).parts for file in files]
    loose = [file.path for file, p in zip(files, parts, strict=True) if len(p) == 1]
    if loose:
        raise UsageError(
            f"{root}: {count(len(loose), 'image')} {some(loose)} in the folder itself; put each "
            "into a folder of its class, or name classes in a table labels.csv (path, label)"
        )
    tops = {p[0] for p in parts}
    with_splits = {top for top in tops if top.lower() in SPLIT_NAMES}
    if not with_splits:
        return [Sample(f.path, None, (p[0],)) for f, p in zip(files, parts, strict=True)]
    if with_splits != tops:
        raise UsageError(
            f"{root}: folders of splits {some(sorted(with_splits))} lie beside others "
            f"{some(sorted(tops - with_splits))}; use split/class/image throughout, or class/image"
        )
    loose = [file.path for file, p in zip(files, parts, strict=True) if len(p) == 2]
    if loose:
        raise UsageError(
            f"{root}: {count(len(loose), 'image')} {some(loose)} in a split's folder but in no "
            "class's; use split/class/image"
        )
    return [
        Sample(f.path, SPLIT_NAMES[p[0].lower()], (p[1],))
        for f, p in zip(files, parts, strict=True)
    ]

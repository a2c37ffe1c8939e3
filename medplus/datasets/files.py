"""Which images a folder holds, and what their places say of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medplus.datasets.card import Card
from medplus.datasets.wording import count, quoted, some
from medplus.errors import DatasetError, UsageError
from medplus.vocabulary import Split

DICOM = ".dcm"
PICTURES = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".j2k", ".mpo",
)  # fmt: skip
EXTENSIONS = (*PICTURES, DICOM)
_SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train", "trainset": "train",
    "val": "val", "valid": "val", "validation": "val", "valset": "val", "dev": "val",
    "devel": "val", "development": "val", "tuning": "val",
    "test": "test", "testing": "test", "testset": "test", "holdout": "test", "eval": "test",
}  # fmt: skip
_FILLING = {"", "set", "split", "data", "dataset", "image", "images", "img", "imgs", "folder"}
_FOLDS = re.compile(r"(fold|cv|part|k)[ _-]?\d+|\d+[ _-]?fold", re.IGNORECASE)
_FOREIGN = {
    "@eadir", "__macosx", "#recycle", "@recycle", "$recycle.bin", "lost+found", "thumbnails",
    "system volume information",
}  # fmt: skip
_MASK_NAME = re.compile(r"[ _-]+(mask|segmentation|seg|annotation)s?([ _-]?\d+)?$", re.IGNORECASE)
_MASK_WORD = re.compile(r"mask|seg|annotation|ground|gt", re.IGNORECASE)
_MASK_FOLDERS = {"mask", "masks", "segmentation", "segmentations", "annotation", "annotations",
                 "groundtruth", "ground_truth", "gt"}  # fmt: skip
_IMAGE_FOLDERS = {"image", "images", "img", "imgs", "scan", "scans", "photo", "photos", "frames"}
_BESIDE_IMAGES = (
    ".csv", ".parquet", ".yaml", ".yml", ".txt", ".md", ".json", ".xml", ".pdf", ".db", ".ini",
)  # fmt: skip


@dataclass(frozen=True)
class File:
    """One image file; its path is relative to the root, with slashes."""

    path: str
    nbytes: int
    stamps: tuple[int, int, int]
    """Times of change and of status in nanoseconds, and inode: what a swapped file changes."""


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


@dataclass(frozen=True)
class Found:
    """What lies under a folder.

    Attributes
    ----------
    files : list of File
        The images, sorted by path.
    folders : list of str
        All folders, with slashes, also those without an image.
    warnings : list of str
        What was left out.
    """

    files: list[File]
    folders: list[str]
    warnings: list[str]


def is_dicom(path: str) -> bool:
    """Tell of an image's path whether it is read as DICOM: by its ending, or having none."""
    return PurePosixPath(path).suffix.lower() not in PICTURES


def split_of(name: str) -> Split | None:
    """Return the split that a name of a folder, or a word in a column, means.

    Examples
    --------
    >>> split_of("training_set"), split_of("Test images"), split_of("testis")
    ('train', 'test', None)
    """
    words = [word for word in re.split(r"[^a-z]+", name.casefold()) if word not in _FILLING]
    return _SPLIT_WORDS.get(words[0]) if len(words) == 1 else None


def find_files(root: Path) -> Found:
    """Return the image files under a folder; hidden ones are passed over.

    What other programs left there, and masks beside the images they belong to, are left out.

    Raises
    ------
    DatasetError
        If there are none, a folder cannot be read, a link leads out of the root or to a folder, or
        a name is not valid Unicode.
    """
    inside = root.resolve()
    start = len(os.path.join(root, ""))  # noqa: PTH118
    files: list[File] = []
    folders: list[str] = []
    foreign, others = Counter[str](), Counter[str]()
    links, odd = [], []
    for entry in _walk(root):
        path = entry.path[start:].replace(os.sep, "/")
        suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - of ten thousands of files
        if entry.is_dir(follow_symlinks=False):
            if _is_foreign(entry):
                foreign[entry.name] += 1
            else:
                folders.append(path)
        elif entry.is_symlink() and not _stays_inside(entry, inside):
            links.append(path)
        elif suffix not in EXTENSIONS and not _begins_as_dicom(entry.path):
            others[suffix or "without ending"] += suffix not in _BESIDE_IMAGES
        elif not path.isascii() and not _is_unicode(path):
            odd.append(path)
        elif entry.is_file():
            stat = entry.stat()
            stamps = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            files.append(File(path, stat.st_size, stamps))
    _refuse(root, links, odd)
    warnings = _left_out(root, others, foreign, has_images=bool(files))
    masks = _masks({file.path for file in files}, set(folders))
    if masks:
        warnings.append(
            f"{count(len(masks), 'mask')} of images {some(sorted(masks))} are left out; rename "
            "them if they are images"
        )
    kept = [file for file in files if file.path not in masks]
    return Found(sorted(kept, key=lambda file: file.path), sorted(folders), warnings)


def _refuse(root: Path, links: list[str], odd: list[str]) -> None:
    if links:
        raise DatasetError(
            f"{root}: {count(len(links), 'link')} {some(sorted(links))} to folders, to nothing or "
            "out of the dataset's folder; put the files themselves there"
        )
    if odd:
        raise DatasetError(
            f"{root}: {count(len(odd), 'name')} {some(sorted(odd))} not valid Unicode; rename"
        )


def _left_out(
    root: Path, others: Counter[str], foreign: Counter[str], *, has_images: bool
) -> list[str]:
    """Return warnings of what is no image, or refuse a folder without images."""
    left_out = ", ".join(f"{suffix} {n}" for suffix, n in others.most_common(5) if n)
    if not has_images:
        there = f" (other files: {left_out})" if left_out else ""
        remedy = f"medplus reads {', '.join(EXTENSIONS)}"
        if others[".npz"]:
            remedy = "name the npz file in it"
        raise DatasetError(f"the folder {root} holds no images{there}; {remedy}")
    warnings = []
    if left_out:
        warnings.append(f"files that are no images are left out ({left_out})")
    if foreign:
        told = (f"{quoted(name)} ({count(n, 'folder')})" for name, n in sorted(foreign.items()))
        warnings.append(f"what other programs left there is left out: {', '.join(told)}")
    return warnings


def _is_foreign(entry: os.DirEntry[str]) -> bool:
    return entry.name.casefold() in _FOREIGN


def _walk(root: Path) -> Iterator[os.DirEntry[str]]:
    """Yield all entries; links to folders, and foreign folders, are yielded, not followed."""
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    yield entry
                    if entry.is_dir(follow_symlinks=False) and not _is_foreign(entry):
                        waiting.append(entry.path)
        except OSError as error:
            raise DatasetError(f"{quoted(folder)} cannot be read: {error.strerror}") from None


def _begins_as_dicom(path: str) -> bool:
    """Tell a DICOM file by its first bytes, where its name has no ending, or ends in a number."""
    suffix = PurePosixPath(path).suffix[1:]
    if suffix and not suffix.isdigit():
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _masks(paths: set[str], folders: set[str]) -> set[str]:
    """Return the images that are masks of others: ``x_mask.png`` by ``x.png``, masks by images."""
    suspects = {path for path in paths if _MASK_WORD.search(path)}
    if not suspects:
        return set()
    stems = {path.rpartition(".")[0] for path in paths}
    by_parent: dict[str, set[str]] = {}
    for folder in folders:
        place = PurePosixPath(folder)
        by_parent.setdefault(str(place.parent), set()).add(place.name.casefold())
    of_masks = {
        folder
        for folder in folders
        if PurePosixPath(folder).name.casefold() in _MASK_FOLDERS
        and by_parent[str(PurePosixPath(folder).parent)] & _IMAGE_FOLDERS
    }
    found = set()
    for path in suspects:
        place = PurePosixPath(path)
        match = _MASK_NAME.search(place.stem)
        twin = match and str(place.with_name(place.stem[: match.start()]))
        if twin in stems or any(str(parent) in of_masks for parent in place.parents):
            found.add(path)
    return found


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


def from_places(root: Path, found: Found, card: Card) -> list[Sample]:
    """Read splits and classes from ``split/class/…``, ``class/split/…`` or ``class/…``.

    Raises
    ------
    UsageError
        If files lie in no class's folder, or folders of splits lie beside others.
    """
    parts = {file.path: PurePosixPath(file.path).parts for file in found.files}
    loose = [path for path, p in parts.items() if len(p) == 1]
    if loose:
        raise UsageError(
            f"{root}: {count(len(loose), 'image')} {some(loose)} in the folder itself; put each "
            "into a folder of its class, or name classes in a table labels.csv (path, label)"
        )
    depth = _depth_of_splits(root, {p[:2] for p in parts.values() if len(p) > 2}, parts)
    level = 1 if depth == 0 else 0
    if depth == 0:
        loose = [path for path, p in parts.items() if len(p) == 2]
        if loose:
            raise UsageError(
                f"{root}: {count(len(loose), 'image')} {some(loose)} in a split's folder but in no "
                "class's; use split/class/image"
            )
    samples = [
        Sample(path, None if depth is None else split_of(p[depth]), (p[level],))
        for path, p in parts.items()
    ]
    card.task_from = "the classes are the names of folders"
    classes = {sample.labels[0] for sample in samples}
    places = (PurePosixPath(folder).parts for folder in found.folders)
    at_level = {p[level] for p in places if len(p) == level + 1}
    empty = sorted(at_level - classes)
    if empty:
        card.warn(f"no image that medplus reads lies in {count(len(empty), 'folder')} "
                  f"{some(empty)}: no class is made of it")  # fmt: skip
    return samples


def _depth_of_splits(
    root: Path, pairs: set[tuple[str, ...]], parts: dict[str, tuple[str, ...]]
) -> int | None:
    """Return at which level of the folders the splits stand: 0, 1, or None where they do not."""
    tops = {p[0] for p in parts.values()}
    splits = {top for top in tops if split_of(top)}
    if splits and splits != tops:
        raise UsageError(
            f"{root}: folders of splits {some(sorted(splits))} lie beside others "
            f"{some(sorted(tops - splits))}; use split/class/image throughout, or class/image"
        )
    if splits:
        return 0
    folds = sorted(top for top in tops if _FOLDS.fullmatch(top))
    if folds and folds == sorted(tops):
        raise UsageError(
            f"{root}: the folders {some(folds)} look like folds, not classes; name the classes in "
            "a table labels.csv (path, split, label), or put the images into class/image"
        )
    below = {pair[1] for pair in pairs}
    splits = {name for name in below if split_of(name)}
    if not splits:
        return None
    if splits != below or any(len(p) < 3 for p in parts.values()):
        raise UsageError(
            f"{root}: below the classes, folders of splits {some(sorted(splits))} lie beside other "
            "images or folders; use class/split/image throughout, or split/class/image"
        )
    return 1

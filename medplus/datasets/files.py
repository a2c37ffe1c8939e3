"""Which images a folder holds, and what their places say of them."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medplus.datasets.card import Card
from medplus.errors import DatasetError, UsageError, explained
from medplus.naming import counted, quoted, several, some
from medplus.remembered import stamp
from medplus.vocabulary import Split

DICOM = ".dcm"
PICTURES = (
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".j2k", ".mpo",
)  # fmt: skip
EXTENSIONS = (*PICTURES, DICOM)
_OURS = "runs and stores of medplus"
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
    stamp: list[int]
    """See `medplus.remembered.stamp`."""


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
                is_ours = entry.name.casefold() not in _FOREIGN
                foreign[_OURS if is_ours else entry.name] += 1
            else:
                folders.append(path)
        elif entry.is_symlink() and not _stays_inside(entry, inside):
            links.append(path)
        elif suffix not in EXTENSIONS and not begins_as_dicom(entry.path):
            others[suffix or "without ending"] += suffix not in _BESIDE_IMAGES
        elif path.encode(errors="ignore").decode() != path:
            odd.append(path)  # bytes that are no UTF-8, as Python smuggles them through
        elif entry.is_file():
            files.append(File(path, stamp(entry.stat())))
    if links:
        raise DatasetError(
            f"{root}: {several(sorted(links), 'link')} to folders, to nothing or out of the "
            "dataset's folder; put the files themselves there"
        )
    if odd:
        raise DatasetError(f"{root}: {several(sorted(odd), 'name')} not valid Unicode; rename")
    if not files:
        raise _without_images(root, others)
    masks = _masks({file.path for file in files}, folders)
    kept = [file for file in files if file.path not in masks]
    warnings = _left_out(others, foreign, sorted(masks))
    return Found(sorted(kept, key=lambda file: file.path), sorted(folders), warnings)


def _listed(others: Counter[str]) -> str:
    return ", ".join(f"{suffix} {n}" for suffix, n in others.most_common(5) if n)


def _without_images(root: Path, others: Counter[str]) -> DatasetError:
    there = f" (other files: {_listed(others)})" if _listed(others) else ""
    remedy = f"medplus reads {', '.join(EXTENSIONS)}"
    if others[".npz"]:
        remedy = "name the npz file in it"
    return DatasetError(f"the folder {root} holds no images{there}; {remedy}")


def _left_out(others: Counter[str], foreign: Counter[str], masks: list[str]) -> list[str]:
    """Return warnings of what lies there and is not read."""
    warnings = []
    if _listed(others):
        warnings.append(f"files that are no images are left out ({_listed(others)})")
    if foreign:
        each = (f"{quoted(name)} ({counted(n, 'folder')})" for name, n in sorted(foreign.items()))
        warnings.append(f"what programs left there is left out: {', '.join(each)}")
    if masks:
        told = f"{counted(len(masks), 'mask')} of images {some(masks)} are left out"
        warnings.append(f"{told}; rename them if they are images")
    return warnings


def _walk(root: Path) -> Iterator[os.DirEntry[str]]:
    """Yield all entries; links to folders, and foreign folders, are yielded, not followed."""
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        fault = f"{quoted(folder)} cannot be read"
        with explained(DatasetError, fault), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                yield entry
                if entry.is_dir(follow_symlinks=False) and not _is_foreign(entry):
                    waiting.append(entry.path)


def _is_foreign(entry: os.DirEntry[str]) -> bool:
    """Tell a folder whose pictures are no images of the dataset: other programs', runs, stores."""
    here = Path(entry.path)
    return (
        entry.name.casefold() in _FOREIGN
        or (entry.name.endswith(".zarr") and (here / "zarr.json").is_file())
        or (here / "network.safetensors").is_file()
        or ((here / "record.json").is_file() and (here / "predictions.npz").is_file())
    )


def begins_as_dicom(path: str) -> bool:
    """Tell a DICOM file by its first bytes, where its name has no ending, or ends in a number."""
    suffix = PurePosixPath(path).suffix[1:]
    if suffix and not suffix.isdigit():
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _masks(paths: set[str], folders: list[str]) -> set[str]:
    """Return the images that are masks of others: ``x_mask.png`` by ``x.png``, masks by images."""
    suspects = [PurePosixPath(path) for path in paths if _MASK_WORD.search(path)]
    stems = {path.rpartition(".")[0] for path in paths} if suspects else set()
    places = [PurePosixPath(folder) for folder in folders if suspects]
    imaged = {place.parent for place in places if place.name.casefold() in _IMAGE_FOLDERS}
    of_masks = {p for p in places if p.name.casefold() in _MASK_FOLDERS and p.parent in imaged}
    found = set()
    for place in suspects:
        match = _MASK_NAME.search(place.stem)
        twin = match and str(place.with_name(place.stem[: match.start()]))
        if twin in stems or not of_masks.isdisjoint(place.parents):
            found.add(str(place))
    return found


def _stays_inside(entry: os.DirEntry[str], root: Path) -> bool:
    try:
        return entry.is_file() and Path(entry.path).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a loop of links
        return False


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
            f"{root}: {several(loose, 'image')} in the folder itself; put each into a folder of "
            "its class, or name classes in a table labels.csv (path, label)"
        )
    depth = _depth_of_splits(root, list(parts.values()))
    level = 1 if depth == 0 else 0
    loose = [path for path, p in parts.items() if len(p) == level + 1]
    if loose:
        raise UsageError(
            f"{root}: {several(loose, 'image')} in a split's folder but in no class's; use "
            "split/class/image"
        )
    samples = [
        Sample(path, None if depth is None else split_of(p[depth]), (p[level],))
        for path, p in parts.items()
    ]
    card.task_from = "the classes are the names of folders"
    below: dict[str, set[str]] = defaultdict(set)
    for p in parts.values():
        below[p[0]] |= {*p[1:-1][:1]}
    shared = next(iter(below.values()))
    alike = all(names == shared for names in below.values())
    if depth is None and alike and len(below) > 1 and len(shared) > 1:
        card.warn(
            f"the folders {some(sorted(below))} have the same folders in them "
            f"{some(sorted(shared))}; if those are the classes, name them in a table labels.csv "
            "(path, label)"
        )
    places = (PurePosixPath(folder).parts for folder in found.folders)
    at_level = {p[level] for p in places if len(p) == level + 1}
    empty = sorted(at_level - {sample.labels[0] for sample in samples})
    if empty:
        told = several(empty, "folder")
        card.warn(f"no image that medplus reads lies in {told}: no class is made of it")
    return samples


def _depth_of_splits(root: Path, parts: list[tuple[str, ...]]) -> int | None:
    """Return at which level of the folders the splits stand: 0, 1, or None where they do not."""
    tops, below = {p[0] for p in parts}, {p[1] for p in parts if len(p) > 2}
    splits = sorted(top for top in tops if split_of(top))
    if splits and len(splits) < len(tops):
        raise UsageError(
            f"{root}: folders of splits {some(splits)} lie beside others "
            f"{some(sorted(tops - set(splits)))}; use split/class/image throughout, or class/image"
        )
    if splits:
        return 0
    if all(map(_FOLDS.fullmatch, tops)):
        raise UsageError(
            f"{root}: the folders {some(sorted(tops))} look like folds, not classes; name the "
            "classes in a table labels.csv (path, split, label), or put the images into class/image"
        )
    words = {top: {*re.split(r"[^a-z]+", top.casefold())} & set(_SPLIT_WORDS) for top in tops}
    named = {_SPLIT_WORDS[word] for found in words.values() for word in found}
    if "train" in named and len(named) > 1:
        raise UsageError(
            f"{root}: the folders {some(sorted(top for top in tops if words[top]))} look like "
            "parts of splits, not classes; use split/class/image, or name the classes in a table "
            "labels.csv (path, split, label)"
        )
    splits = sorted(name for name in below if split_of(name))
    if splits and (len(splits) < len(below) or any(len(p) < 3 for p in parts)):
        raise UsageError(
            f"{root}: below the classes, folders of splits {some(splits)} lie beside other images "
            "or folders; use class/split/image throughout, or split/class/image"
        )
    return 1 if splits else None

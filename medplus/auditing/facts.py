"""What is known of images besides what they show: brightness, borders, files, tags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medplus.auditing.pool import Pool
from medplus.datasets.files import is_dicom

_EXIF = {271: "Make", 272: "Model", 305: "Software", 274: "Orientation"}
_DICOM = (
    "Manufacturer", "ManufacturerModelName", "StationName", "InstitutionName", "SoftwareVersions",
    "PhotometricInterpretation", "PixelSpacing", "Rows", "Columns",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Facts:
    """Facts of every image, as columns that a tree can read.

    Attributes
    ----------
    groups : dict of str to ndarray of float, shape (n, n_columns)
        By what they are: ``mean brightness``, ``border colour``, ``file size``, …
    spread, white, dark : ndarray of float, shape (n,)
        Of the grey values: highest less lowest, and the shares of pixels at 255 and at 0.
    grey : ndarray of bool, shape (n,)
        Whether the channels of an image are equal.
    shape : ndarray of int, shape (n, 2), or None
        Width and height of the files.
    """

    groups: dict[str, np.ndarray]
    spread: np.ndarray
    white: np.ndarray
    dark: np.ndarray
    grey: np.ndarray
    shape: np.ndarray | None


def facts_of(pool: Pool) -> Facts:
    """Read every image once, and the header of every file."""
    rows = [_look(pool.image(row)) for row in range(len(pool))]
    values = np.array([row[0] for row in rows])
    border = np.array([row[1] for row in rows])
    groups = {"mean brightness": values[:, :1], "border colour": border}
    files = _files(pool)
    groups |= {name: column for name, column in files.items() if len(np.unique(column)) > 1}
    shape = files.get("image size")
    return Facts(
        groups, values[:, 1], values[:, 2], values[:, 3], values[:, 4].astype(bool),
        None if shape is None else shape.astype(np.int64),
    )  # fmt: skip


def _look(image: np.ndarray) -> tuple[list[float], list[float]]:
    """Return brightness, spread, white, dark, grey; and the mean and spread of the border."""
    frame = np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]]).astype(float)
    grey = image.ndim == 2 or bool((image == image[..., :1]).all())
    low, high = int(image.min()), int(image.max())
    values = [image.mean(), high - low, (image == 255).mean(), (image == 0).mean(), grey]
    return [float(value) for value in values], [*np.atleast_1d(frame.mean(0)), float(frame.std())]


def _files(pool: Pool) -> dict[str, np.ndarray]:
    """Return what the files of a folder of images tell without being decoded."""
    assert pool.images is not None
    root = Path(pool.images.path)
    if not root.is_dir():
        return {}
    told = [_header(root / name) for name in pool.names]
    columns = {
        "file size": np.array([[one["bytes"]] for one in told], float),
        "image size": np.array([one["shape"] for one in told], float),
    }
    tags = sorted({tag for one in told for tag in one["tags"]})
    for tag in tags:
        kinds = [one["tags"].get(tag, "") for one in told]
        columns[f"tag {tag}"] = _by_frequency(kinds)
    return columns


def _header(file: Path) -> dict[str, Any]:
    """Return size, shape and tags of a file; what cannot be read is left out."""
    found: dict[str, Any] = {"bytes": 0, "shape": (0, 0), "tags": {}}
    try:
        found["bytes"] = file.stat().st_size
        if is_dicom(str(file)):
            import pydicom

            header = pydicom.dcmread(file, stop_before_pixels=True)
            found["tags"] = {tag: str(header[tag].value) for tag in _DICOM if tag in header}
            found["shape"] = int(header.get("Columns", 0)), int(header.get("Rows", 0))
        else:
            from PIL import Image

            with file.open("rb") as stream, Image.open(stream) as image:
                found["shape"] = image.size
                exif = image.getexif()
                found["tags"] = {name: str(exif[k]) for k, name in _EXIF.items() if k in exif}
    except Exception:  # noqa: S110 - a header that cannot be read tells nothing, and hurts nobody
        pass
    return found


def _by_frequency(values: list[str]) -> np.ndarray:
    """Return numbers for words, the most frequent first, shape (n, 1)."""
    kinds, where, counts = np.unique(np.array(values), return_inverse=True, return_counts=True)
    rank = np.empty(len(kinds))
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(kinds))
    return rank[where][:, None]

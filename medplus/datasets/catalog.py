"""The 12 two-dimensional MedMNIST+ collections, as `medmnist.INFO` describes them."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medplus.errors import UsageError, nearest
from medplus.vocabulary import MULTI_LABEL, SIZES, SPLITS, Split, Task

FLAGS: tuple[str, ...] = (
    "bloodmnist", "breastmnist", "chestmnist", "dermamnist", "octmnist", "organamnist",
    "organcmnist", "organsmnist", "pathmnist", "pneumoniamnist", "retinamnist", "tissuemnist",
)  # fmt: skip
"""The paper's datasets, in the paper's order."""

CITATION = (
    "Yang et al., MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification. Scientific Data 10, 41 (2023), doi:10.1038/s41597-022-01721-8"
)
"""What MedMNIST asks to be cited, beside the paper that each collection's images come from."""

_KNOWN_FLAWS: dict[str, str] = {
    "breastmnist": "class 1 is 'normal or benign': a positive is a healthy finding",
    "dermamnist": (
        "images of one lesion stand in several splits, so test scores are optimistic "
        "(arXiv:2401.14497); the licence forbids commercial use"
    ),
    "octmnist": "train and val were split 9:1 by image; whether by patient is not stated",
    "pathmnist": "the test split comes from another clinical centre",
    "pneumoniamnist": (
        "train and val were split 9:1 by image, whether by patient is not stated; "
        "some source images are only 127 px wide, so larger sizes are upsampled"
    ),
    "retinamnist": "grades are ordinal; the paper scores them as plain classes",
    "tissuemnist": "source images are 32 px, so sizes above 28 are upsampled",
}


@dataclass(frozen=True)
class DatasetInfo:
    """What MedMNIST states of one collection.

    Attributes
    ----------
    flag : str
        The name used everywhere, for example ``breastmnist``.
    task : Task
        One of MedMNIST's four task types.
    classes : tuple of str
        Class names by class index; for multi-label tasks, label names by column.
    channels : int
        1 (grey) or 3 (RGB).
    n_samples : dict
        Number of images per split.
    md5 : dict
        MD5 of the official npz per size.
    url : dict
        Address of the official npz per size.
    flaws : str
        A known flaw worth knowing before a result is believed, or an empty string.
    """

    flag: str
    task: Task
    classes: tuple[str, ...]
    channels: int
    n_samples: dict[Split, int]
    licence: str
    md5: dict[int, str]
    url: dict[int, str]
    flaws: str

    @property
    def n_labels(self) -> int:
        """Columns of the label array: the number of labels if multi-label, else 1."""
        return len(self.classes) if self.task == MULTI_LABEL else 1

    def filename(self, size: int) -> str:
        """Return the official file name: ``breastmnist.npz`` at 28, else ``breastmnist_64.npz``.

        Raises
        ------
        UsageError
            If MedMNIST+ has no such size.
        """
        if size not in SIZES:
            raise UsageError(f"{self.flag} has no size {size}; MedMNIST+ has 28, 64, 128 and 224")
        return f"{self.flag}.npz" if size == 28 else f"{self.flag}_{size}.npz"


@cache
def _medmnist_info() -> dict[str, dict[str, Any]]:
    """Load `medmnist.INFO` alone: importing the package would import torch and pandas."""
    package = importlib.util.find_spec("medmnist")
    if package is None or package.origin is None:  # pragma: no cover - a declared dependency
        raise UsageError("the package 'medmnist' is not installed; run: pip install medmnist")
    path = Path(package.origin).with_name("info.py")
    spec = importlib.util.spec_from_file_location("_medplus_medmnist_info", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():  # it warns where it cannot make a folder in the user's home
        warnings.simplefilter("ignore")
        spec.loader.exec_module(module)
    info: dict[str, dict[str, Any]] = module.INFO
    return info


def unknown(name: str) -> UsageError:
    """Return the error of a name that is no dataset's."""
    return UsageError(
        f"unknown dataset '{name}'{nearest(name, FLAGS)} "
        "(medplus datasets lists all; a path to an npz file or a folder of images works too)"
    )


def info(flag: str) -> DatasetInfo:
    """Return what is known of a collection.

    Raises
    ------
    UsageError
        If `flag` is not one of `FLAGS`; names the nearest.
    """
    if flag not in FLAGS:
        raise unknown(flag)
    raw = _medmnist_info()[flag]
    suffix = {size: "" if size == 28 else f"_{size}" for size in SIZES}
    return DatasetInfo(
        flag=flag,
        task=raw["task"],
        classes=tuple(raw["label"][str(i)] for i in range(len(raw["label"]))),
        channels=raw["n_channels"],
        n_samples={split: raw["n_samples"][split] for split in SPLITS},
        licence=raw["license"],
        md5={size: raw[f"MD5{suffix[size]}"] for size in SIZES},
        url={size: raw[f"url{suffix[size]}"] for size in SIZES},
        flaws=_KNOWN_FLAWS.get(flag, ""),
    )


@cache
def official_names() -> dict[str, tuple[str, int]]:
    """Return the names of all official files, with their dataset and size."""
    return {info(flag).filename(size): (flag, size) for flag in FLAGS for size in SIZES}

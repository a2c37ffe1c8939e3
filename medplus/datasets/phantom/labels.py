"""Which labels a phantom's images carry: counts per split, then labels in the known imbalance.

The label of image i depends on the images before it, never on how many follow, so that a larger
phantom begins with the smaller one.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from medplus.datasets import catalog
from medplus.errors import UsageError
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split

# How often each class occurs: rounded from the counts published with the source collections. Test
# splits that were drawn otherwise than train have a row of their own.
_TRAIN: dict[str, tuple[float, ...]] = {
    "bloodmnist": (0.071, 0.182, 0.091, 0.169, 0.071, 0.083, 0.195, 0.137),
    "breastmnist": (0.269, 0.731),
    "dermamnist": (0.033, 0.051, 0.110, 0.011, 0.111, 0.670, 0.014),
    "octmnist": (0.343, 0.105, 0.080, 0.472),
    "organamnist": (0.057, 0.040, 0.039, 0.043, 0.115, 0.110, 0.178, 0.113, 0.114, 0.088, 0.103),
    "organcmnist": (0.088, 0.048, 0.046, 0.046, 0.084, 0.090, 0.230, 0.077, 0.079, 0.090, 0.121),
    "organsmnist": (0.082, 0.046, 0.044, 0.052, 0.081, 0.080, 0.249, 0.053, 0.058, 0.144, 0.111),
    "pathmnist": (0.104, 0.106, 0.115, 0.116, 0.089, 0.135, 0.088, 0.104, 0.143),
    "pneumoniamnist": (0.258, 0.742),
    "retinamnist": (0.450, 0.119, 0.191, 0.180, 0.061),
    "tissuemnist": (0.321, 0.047, 0.035, 0.093, 0.071, 0.047, 0.237, 0.149),
}
_TEST: dict[str, tuple[float, ...]] = {
    "octmnist": (0.25, 0.25, 0.25, 0.25),
    "pathmnist": (0.186, 0.118, 0.047, 0.088, 0.144, 0.082, 0.103, 0.059, 0.172),
    "pneumoniamnist": (0.375, 0.625),
}
# From atelectasis to hernia, which has 0.002 in truth, raised so that a small sample has some.
CHEST: tuple[float, ...] = (
    0.102, 0.025, 0.118, 0.177, 0.051, 0.056, 0.012,
    0.047, 0.042, 0.022, 0.023, 0.015, 0.029, 0.010,
)  # fmt: skip
"""Prevalence of ChestMNIST's labels; 54% of its images show none of them."""
CHEST_SICK = 0.47
"""Share of ChestMNIST's images with any finding."""

DEFAULT_SAMPLES = 1200
LEAST_SHARE = 0.1
"""Least share of a split: OCTMNIST's official test split would be 11 images of 1200."""

# Findings that come together share a latent cause: fluid, lumps, air, scars.
_CAUSES = [0, 0, 0, 1, 2, 2, 1, 3, 1, 0, 3, 4, 4, 4]
_CORRELATION = 0.35


def stream(what: str, seed: int, flag: str, *place: str | int) -> np.random.Generator:
    """Return the source of randomness of a split's labels or of one scene, in any process."""
    words = [zlib.crc32(str(part).encode()) for part in (what, flag, *place)]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *words])))


def class_shares(flag: str, split: Split) -> tuple[float, ...]:
    """Return each class's share of a split, for the collections with one label per image."""
    return _TEST.get(flag, _TRAIN[flag]) if split == "test" else _TRAIN[flag]


def least_per_split(flag: str) -> int:
    """Return how many images hold every class, or each label both present and absent."""
    info = catalog.info(flag)
    return len(info.classes) + (info.task == MULTI_LABEL)


def split_counts(flag: str, samples: int | None) -> dict[Split, int]:
    """Divide a number of images over the splits in proportion to the official sizes.

    No split gets less than `LEAST_SHARE`, nor fewer images than hold every class.

    Parameters
    ----------
    flag : str
        One of the 12 datasets.
    samples : int or None
        Total over the three splits; by default the official total, at most `DEFAULT_SAMPLES`.

    Raises
    ------
    UsageError
        If `samples` cannot give each split every class.
    """
    official = catalog.info(flag).n_samples
    total = sum(official.values())
    samples = min(total, DEFAULT_SAMPLES) if samples is None else samples
    least = least_per_split(flag)
    if samples < least * len(SPLITS):
        raise UsageError(
            f"{samples} samples are too few for a phantom of {flag}: each of its three splits "
            f"needs {least} images to hold every class. Ask for --samples {3 * least} or more."
        )
    floor = max(least, int(samples * LEAST_SHARE))
    counts = {split: max(floor, round(samples * official[split] / total)) for split in SPLITS}
    counts["train"] = samples - counts["val"] - counts["test"]
    if counts["train"] < least:  # only near the minimum, where rounding up has used everything
        counts = {"train": samples - 2 * least, "val": least, "test": least}
    return counts


def draw_labels(flag: str, split: Split, count: int, seed: int) -> NDArray[np.uint8]:
    """Return labels in MedMNIST's layout: uint8 (count, 1), or (count, n_labels) if multi-label."""
    rng = stream("labels", seed, flag, split)
    if catalog.info(flag).task == MULTI_LABEL:
        return _findings(rng, count)
    shares = np.cumsum(class_shares(flag, split))
    # Golden steps are spread so evenly that counts are close to the shares from the start.
    lots = (rng.random() + np.arange(count) * 0.5**0.5) % 1
    labels: NDArray[np.integer] = np.searchsorted(shares / shares[-1], lots, side="right")
    first = rng.permutation(len(shares))[:count]  # each class once
    labels[: len(first)] = first
    return labels.astype(np.uint8)[:, None]


def _findings(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Draw chest findings: first each once and none once, then at random with their correlation."""
    from scipy.special import ndtri

    n_labels = len(CHEST)
    # Normal quantiles above which a sick patient shows each finding; some get one because they drew
    # none, hence less than the full share.
    thresholds = ndtri(1 - np.array(CHEST) / CHEST_SICK * 0.78)
    order = rng.permutation(n_labels + 1)
    drawn = rng.standard_normal((count, n_labels + max(_CAUSES) + 1))
    lots = rng.random((count, 2))
    common, own = drawn[:, n_labels:][:, _CAUSES], drawn[:, :n_labels]
    latent = _CORRELATION**0.5 * common + (1 - _CORRELATION) ** 0.5 * own
    labels: NDArray[np.bool_] = (latent > thresholds) & (lots[:, :1] < CHEST_SICK)
    alone = np.searchsorted(np.cumsum(CHEST) / sum(CHEST), lots[:, 1])
    none = (lots[:, 0] < CHEST_SICK) & ~labels.any(1)
    labels[none, alone[none]] = True
    known = min(count, n_labels + 1)
    labels[:known] = order[:known, None] == np.arange(n_labels)
    return labels.astype(np.uint8)

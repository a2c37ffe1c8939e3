"""Which labels a phantom's images carry: counts per split, then labels in the known imbalance.

The label of image i depends on the images before it, never on how many follow, so that a larger
phantom begins with the smaller one.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from medplus.datasets import catalog
from medplus.datasets.phantom.prevalence import CHEST, CHEST_SICK, class_shares
from medplus.errors import UsageError
from medplus.vocabulary import MULTI_LABEL, SPLITS, Split

DEFAULT_SAMPLES = 1200
LEAST_SHARE = 0.1
"""Least share of a split: OCTMNIST's official test split would be 11 images of 1200."""
_LABEL_STREAM, _SCENE_STREAM = 1, 2

# Findings that come together share a latent cause: fluid, lumps, air, scars.
_CAUSES = (0, 0, 0, 1, 2, 2, 1, 3, 1, 0, 3, 4, 4, 4)
_CORRELATION = 0.35


def stream(kind: int, seed: int, flag: str, split: Split, *index: int) -> np.random.Generator:
    """Return the source of randomness of a split's labels or of one scene.

    The key's leading entries keep the two kinds of stream apart, because a seed sequence does
    not tell a missing last entry from a zero.
    """
    key = [kind, seed, zlib.crc32(flag.encode()), SPLITS.index(split), *index]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def scene_stream(seed: int, flag: str, split: Split, index: int) -> np.random.Generator:
    """Return the source of randomness of one scene: the same in every process."""
    return stream(_SCENE_STREAM, seed, flag, split, index)


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
            f"needs {least} images to hold every class. Ask for --samples {least * len(SPLITS)} "
            "or more."
        )
    floor = max(least, int(samples * LEAST_SHARE))
    counts = {split: max(floor, round(samples * official[split] / total)) for split in SPLITS}
    counts["train"] = samples - counts["val"] - counts["test"]
    if counts["train"] < least:  # only near the minimum, where rounding up has used everything
        counts = {"train": samples - 2 * least, "val": least, "test": least}
    return counts


def draw_labels(flag: str, split: Split, count: int, seed: int) -> NDArray[np.uint8]:
    """Return labels in MedMNIST's layout: uint8 (count, 1), or (count, n_labels) if multi-label."""
    rng = stream(_LABEL_STREAM, seed, flag, split)
    if catalog.info(flag).task == MULTI_LABEL:
        return _findings(rng, count)
    return _classes(rng, np.array(class_shares(flag, split)), count)[:, None]


def _classes(
    rng: np.random.Generator, shares: NDArray[np.float64], count: int
) -> NDArray[np.uint8]:
    """Draw classes: first each once, then whichever lags behind its share, at random."""
    n_classes = len(shares)
    shares = shares / shares.sum()
    labels = np.empty(max(count, n_classes), dtype=np.uint8)
    labels[:n_classes] = rng.permutation(n_classes)
    so_far = np.ones(n_classes)
    for i, lot in enumerate(rng.random(max(count - n_classes, 0)), start=n_classes):
        # Looking some images ahead keeps the order random and the counts close to the shares.
        lag = np.clip(shares * (i + 12) - so_far, 0.0, None)
        cumulative = np.cumsum(lag)
        chosen = int(np.searchsorted(cumulative, lot * cumulative[-1], side="right"))
        labels[i] = min(chosen, n_classes - 1)
        so_far[labels[i]] += 1
    return labels[:count]


def _findings(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Draw chest findings: first each once and none once, then at random with their correlation."""
    n_labels = len(CHEST)
    labels = np.zeros((count, n_labels), dtype=np.uint8)
    order = rng.permutation(n_labels + 1)
    for i in range(count):
        sick = rng.random() < CHEST_SICK
        common = rng.standard_normal(max(_CAUSES) + 1)[list(_CAUSES)]
        own = rng.standard_normal(n_labels)
        lot = rng.random()
        if i <= n_labels:
            labels[i, order[i] : order[i] + 1] = 1
        elif sick:
            latent = _CORRELATION**0.5 * common + (1 - _CORRELATION) ** 0.5 * own
            labels[i] = latent > _THRESHOLDS
            if not labels[i].any():
                alone = np.cumsum(CHEST)
                labels[i, int(np.searchsorted(alone, lot * alone[-1], side="right"))] = 1
    return labels


def _thresholds() -> NDArray[np.float64]:
    """Return the normal quantiles above which a sick patient shows each finding."""
    from scipy.special import ndtri

    # Some sick patients get a finding because they drew none, hence less than the full share.
    share = np.array(CHEST) / CHEST_SICK * 0.78
    quantiles: NDArray[np.float64] = ndtri(1.0 - share)
    return quantiles


_THRESHOLDS = _thresholds()

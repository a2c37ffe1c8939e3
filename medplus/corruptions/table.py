"""Which corruptions occur with which data, and how strong each is: MedMNIST-C's table.

Source: Di Salvo, Doerrich & Ledig, "MedMNIST-C: Comprehensive benchmark and improved classifier
robustness by simulating realistic image corruptions", arXiv:2406.17536 (2024), as their package
medmnistc 0.1.0 has it. Lengths are in pixels of images of 224 px.
"""

from __future__ import annotations

from collections.abc import Mapping

Parameters = tuple[tuple[float, ...], ...]
"""Of one corruption: what each severity, from 1 to 5, is made with."""

SEVERITIES = (1, 2, 3, 4, 5)
GREY, COLOUR = "grey", "colour"
"""The lists for data that MedMNIST-C does not have."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "digital": ("pixelate", "jpeg_compression"),
    "noise": ("gaussian_noise", "speckle_noise", "impulse_noise", "shot_noise"),
    "blur": ("defocus_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "color": ("brightness_up", "brightness_down", "contrast_up", "contrast_down", "saturate"),
    "task-specific": (
        "stain_deposit", "bubble", "black_corner", "characters", "gamma_corr_up", "gamma_corr_down",
    ),
}  # fmt: skip
"""The paper's families of corruptions."""

SHORT: Mapping[str, tuple[str, ...]] = {
    "jpeg": ("jpeg_compression",),
    "brightness": ("brightness_up", "brightness_down"),
    "contrast": ("contrast_up", "contrast_down"),
    "gamma": ("gamma_corr_up", "gamma_corr_down"),
    "colour": FAMILIES["color"],
}
"""Further names for some of them."""

NAMES: tuple[str, ...] = tuple(name for family in FAMILIES.values() for name in family)


def _each(*values: float) -> Parameters:
    return tuple((value,) for value in values)


_JPEG = _each(50, 30, 15, 10, 7)
_UP, _DOWN = _each(1.1, 1.2, 1.3, 1.4, 1.5), _each(0.9, 0.8, 0.7, 0.6, 0.5)
_STEEPER, _FLATTER = _each(1.1, 1.2, 1.3, 1.4, 1.6), _each(0.9, 0.8, 0.7, 0.6, 0.4)
_FINE_PIXELS = _each(0.30, 0.25, 0.20, 0.15, 0.10)
_RADII = ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5))

_DERMA: dict[str, Parameters] = {
    "pixelate": _each(0.7, 0.5, 0.4, 0.3, 0.25),
    "jpeg_compression": _each(30, 20, 15, 10, 7),
    "gaussian_noise": _each(0.04, 0.08, 0.12, 0.18, 0.26),
    "speckle_noise": _each(0.05, 0.15, 0.2, 0.35, 0.45),
    "impulse_noise": _each(0.01, 0.03, 0.06, 0.09, 0.17),
    "shot_noise": _each(60, 25, 18, 10, 5),
    "defocus_blur": _RADII,
    "motion_blur": ((10, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    "brightness_up": _UP,
    "brightness_down": _DOWN,
    "contrast_up": _STEEPER,
    "contrast_down": _each(0.8, 0.7, 0.6, 0.5, 0.4),
    "black_corner": _each(1.10, 1.05, 1.00, 0.90, 0.95),  # in this order, as published
    "characters": ((1, 6, 0.14), (2, 7, 0.15), (3, 8, 0.16), (4, 9, 0.17), (6, 10, 0.18)),
}

_CHEST: dict[str, Parameters] = {
    "pixelate": _FINE_PIXELS,
    "jpeg_compression": _JPEG,
    **{name: _DERMA[name] for name in FAMILIES["noise"]},
    "gaussian_blur": _each(3, 5, 7, 9, 11),
    "brightness_up": _UP,
    "brightness_down": _DOWN,
    "contrast_up": _STEEPER,
    "contrast_down": _FLATTER,
    "gamma_corr_up": _STEEPER,
    "gamma_corr_down": _FLATTER,
}

_ORGAN: dict[str, Parameters] = {
    "pixelate": _each(0.7, 0.6, 0.5, 0.4, 0.35),
    "jpeg_compression": _JPEG,
    "gaussian_noise": _each(0.04, 0.08, 0.12, 0.16, 0.20),
    "speckle_noise": _each(0.05, 0.10, 0.20, 0.30, 0.40),
    "impulse_noise": _each(0.01, 0.02, 0.03, 0.05, 0.08),
    "shot_noise": _each(200, 100, 50, 25, 15),
    "gaussian_blur": _each(11, 13, 15, 17, 21),
    "brightness_up": _each(1.2, 1.3, 1.4, 1.5, 1.6),
    "brightness_down": _each(0.8, 0.75, 0.7, 0.65, 0.60),
    "contrast_up": _each(1.3, 1.4, 1.6, 1.7, 1.8),
    "contrast_down": _each(0.8, 0.7, 0.6, 0.55, 0.5),
    "gamma_corr_up": _each(1.3, 1.4, 1.6, 1.8, 2.0),
    "gamma_corr_down": _FLATTER,
}

_PATH: dict[str, Parameters] = {
    "pixelate": _each(0.8, 0.6, 0.4, 0.3, 0.25),
    "jpeg_compression": _JPEG,
    "defocus_blur": ((3, 0.1), (4, 0.1), (5, 0.2), (6, 0.2), (7, 0.3)),
    "motion_blur": ((5, 5), (10, 5), (15, 5), (15, 8), (15, 12)),
    "brightness_up": _each(1.1, 1.15, 1.2, 1.22, 1.25),
    "brightness_down": _each(0.85, 0.80, 0.75, 0.72, 0.70),
    "contrast_up": _STEEPER,
    "contrast_down": _each(0.8, 0.7, 0.6, 0.55, 0.5),
    "saturate": _each(0.05, 0.10, 0.15, 0.20, 0.25),
    "stain_deposit": _each(1, 2, 3, 4, 5),
    "bubble": ((7, 15), (10, 15), (12, 15), (15, 20), (17, 25)),
}

_OCT: dict[str, Parameters] = {
    "pixelate": _FINE_PIXELS,
    "jpeg_compression": _each(30, 15, 10, 7, 5),
    "speckle_noise": _each(0.15, 0.30, 0.40, 0.50, 0.60),
    "defocus_blur": ((0.5, 0.6), (1, 0.5), (1.5, 0.1), (2.0, 0.5), (2.5, 0.1)),
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    "contrast_down": _each(0.6, 0.4, 0.3, 0.2, 0.15),
}

TABLE: Mapping[str, Mapping[str, Parameters]] = {
    "pathmnist": _PATH,
    "bloodmnist": {
        "pixelate": _each(0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": _JPEG,
        "defocus_blur": ((2, 0.01), (3, 0.1), (4, 0.1), (5, 0.1), (6, 0.1)),
        "motion_blur": ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9)),
        "brightness_up": _each(1.1, 1.2, 1.3, 1.35, 1.4),
        "brightness_down": _DOWN,
        "contrast_up": _each(1.1, 1.15, 1.2, 1.25, 1.3),
        "contrast_down": _DOWN,
        "saturate": _each(0.05, 0.10, 0.15, 0.17, 0.20),
        "stain_deposit": _each(1, 2, 3, 3, 3),
        "bubble": ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12)),
    },
    "dermamnist": _DERMA,
    "retinamnist": {
        "pixelate": _each(0.8, 0.60, 0.50, 0.40, 0.35),
        "jpeg_compression": _each(30, 25, 20, 10, 5),
        "gaussian_noise": _each(0.04, 0.08, 0.12, 0.16, 0.20),
        "speckle_noise": _each(0.10, 0.15, 0.20, 0.25, 0.30),
        "defocus_blur": _RADII,
        "motion_blur": ((8, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "brightness_down": _DOWN,
        "contrast_down": _FLATTER,
    },
    "tissuemnist": {
        "pixelate": _each(0.40, 0.30, 0.20, 0.15, 0.10),
        "jpeg_compression": _each(25, 20, 15, 10, 7),
        "impulse_noise": _each(0.01, 0.015, 0.02, 0.025, 0.03),
        "gaussian_blur": _each(13, 15, 17, 21, 25),
        "brightness_up": _each(1.3, 1.4, 1.5, 1.6, 1.7),
        "brightness_down": _each(0.8, 0.7, 0.6, 0.5, 0.4),
        "contrast_up": _STEEPER,
        "contrast_down": _FLATTER,
    },
    "octmnist": _OCT,
    "breastmnist": {
        "pixelate": _FINE_PIXELS,
        "jpeg_compression": _JPEG,
        "speckle_noise": _each(0.10, 0.15, 0.20, 0.25, 0.30),
        "motion_blur": ((5, 5), (9, 7), (9, 10), (13, 10), (17, 12)),
        "brightness_up": _each(1.4, 1.5, 1.6, 1.8, 2.0),
        "brightness_down": _each(0.55, 0.5, 0.45, 0.4, 0.3),
        "contrast_down": _FLATTER,
    },
    "chestmnist": _CHEST,
    "pneumoniamnist": {
        **_CHEST,
        "pixelate": _each(0.8, 0.7, 0.6, 0.5, 0.40),
        "gaussian_noise": _each(0.04, 0.05, 0.06, 0.07, 0.08),
        "speckle_noise": _each(0.05, 0.07, 0.10, 0.15, 0.20),
        "impulse_noise": _each(0.005, 0.01, 0.013, 0.017, 0.02),
        "shot_noise": _each(300, 200, 150, 100, 80),
    },
    "organamnist": _ORGAN,
    "organcmnist": _ORGAN,
    "organsmnist": _ORGAN,
    # Ours: for images of any kind, from the longest published list of each kind.
    GREY: {
        **_CHEST,
        "motion_blur": _OCT["motion_blur"],
        "defocus_blur": _RADII,
        "zoom_blur": _DERMA["zoom_blur"],
    },
    COLOUR: {
        **{name: rows for name, rows in _DERMA.items() if name not in FAMILIES["task-specific"]},
        "gaussian_blur": _CHEST["gaussian_blur"],
        "gamma_corr_up": _STEEPER,
        "gamma_corr_down": _FLATTER,
        **{name: _PATH[name] for name in ("saturate", "stain_deposit", "bubble")},
        **{name: _DERMA[name] for name in ("black_corner", "characters")},
    },
}
"""Per dataset, and per kind of other data, the parameters of every corruption and severity."""

GENERAL: tuple[str, ...] = tuple(
    name for name in NAMES if name not in FAMILIES["task-specific"] and name != "zoom_blur"
)
"""What other data are given unasked; `saturate` only where there is colour."""

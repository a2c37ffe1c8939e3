"""What every decoder of images needs: 8 bits, and the error of an image that cannot be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from medplus.errors import DatasetError


class ImageFaultError(DatasetError):
    """An image that cannot be used; the message is the reason, without the file's name."""


def scale_to_bytes(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Map low..high to 0..255, linearly and rounded; what lies outside is clipped.

    Examples
    --------
    >>> scale_to_bytes(np.array([-9, 0, 50, 200]), 0, 100).tolist()
    [0, 0, 128, 255]
    """
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)

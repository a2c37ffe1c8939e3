"""What every decoder of images needs: 8 bits, and the error of an image that cannot be used."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from medplus.errors import DatasetError

_LONGEST_REASON = 300


class ImageFaultError(DatasetError):
    """An image that cannot be used; the message is the reason, without the file's name."""


@contextmanager
def faults(told: str = "{}") -> Iterator[None]:
    """Turn all that a decoder does wrong into an `ImageFaultError`; what it warns of is not heard.

    Parameters
    ----------
    told : str
        The message, with braces for the reason, which decoders may list on many lines.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImageFaultError:
            raise
        except Exception as error:  # decoders fail in many ways on damaged files
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ImageFaultError(told.format(reason[:_LONGEST_REASON])) from None


def scale_to_bytes(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Map low..high to 0..255, linearly and rounded; what lies outside is clipped.

    Examples
    --------
    >>> scale_to_bytes(np.array([-9, 0, 60, 200]), 0, 100).tolist()
    [0, 0, 153, 255]
    """
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)

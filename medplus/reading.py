"""How a file becomes pixels: what a dataset, its stores and its records say of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

RULES = 2
"""Version of `medplus.datasets.decode`: what changes a pixel raises it; images are read anew."""

Policy = Literal["squash", "crop", "pad"]
Channels = Literal["auto", "grey", "rgb"]


class Reading(BaseModel):
    """All that decides how a file becomes pixels; part of a dataset's digest.

    What ``auto`` stands for is settled from the dataset's own images, before they are read; what
    datasets, stores and records carry is settled.

    Attributes
    ----------
    size : int
        Height and width of the image in pixels.
    policy : {"squash", "crop", "pad"} or None
        How images that are not square are made so; None where the dataset came as square arrays
        (an npz file), and nobody knows.
    channels : {"auto", "grey", "rgb"}
        ``auto`` is grey if all images of the dataset are.
    value_range : tuple of two floats, "auto", or None
        The values that become 0 and 255, where an image has more than 8 bits; ``auto`` is the
        middle 99 % of those in train. None: all that 16 bits can hold, 0 to 1 for floats, and the
        window that a DICOM file names.
    rules : int
        `RULES` when the images were read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    policy: Policy | None = None
    channels: Channels = "auto"
    value_range: tuple[float, float] | Literal["auto"] | None = None
    rules: int = RULES

    @property
    def ends(self) -> tuple[float, float] | None:
        """The value range as two numbers, or None."""
        return self.value_range if isinstance(self.value_range, tuple) else None

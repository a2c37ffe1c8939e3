"""From uint8 batches to what a backbone takes, on the device.

The paper's order is kept: grey to RGB by repetition, divide by 255, normalise, *then* pad with
zeros, so that the border holds the backbone's mean colour. In fp32 the result is bit-identical to
torchvision's ToTensor, Normalize, Pad.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from medplus.errors import UsageError
from medplus.vocabulary import Fit

if TYPE_CHECKING:
    import torch

PAPER_CANVAS = 224
LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue in grey: ITU-R BT.601."""


@dataclass(frozen=True)
class PreprocessSpec:
    """How images become a backbone's input.

    Attributes
    ----------
    mean, std : tuple of float
        Per channel, on the scale 0 to 1.
    fit : {"pad", "resize", "native"}
        Zero-pad centred to the canvas (the paper's way), resize to it, or take images as they are.
    canvas : int or None
        Height and width of the result in pixels; None for ``native``.
    rgb : bool
        Whether grey images are repeated to three channels. Otherwise, with one mean, colour images
        are made grey (ITU-R BT.601, as Pillow does); with none, images stay as they are.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "pad"
    canvas: int | None = PAPER_CANVAS
    rgb: bool = True

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> PreprocessSpec:
        """Return the spec whose fields a JSON document has."""
        fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        return cls(**fields)

    @classmethod
    def fitted(
        cls,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        fit: Fit | None,
        canvas: int = PAPER_CANVAS,
    ) -> PreprocessSpec:
        """Return the spec of colour images on a canvas or, if native, of their own size."""
        return cls(mean, std, fit or "pad", None if fit == "native" else canvas)

    def check(self, size: int) -> None:
        """Raise `UsageError` if images of `size` pixels cannot be fitted."""
        if self.fit == "pad" and self.canvas is not None and size > self.canvas:
            raise UsageError(
                f"images of {size} px cannot be padded to {self.canvas} px; use --fit resize"
            )


def preprocess(images: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """Turn a batch of stored images into a backbone's input.

    Parameters
    ----------
    images : Tensor of uint8, shape (n, size, size) or (n, size, size, 3)
        On any device.
    spec : PreprocessSpec

    Returns
    -------
    Tensor of float32, shape (n, channels, height, width)
        On the same device; height and width are the canvas, or the images' own for ``native``;
        `channels` is 3, or if not ``spec.rgb`` 1, or as stored where there is no mean.

    Raises
    ------
    UsageError
        If the images are larger than the canvas they are to be padded to.
    """
    import torch

    return Preprocessor(spec, torch.float32, channels_last=False)(images)


def normalise(images: torch.Tensor, spec: PreprocessSpec) -> torch.Tensor:
    """Return the images as normalised float32 planes, resized if the spec says so, not padded."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    spec.check(images.shape[1])
    planes = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    pixels = planes.to(torch.float32)
    if spec.fit == "resize" and pixels.shape[-1] != spec.canvas:
        assert spec.canvas is not None
        pixels = F.interpolate(
            pixels, size=(spec.canvas, spec.canvas), mode="bicubic", antialias=True
        ).clamp_(0, 255)
    # A tensor on the device: CUDA multiplies by the reciprocal of a plain number, off by one bit.
    pixels = pixels.div_(torch.full((), 255.0, device=images.device))
    if not spec.mean:
        return pixels
    if not spec.rgb and pixels.shape[1] == 3:
        weights = torch.tensor(LUMA, device=images.device).view(1, 3, 1, 1)
        pixels = (pixels * weights).sum(1, keepdim=True)
    # Normalising a grey plane with three means repeats it to RGB on the way.
    mean, std = _mean_and_std(spec, images.device)
    if pixels.shape[1] == mean.shape[1] and pixels.is_contiguous(memory_format=torch.channels_last):
        rows, width = pixels.permute(0, 2, 3, 1).flatten(2), pixels.shape[3]  # quicker than triples
        rows.sub_(mean.flatten().repeat(width)).div_(std.flatten().repeat(width))
        return pixels
    return (pixels - mean).div_(std)


@cache
def _mean_and_std(spec: PreprocessSpec, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both as (1, channels, 1, 1), kept on the device: a copy per batch would stall it."""
    import torch

    with torch.inference_mode(False):
        mean, std = (
            torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (spec.mean, spec.std)
        )
    return mean, std


def padded_window(side: int, canvas: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the rows and columns of a padded canvas that the image fills, half-open."""
    before = (canvas - side) // 2
    return (before, before + side), (before, before + side)


class Preprocessor:
    """`preprocess` for many batches, with the padded canvas kept from one batch to the next.

    The border of a padded canvas never changes, so only the images' own pixels are written: at
    28 px that is 1/64 of the work. The result is valid until the next call.
    """

    def __init__(self, spec: PreprocessSpec, dtype: torch.dtype, channels_last: bool) -> None:
        import torch

        self.spec = spec
        self.dtype = dtype
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._canvas: torch.Tensor | None = None
        self._written = torch.Size()

    def __call__(
        self, images: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Map uint8 images to the backbone's input, as `preprocess` does, in `dtype`.

        `change` may alter the normalised pixels before they are padded: augmentation costs least
        there, and what it moves in from outside is the padding's own colour.
        """
        import torch

        side = images.shape[1]
        is_grey = images.ndim == 3 and self.spec.rgb and len(self.spec.mean) == 3
        as_it_is = change is None and (self.spec.fit != "resize" or side == self.spec.canvas)
        if is_grey and as_it_is and self.memory_format == torch.channels_last:
            images = torch.stack((images,) * 3, -1)  # bytes are quicker to move than floats
        pixels = normalise(images, self.spec)
        if change is not None:
            pixels = change(pixels)
        side = pixels.shape[-1]
        if self.spec.fit != "pad" or self.spec.canvas in (None, side):
            return pixels.to(self.dtype, memory_format=self.memory_format)
        before = (self.spec.canvas - side) // 2
        canvas = self._canvas_for(pixels)
        canvas[:, :, before : before + side, before : before + side] = pixels
        return canvas

    def _canvas_for(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch

        if (
            self._canvas is None
            or len(self._canvas) < len(pixels)
            or self._written != pixels.shape[1:]  # other images leave other pixels to overwrite
        ):
            shape = (*pixels.shape[:2], self.spec.canvas, self.spec.canvas)
            canvas = torch.zeros(shape, dtype=self.dtype, device=pixels.device)
            self._canvas = canvas.contiguous(memory_format=self.memory_format)
            self._written = pixels.shape[1:]
        return self._canvas[: len(pixels)]

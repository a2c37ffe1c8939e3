"""Layers that slide over a map, and the windows of maps that they read and write."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

Span = tuple[int, int]
"""First row (or column) of a window, and the one after its last."""
Window = tuple[Span, Span]
"""Rows and columns of a map."""


@dataclass(frozen=True)
class Sliding:
    """A layer whose output at a place depends on the input around it.

    Attributes
    ----------
    kernel, stride, padding, dilation : (int, int)
        Of rows and of columns.
    fill : float
        What the layer pads with.
    unpadded : callable
        The layer without its padding.
    """

    kernel: Span
    stride: Span
    padding: Span
    dilation: Span
    fill: float
    unpadded: Callable[[torch.Tensor], torch.Tensor]

    @classmethod
    def of(cls, layer: nn.Module) -> Sliding | None:
        """Return the layer as one, or None if it is none."""
        fill, dilation = 0.0, getattr(layer, "dilation", 1)
        if isinstance(layer, nn.Conv2d) and type(layer).forward is nn.Conv2d.forward:
            if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
                return None

            def unpadded(x: torch.Tensor) -> torch.Tensor:
                how = (layer.stride, 0, layer.dilation, layer.groups)
                return F.conv2d(x, layer.weight, layer.bias, *how)

        elif type(layer) is nn.MaxPool2d and not (layer.ceil_mode or layer.return_indices):
            fill = -math.inf

            def unpadded(x: torch.Tensor) -> torch.Tensor:
                return F.max_pool2d(x, layer.kernel_size, layer.stride, 0, layer.dilation)

        elif type(layer) is nn.AvgPool2d and not (layer.ceil_mode or layer.divisor_override):
            if any(_pair(layer.padding)) and not layer.count_include_pad:
                return None

            def unpadded(x: torch.Tensor) -> torch.Tensor:
                return F.avg_pool2d(x, layer.kernel_size, layer.stride)

        else:
            return None
        kernel, stride, padding = map(_pair, (layer.kernel_size, layer.stride, layer.padding))
        return cls(kernel, stride, padding, _pair(dilation), fill, unpadded)

    def reached(self, window: Window, shape: Sequence[int]) -> Window:
        """Return where the output, of a shape, depends on a window of the input."""

        def along(i: int, start: int, stop: int) -> Span:
            # The first place whose kernel ends in the window, and the last whose kernel begins so.
            first = -((self._reach(i) - start - self.padding[i]) // self.stride[i])
            last = (stop - 1 + self.padding[i]) // self.stride[i]
            first = min(max(0, first), shape[i] - 1)
            return first, max(first, min(shape[i] - 1, last)) + 1  # never empty

        return along(0, *window[0]), along(1, *window[1])

    def needed(self, window: Window) -> Window:
        """Return the input that a window of the output is made of, in the padding too."""

        def along(i: int, start: int, stop: int) -> Span:
            first = start * self.stride[i] - self.padding[i]
            return first, first + (stop - start - 1) * self.stride[i] + self._reach(i) + 1

        return along(0, *window[0]), along(1, *window[1])

    def _reach(self, i: int) -> int:
        return self.dilation[i] * (self.kernel[i] - 1)


def share_of(window: Window, shape: Sequence[int]) -> float:
    """Return the share of a map of some height and width that a window covers."""
    (top, bottom), (left, right) = window
    return (bottom - top) * (right - left) / float(shape[0] * shape[1])


def union(windows: list[Window]) -> Window:
    """Return the smallest window that holds all of some."""
    rows, columns = (
        (min(one[i][0] for one in windows), max(one[i][1] for one in windows)) for i in (0, 1)
    )
    return rows, columns


def inside(window: Window, frame: Window) -> Window:
    """Return a window in the coordinates of what holds it."""
    (top, bottom), (left, right) = window
    return (top - frame[0][0], bottom - frame[0][0]), (left - frame[1][0], right - frame[1][0])


def part(maps: torch.Tensor, window: Window) -> torch.Tensor:
    """Return a window of maps (n, channels, height, width)."""
    (top, bottom), (left, right) = window
    return maps[:, :, top:bottom, left:right]


def _pair(value: Any) -> Span:
    first, second = value if isinstance(value, tuple) else (value, value)
    return int(first), int(second)

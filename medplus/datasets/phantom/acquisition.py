"""What a device and its operator add to every image: gain, gamma, uneven light, sensor noise.

None of it depends on the class; all of it grows with difficulty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medplus.datasets.phantom.canvas import Canvas, Plane


@dataclass(frozen=True)
class Device:
    """Spread of the nuisances of one modality at difficulty 0.5.

    Attributes
    ----------
    gain : float
        Standard deviation of the logarithm of the overall brightness.
    shade : float
        Amplitude of slow changes of brightness across the image.
    grain : float
        Standard deviation of noise at the finest scale that a master holds.
    stain : float
        Standard deviation of the logarithm of each colour channel's gain.
    """

    gain: float = 0.08
    shade: float = 0.05
    grain: float = 0.03
    stain: float = 0.0


def acquire(
    canvas: Canvas, rng: np.random.Generator, planes: Plane, device: Device, difficulty: float
) -> Plane:
    """Return the planes, (n, n) or (3, n, n), as the device records them."""
    scale = 0.4 + 1.2 * difficulty
    gain = np.exp(device.gain * scale * rng.standard_normal())
    field = canvas.noise(rng, 2, 2)
    field *= np.float32(device.shade * scale)
    field += np.float32(gain)
    if device.grain:
        field += canvas.noise(rng, 32, 128, slope=0.0) * np.float32(device.grain * scale)
    stain = np.exp(device.stain * scale * rng.standard_normal(3))
    recorded = planes * field
    if recorded.ndim == 3:
        recorded *= stain.astype(np.float32)[:, None, None]
    return np.clip(recorded, 0.0, 1.0, out=recorded)

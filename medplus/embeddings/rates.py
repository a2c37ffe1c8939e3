"""How fast extractions were on this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from medplus.remembered import recall, remember

_SUBJECT = "extraction-rates"


@dataclass(frozen=True)
class Rate:
    """What was measured of one way to extract.

    Attributes
    ----------
    batch_size : int
        The batch size with the best rate.
    images_per_second : float
        At that batch size, not compiled.
    compiled : float or None
        Images per second of the compiled network; None where it was never compiled.
    compile_seconds : float or None
        What compiling took at the last time.
    """

    batch_size: int
    images_per_second: float
    compiled: float | None = None
    compile_seconds: float | None = None


def kept_rate(key: str, folder: Path | None = None) -> Rate | None:
    """Return what was measured earlier, or None.

    Parameters
    ----------
    key : str
        What decides the rate: network, images, precision, processor.
    folder : Path, optional
        By default that of the user's caches.
    """
    found = recall(_SUBJECT, key, folder)
    return None if found is None else _rate(found)


def keep_rate(key: str, rate: Rate, folder: Path | None = None) -> None:
    """Keep what was measured; where that cannot be, it is measured again next time."""
    remember(_SUBJECT, key, asdict(rate), folder)


def _rate(found: Mapping[str, Any]) -> Rate | None:
    values: dict[str, Any] = {field.name: found.get(field.name) for field in fields(Rate)}
    batch, rate, *optional = values.values()
    if type(batch) is not int or not 1 <= batch <= 1 << 16 or not _is_positive(rate):
        return None
    whole = all(value is None or _is_positive(value) for value in optional)
    return Rate(**values) if whole else None


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0

"""When two scores are equal."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

DECIMALS = 9
"""Decimals of a percentage that count. Scores are means of means: two that are equal on paper may
differ by some 1e-14 as they were summed in another order, while a single image of a test set of a
million changes an accuracy by 1e-4."""

_Values = TypeVar("_Values", float, NDArray[np.float64], pd.Series, pd.DataFrame)


def settle(values: _Values) -> _Values:
    """Round off what is an error of floating point only, so that equal scores compare equal."""
    settled: _Values = np.round(values, DECIMALS)
    return settled

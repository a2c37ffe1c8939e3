"""An engine for tests of what is round about engines."""

from __future__ import annotations

from collections.abc import Generator

from medplus.sweep.engines import work
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place


class Here:
    """Is the one worker, in this process."""

    workers = 1

    def run(self, grid: Grid, place: Place, most: int) -> Generator[None]:
        work(grid, place, "here")
        yield

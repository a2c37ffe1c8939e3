"""An engine for tests of what is round about engines."""

from __future__ import annotations

from collections.abc import Iterator

from medplus.sweep.engines import Death, Engine
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place


class Here(Engine):
    """Is the one worker, in this process."""

    def __init__(self) -> None:
        super().__init__(1)

    def start(self, grid: Grid, place: Place, most: int) -> None:
        from medplus.sweep.worker import Worker

        Worker(grid, place, "here").run()

    def look(self) -> Iterator[Death]:
        yield from ()

    def stop(self) -> None:
        pass

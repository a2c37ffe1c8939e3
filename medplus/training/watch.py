"""Telling a person how a training goes: a line per epoch, and on a terminal a bar in between."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from statistics import fmean
from typing import TYPE_CHECKING, Any

from medplus.naming import duration, printable
from medplus.progress import Advance, Progress, in_words, on_console, silent, stderr_console
from medplus.training.history import EpochRow

if TYPE_CHECKING:
    from rich.console import Console

_LINE_EVERY_S = 30.0


class Watch:
    """What a training tells of itself: every epoch is a task of a progress, by default of none.

    Parameters
    ----------
    progress : Progress
    """

    _task: ExitStack | None = None
    _advance: Advance

    def __init__(self, progress: Progress = silent) -> None:
        self._progress = progress

    def begin(
        self,
        description: str,
        epochs: int,
        images_per_epoch: int,
        epochs_done: int = 0,
        images_done: int = 0,
    ) -> None:
        """Open: at most `epochs`, of which some, and some images of the next, may be done."""
        self._epochs, self._images_per_epoch = epochs, images_per_epoch
        self._begin_epoch(epochs_done + 1, images_done)

    def images(self, n: int) -> None:
        """Report that `n` more images of this epoch have been trained on."""
        self._advance(n)

    def epoch(self, row: EpochRow) -> None:
        """Report a finished epoch."""
        self._begin_epoch(row.epoch + 1)

    def end(self) -> None:
        """Close, whether or not the training is complete. May be called more than once."""
        if self._task is not None:
            self._task.close()
            self._task = None

    def _begin_epoch(self, number: int, done: int = 0) -> None:
        self.end()
        if number <= self._epochs:
            self._task = ExitStack()
            task = self._progress(
                f"epoch {number}/{self._epochs}", self._images_per_epoch - done, "img"
            )
            self._advance = self._task.enter_context(task)


class OnConsole(Watch):
    """Prints a table with one line per epoch; fits 80 columns.

    On a terminal, a bar below the table shows the epoch under way. Elsewhere, an epoch that takes
    long is told of every half minute.

    Parameters
    ----------
    make_console : callable
        Called by `begin`: until then the object can be sent to another process.
    """

    def __init__(self, make_console: Callable[[], Console] = stderr_console) -> None:
        self._make_console = make_console

    def begin(
        self,
        description: str,
        epochs: int,
        images_per_epoch: int,
        epochs_done: int = 0,
        images_done: int = 0,
    ) -> None:
        """Print the description and the head of the table; show the bar on a terminal."""
        self._console = self._make_console()
        is_terminal = self._console.is_terminal
        words = in_words(self._print, _LINE_EVERY_S)
        self._progress = on_console(self._console) if is_terminal else words
        self._seconds: list[float] = []
        self._print(description)
        if epochs_done or images_done:
            after = f", after {images_done} of its {images_per_epoch} images" if images_done else ""
            self._print(f"going on in epoch {epochs_done + 1}{after}")
        self._print(_HEAD)
        super().begin(description, epochs, images_per_epoch, epochs_done, images_done)

    def epoch(self, row: EpochRow) -> None:
        """Print the epoch's line of the table."""
        self.end()
        self._seconds.append(row.seconds)
        left = (self._epochs - row.epoch) * fmean(self._seconds)
        cells = (f"{cell(row, self._epochs, left):>{width}}" for width, cell in _COLUMNS.values())
        self._print("  ".join(cells).rstrip(), "bold" if row.best else "")
        super().epoch(row)

    def _print(self, line: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(printable(line), style), soft_wrap=True)


_COLUMNS: dict[str, tuple[int, Callable[[EpochRow, int, float], Any]]] = {
    "epoch": (9, lambda row, epochs, left: f"{row.epoch}/{epochs}"),
    "train loss": (10, lambda row, epochs, left: _loss(row.train_loss)),
    "val loss": (8, lambda row, epochs, left: _loss(row.val_loss)),
    "ACC %": (6, lambda row, epochs, left: _percent(row.val_acc)),
    "AUC %": (6, lambda row, epochs, left: _percent(row.val_auc)),
    "images/s": (8, lambda row, epochs, left: f"{row.images_per_second:.0f}"),
    "left, at most": (13, lambda row, epochs, left: duration(left)),
    "best": (4, lambda row, epochs, left: "*" if row.best else ""),
}
"""Title, width and content of the table's columns; plain ASCII, as terminals and logs may be."""

_HEAD = "  ".join(f"{title:>{width}}" for title, (width, _) in _COLUMNS.items())


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.1e}"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f}"

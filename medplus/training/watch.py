"""Telling a person how a training goes: a line per epoch, and on a terminal a bar in between."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from medplus.naming import printable
from medplus.progress import stderr_console
from medplus.training.history import EpochRow

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_LINE_EVERY_S = 30.0
_BAR_EVERY_S = 0.25


class Watch:
    """What a training tells of itself; this one tells nobody, the default of the Python API."""

    def begin(
        self,
        description: str,
        epochs: int,
        images_per_epoch: int,
        epochs_done: int = 0,
        images_done: int = 0,
    ) -> None:
        """Open: at most `epochs`, of which some, and some images of the next, may be done."""

    def images(self, n: int) -> None:
        """Report that `n` more images of this epoch have been trained on."""

    def epoch(self, row: EpochRow) -> None:
        """Report a finished epoch."""

    def end(self) -> None:
        """Close, whether or not the training is complete. May be called more than once."""


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
        self._console: Console | None = None
        self._bar: Progress | None = None

    def begin(
        self,
        description: str,
        epochs: int,
        images_per_epoch: int,
        epochs_done: int = 0,
        images_done: int = 0,
    ) -> None:
        """Print the description and the head of the table; show the bar on a terminal."""
        self.end()
        self._console = self._make_console()
        self._pace = _Pace(epochs, images_per_epoch, epochs_done, images_done)
        self._last = self._pace.start
        self._print(description)
        if epochs_done or images_done:
            after = f", after {images_done} of its {images_per_epoch} images" if images_done else ""
            self._print(f"going on in epoch {self._pace.epoch}{after}")
        self._print(_HEAD)
        if self._console.is_terminal:
            self._bar = _new_bar(self._console)
            self._bar.add_task("", total=images_per_epoch, after="")
            self._show(self._last)
            self._bar.start()

    def images(self, n: int) -> None:
        """Move the bar, or now and then print how far the epoch is."""
        self._pace.advance(n)
        now = time.monotonic()
        if now - self._last < (_BAR_EVERY_S if self._bar else _LINE_EVERY_S):
            return
        self._last = now
        if self._bar:
            self._show(now)
        else:
            self._print(_progress_line(self._pace, now))

    def epoch(self, row: EpochRow) -> None:
        """Print the epoch's line of the table."""
        self._pace.next_epoch(row.epoch)
        self._last = time.monotonic()
        self._print(_table_line(row, self._pace, self._last), "bold" if row.best else "")
        self._show(self._last)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _show(self, now: float) -> None:
        """Move the bar, if there is one."""
        if self._bar:
            pace, total = self._pace, self._pace.images_per_epoch
            done = min(pace.images_done, total)
            after = _rate_and_left(pace, now) if done < total else "evaluating on val"
            text = f"epoch {pace.epoch}/{pace.epochs}"
            [task] = self._bar.task_ids
            self._bar.update(task, completed=done, description=text, after=after)

    def _print(self, line: str, style: str = "") -> None:
        from rich.text import Text

        if self._console:
            self._console.print(Text(printable(line), style), soft_wrap=True)


class _Pace:
    """How far a training is, how fast, and how long it may still take."""

    def __init__(
        self, epochs: int, images_per_epoch: int, epochs_done: int, images_done: int
    ) -> None:
        self.epochs, self.images_per_epoch = epochs, images_per_epoch
        self.epochs_done, self.images_done = epochs_done, images_done
        self.start = self._epoch_start = time.monotonic()
        self._here = self._epoch_here = 0  # images of this process: not those before a resumption

    def advance(self, n: int) -> None:
        self.images_done += n
        self._here += n
        self._epoch_here += n

    def next_epoch(self, epochs_done: int) -> None:
        self.epochs_done, self.images_done, self._epoch_here = epochs_done, 0, 0
        self._epoch_start = time.monotonic()

    @property
    def epoch(self) -> int:
        """The epoch under way, from 1."""
        return min(self.epochs_done + 1, self.epochs)

    def rate(self, now: float) -> float:
        """Return the images per second of this epoch's training."""
        return self._epoch_here / max(now - self._epoch_start, 1e-9)

    def left_of_epoch(self, now: float) -> float:
        """Return the seconds until the epoch's last image; NaN while unknown."""
        left = max(0, self.images_per_epoch - self.images_done)
        return left / self.rate(now) if self._epoch_here else math.nan

    def left_at_most(self, now: float) -> float:
        """Return the seconds until the last epoch, evaluations included; NaN while unknown."""
        total = self.epochs * self.images_per_epoch
        done = self.epochs_done * self.images_per_epoch + self.images_done
        return max(0, total - done) * (now - self.start) / self._here if self._here else math.nan


def _new_bar(console: Console) -> Progress:
    from rich import progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=14),
        progress.TextColumn("{task.fields[after]}", markup=False),
        console=console,
        transient=True,
        refresh_per_second=1 / _BAR_EVERY_S,
    )


_COLUMNS: dict[str, tuple[int, Callable[[EpochRow, _Pace, float], Any]]] = {
    "epoch": (9, lambda row, pace, now: f"{row.epoch}/{pace.epochs}"),
    "train loss": (10, lambda row, pace, now: _loss(row.train_loss)),
    "val loss": (8, lambda row, pace, now: _loss(row.val_loss)),
    "ACC %": (6, lambda row, pace, now: _percent(row.val_acc)),
    "AUC %": (6, lambda row, pace, now: _percent(row.val_auc)),
    "images/s": (8, lambda row, pace, now: f"{row.images_per_second:.0f}"),
    "left, at most": (13, lambda row, pace, now: clock(pace.left_at_most(now))),
    "best": (4, lambda row, pace, now: "*" if row.best else ""),
}
"""Title, width and content of the table's columns; plain ASCII, as terminals and logs may be."""

_HEAD = "  ".join(f"{title:>{width}}" for title, (width, _) in _COLUMNS.items())


def _table_line(row: EpochRow, pace: _Pace, now: float) -> str:
    cells = (f"{cell(row, pace, now):>{width}}" for width, cell in _COLUMNS.values())
    return "  ".join(cells).rstrip()


def _progress_line(pace: _Pace, now: float) -> str:
    done = f"{pace.images_done}/{pace.images_per_epoch} images"
    return f"epoch {pace.epoch}/{pace.epochs}: {done}, {_rate_and_left(pace, now)}"


def _rate_and_left(pace: _Pace, now: float) -> str:
    left, all_left = pace.left_of_epoch(now), pace.left_at_most(now)
    epoch = "" if math.isnan(left) else f"{pace.rate(now):.0f} img/s, {clock(left)} left, "
    return "" if math.isnan(all_left) else f"{epoch}in all at most {clock(all_left)}"


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.1e}"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def clock(seconds: float) -> str:
    """Return a duration in at most 9 characters.

    >>> clock(7.6), clock(187), clock(3661), clock(200_000), clock(math.nan)
    ('0:08', '3:07', '1:01:01', '2 d 7 h', '?')
    """
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

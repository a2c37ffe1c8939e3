"""Telling a person how far a long job has come; on a terminal a bar, elsewhere plain lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from medplus.naming import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Advance = Callable[[int], None]
"""Reports that so many more items are done."""

Progress = Callable[[str, int, str], AbstractContextManager[Advance]]
"""Opens a task: description, total number of items, unit; gives the function that advances it."""

SAID = 25
"""The level of what was read or assumed: between INFO and WARNING; the command line shows it."""
logging.addLevelName(SAID, "DATA")

_LINE_EVERY_S = 10.0


@contextmanager
def silent(description: str, total: int, unit: str) -> Iterator[Advance]:
    """Report nothing: the default of the Python API."""
    yield lambda n: None


def stderr_console() -> Console:
    """Return rich's console on stderr, which prints names as they are."""
    return new_console(stderr=True)


def new_console(**options: Any) -> Console:
    """Return rich's console, in which names are no markup and cannot steer the terminal."""
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(printable(text), **how)

    return Plain(markup=False, emoji=False, **options)


def on_console(console: Console) -> Progress:
    """Return a reporter for a console: a live bar on a terminal, a line now and then elsewhere.

    Bytes, the unit ``B``, are told in megabytes.
    """
    return partial(_bar, console) if console.is_terminal else _lines(console)


@contextmanager
def _bar(console: Console, description: str, total: int, unit: str) -> Iterator[Advance]:
    from rich import progress
    from rich.text import Text

    class Rate(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            rate = task.completed / max(task.elapsed or 0, 1e-9)
            return Text(f"{rate:.0f} {unit}/s" if task.completed else "")

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=24),
        *((progress.DownloadColumn(), progress.TransferSpeedColumn()) if unit == "B"
          else (progress.TaskProgressColumn(), Rate())),
        progress.TimeRemainingColumn(),
    )  # fmt: skip
    with progress.Progress(*columns, console=console, transient=True) as bar:
        handle = bar.add_task(printable(description), total=total)
        yield lambda n: bar.update(handle, advance=n)


def _lines(console: Console) -> Progress:
    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True, highlight=False)

    return in_words(say, _LINE_EVERY_S, at_end=True)


def in_words(say: Callable[[str], None], every_s: float, at_end: bool = False) -> Progress:
    """Return a reporter that says every some seconds how far a task is, and at its end if asked."""

    @contextmanager
    def task(description: str, total: int, unit: str) -> Iterator[Advance]:
        start = last = time.monotonic()
        done = 0

        def advance(n: int) -> None:
            nonlocal done, last
            done += n
            now = time.monotonic()
            if now - last < every_s and not (at_end and done >= total):
                return
            last = now
            rate = max(done, 1) / max(now - start, 1e-9)
            how_far = f"{done}/{total}, {rate:.0f} {unit}/s"
            if unit == "B":
                how_far = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
            left = max(total - done, 0) / rate
            say(f"{description}: {how_far}, {left:.0f} s left")

        yield advance

    return task

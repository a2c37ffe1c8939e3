"""Showing a sweep while it runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medplus.naming import printable
from medplus.sweep.events import Doing, Ended, Event, Started
from medplus.sweep.job import Job
from medplus.sweep.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

_REFRESH_PER_S = 4


@dataclass
class Standing:
    """Where a sweep stands: counted from the events, weighed by the estimates.

    Attributes
    ----------
    busy : dict
        Per worker, its job, what it does, and when it began.
    finished, failed, blocked : int
        Jobs that have ended; what another sweep has finished meanwhile counts as finished.
    """

    total: int = 0
    finished: int = 0
    failed: int = 0
    blocked: int = 0
    busy: dict[str, tuple[Job, str, float]] = field(default_factory=dict)
    _weights: dict[str, float] = field(default_factory=dict)
    _done: float = 0.0
    _start: float = field(default_factory=time.monotonic)

    def begin(self, plan: Plan) -> None:
        """Note what there is to do."""
        left = {job.id for task in plan.tasks for job in task.jobs}
        self._weights = {p.job.id: p.seconds for p in plan.jobs if p.job.id in left}
        self.total = len(left)
        self._start = time.monotonic()

    def hear(self, event: Event) -> None:
        """Take an event into account."""
        if isinstance(event, Started):
            for worker in [w for w, (job, *_) in self.busy.items() if job == event.job]:
                del self.busy[worker]  # lost, with its node
            self.busy[event.worker] = (event.job, "", time.monotonic())
        elif isinstance(event, Doing):
            if event.worker in self.busy:
                job, _, since = self.busy[event.worker]
                self.busy[event.worker] = (job, event.text, since)
        else:
            self.busy.pop(event.worker, None)
            self.finished += event.outcome in ("finished", "skipped")
            self.failed += event.outcome == "failed"
            self.blocked += event.outcome == "blocked"
            if event.outcome == "held":
                return
            weight = self._weights.pop(event.job.id, 0.0)
            if event.outcome in ("finished", "failed"):  # the others took none of our time
                self._done += weight

    @property
    def elapsed(self) -> float:
        """Seconds since the sweep began."""
        return time.monotonic() - self._start

    @property
    def remaining(self) -> float | None:
        """Seconds that it will still take, or None as long as nothing has ended."""
        left = sum(self._weights.values())
        return self.elapsed * left / self._done if self._done else None


def duration(seconds: float) -> str:
    """Return a time in words: ``12 s``, ``3 min``, ``2.5 h``, ``4.1 days``.

    >>> [duration(s) for s in (0.42, 12, 200, 9000, 355_000)]
    ['0.4 s', '12 s', '3 min', '2.5 h', '4.1 days']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


class View:
    """Shows a sweep on a console; `hear` and `begin` go to `medplus.sweep.conduct.Sweep.run`.

    Parameters
    ----------
    console : rich.console.Console or None
        None shows nothing.
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._standing = Standing()
        self._live: Live | None = None
        self._waited_for: list[str] = []

    def __enter__(self) -> View:
        return self

    def begin(self, plan: Plan) -> None:
        """Show what there is to do."""
        self._standing.begin(plan)
        if self._console is None or not plan.tasks:
            return
        already = len(plan.jobs) - self._standing.total
        self._say(f"{self._standing.total} jobs to do, {already} done or failed before")
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                console=self._console, get_renderable=self._render,
                refresh_per_second=_REFRESH_PER_S, transient=True,
            )  # fmt: skip
            self._live.start()

    def hear(self, event: Event) -> None:
        """Show an event."""
        self._standing.hear(event)
        if not isinstance(event, Ended) or event.outcome == "held":
            return
        if self._live is None or event.outcome not in (
            "finished",
            "skipped",
        ):  # the live view counts the others
            self._say(self._line(event))

    def waiting(self, who: list[str]) -> None:
        """Show that all that is left is done elsewhere."""
        if who != self._waited_for:
            self._waited_for = who
            self._say(f"waiting for what {' and '.join(who)} will finish")

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def _say(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def _line(self, event: Ended) -> str:
        done = self._standing.finished + self._standing.failed + self._standing.blocked
        what = f"[{done}/{self._standing.total}] {event.outcome} {event.job.name}"
        if event.outcome == "skipped":
            return f"{what}: another sweep has finished it"
        if event.outcome == "finished":
            return f"{what} · {duration(event.seconds)}{self._ahead()}"
        return f"{what}: {event.message}" if event.message else what

    def _ahead(self) -> str:
        remaining = self._standing.remaining
        return f" · about {duration(remaining)} left" if remaining else ""

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        standing = self._standing
        done = standing.finished + standing.failed + standing.blocked
        table = Table.grid(padding=(0, 2))
        for worker, (job, text, since) in sorted(standing.busy.items()):
            table.add_row(
                Text(worker),
                Text(printable(job.name)),
                Text(printable(text)),
                duration(time.monotonic() - since),
            )
        if not standing.busy:
            table.add_row("workers are starting")
        failed = f", {standing.failed} failed" if standing.failed else ""
        blocked = f", {standing.blocked} blocked" if standing.blocked else ""
        line = Text(
            f"{standing.finished} of {standing.total} jobs finished{failed}{blocked}, "
            f"{len(standing.busy)} running · {duration(standing.elapsed)}{self._ahead()}"
        )
        bar = Table.grid(expand=True)  # a bar by itself does not end its line
        bar.add_row(ProgressBar(total=max(standing.total, 1), completed=done))
        return Group(table, bar, line)

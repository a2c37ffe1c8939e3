"""Showing a sweep while it runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from medplus.naming import duration, printable
from medplus.sweep.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

    from medplus.sweep.conduct import Running

_REFRESH_PER_S = 4


class View:
    """Shows a sweep on a console; `look` goes to `medplus.sweep.conduct.Sweep.run`.

    Parameters
    ----------
    console : rich.console.Console or None
        None shows nothing.
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._live: Live | None = None
        self._start = time.monotonic()
        self._seconds: dict[str, float] | None = None  # of the jobs that there are to do
        self._ended: dict[str, str] = {}
        self._running: Running = []

    def __enter__(self) -> View:
        return self

    def look(self, plan: Plan, running: Running) -> None:
        """Show how the sweep stands: at first what there is to do, then what has ended since."""
        self._running = running
        if self._seconds is None:
            left = {job.id for cell in plan.cells for job in cell.jobs}
            self._seconds = {p.job.id: p.seconds for p in plan.jobs if p.job.id in left}
            if left:
                self._begin(plan)
            return
        for planned in plan.jobs:
            job = planned.job
            if planned.state != "left" and job.id in self._seconds and job.id not in self._ended:
                self._ended[job.id] = planned.state
                if self._live is None or planned.state == "failed":  # the bar counts the others
                    count = f"[{len(self._ended)}/{len(self._seconds)}]"
                    self._say(f"{count} {planned.state} {job.name}{self._ahead()}")

    def _begin(self, plan: Plan) -> None:
        assert self._seconds is not None
        n, before = len(self._seconds), len(plan.jobs) - plan.count("left")
        beyond = len(plan.jobs) - n - before
        out = f", {beyond} out of reach" if beyond else ""
        others = f", {len(self._running)} under way elsewhere" if self._running else ""
        self._say(f"{n} jobs to do, {before} done or failed before{out}{others}")
        if self._console is not None and self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                console=self._console, get_renderable=self._render,
                refresh_per_second=_REFRESH_PER_S, transient=True,
            )  # fmt: skip
            self._live.start()

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def _say(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def _ahead(self) -> str:
        """Tell how long it will still take, by the estimates of what is done and what is left."""
        weights = self._seconds or {}
        done = sum(weights[job] for job in self._ended)
        left = sum(weights.values()) - done
        taken = time.monotonic() - self._start
        return f" · about {duration(taken * left / done)} left" if done and left > 0.01 else ""

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for job, claim in self._running:
            since = duration(max(time.time() - claim.since, 0))
            words = (claim.worker, job.name, claim.doing, since)
            table.add_row(*(Text(printable(word)) for word in words))
        if not self._running:
            table.add_row("workers are starting")
        total, failed = len(self._seconds or ()), [*self._ended.values()].count("failed")
        line = Text(
            f"{len(self._ended) - failed} of {total} jobs finished"
            f"{f', {failed} failed' if failed else ''}, {len(self._running)} running · "
            f"{duration(time.monotonic() - self._start)}{self._ahead()}"
        )
        bar = Table.grid(expand=True)  # a bar by itself does not end its line
        bar.add_row(ProgressBar(total=max(total, 1), completed=len(self._ended)))
        return Group(table, bar, line)

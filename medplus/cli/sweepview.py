"""Showing a sweep while it runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from medplus.naming import duration, printable
from medplus.sweep.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    from medplus.sweep.conduct import Running


class View:
    """Shows a sweep on a console; `look` goes to `medplus.sweep.conduct.Sweep.run`.

    Parameters
    ----------
    console : rich.console.Console or None
        None shows nothing.
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._live: Status | None = None
        self._start = time.monotonic()
        self._seconds: dict[str, float] | None = None  # of the jobs that there are to do
        self._ended: dict[str, str] = {}

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def look(self, plan: Plan, running: Running) -> None:
        """Show how the sweep stands: at first what there is to do, then what has ended since."""
        if self._seconds is None:
            left = {job.id for cell in plan.cells for job in cell.jobs}
            self._seconds = {job.id: job.seconds for job in plan.jobs if job.id in left}
            if left:
                self._begin(plan, running)
            return
        for job in plan.jobs:
            if job.state != "left" and job.id in self._seconds and job.id not in self._ended:
                self._ended[job.id] = job.state
                if self._live is None or job.state == "failed":  # the view counts the others
                    count = f"[{len(self._ended)}/{len(self._seconds)}]"
                    self._say(f"{count} {job.state} {job.name}{self._ahead()}")
        if self._live is not None:
            self._live.update(self._text(running))

    def _begin(self, plan: Plan, running: Running) -> None:
        n, before = len(self._seconds or ()), len(plan.jobs) - plan.count("left")
        beyond = len(plan.jobs) - n - before
        out = f", {beyond} out of reach" if beyond else ""
        others = f", {len(running)} under way elsewhere" if running else ""
        self._say(f"{n} jobs to do, {before} done or failed before{out}{others}")
        if self._console is not None and self._console.is_terminal:
            self._live = self._console.status(self._text(running))
            self._live.start()

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

    def _text(self, running: Running) -> Text:
        from rich.text import Text

        total, failed = len(self._seconds or ()), [*self._ended.values()].count("failed")
        lines = [
            f"{len(self._ended) - failed} of {total} jobs finished"
            f"{f', {failed} failed' if failed else ''}, {len(running)} running · "
            f"{duration(time.monotonic() - self._start)}{self._ahead()}"
        ]
        for job, claim in running:
            since = duration(max(time.time() - claim.since, 0))
            lines.append(printable("  ".join((claim.worker, job.name, claim.doing, since))))
        lines += [] if running or self._ended else ["workers are starting"]
        return Text("\n".join(lines))

"""An engine for tests of what is round about engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medplus.sweep.events import Event
from medplus.sweep.job import Place, Task
from medplus.sweep.work import perform


class Here:
    """Does the tasks in this process, one after the other."""

    workers = 1

    def run(self, tasks: Sequence[Task], place: Place) -> Iterator[Event]:
        for task in tasks:
            events: list[Event] = []
            perform(task, place, "here", events.append)
            yield from events

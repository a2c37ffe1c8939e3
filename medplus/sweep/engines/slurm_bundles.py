"""Tasks for an array of jobs: which of them share an element."""

from __future__ import annotations

from collections.abc import Sequence

from medplus.sweep.job import Task

Bundle = list[Task]


def make_bundles(tasks: Sequence[Task], most: int) -> list[Bundle]:
    """Spread tasks over at most `most` bundles of about equal time, the longest bundle first.

    The largest task that is left goes to the bundle that has the least (Graham's rule: the longest
    bundle takes at most 4/3 of what the best division would take). Tasks on the same images go
    together where the longest bundle does not become longer by it.
    """
    largest_first = sorted(tasks, key=lambda task: -task.seconds)
    if len(tasks) <= most:
        return [[task] for task in largest_first]
    balanced = _spread(largest_first, most, 0.0)
    limit = _longest(balanced)
    grouped = _spread(largest_first, most, limit)
    bundles = grouped if _longest(grouped) <= limit else balanced
    return sorted(filter(None, bundles), key=seconds_of, reverse=True)


def seconds_of(bundle: Bundle) -> float:
    """Return the estimated wall time of a bundle."""
    return sum(task.seconds for task in bundle)


def _longest(bundles: list[Bundle]) -> float:
    return max(map(seconds_of, bundles))


def _spread(tasks: Sequence[Task], n: int, limit: float) -> list[Bundle]:
    """Give each task to a bundle with its images that stays within `limit`, or to the shortest."""
    bundles: list[Bundle] = [[] for _ in range(n)]
    loads = [0.0] * n
    homes: dict[tuple[str, int | None], list[int]] = {}
    for task in tasks:
        at_home = homes.setdefault(task.group, [])
        fits = [i for i in at_home if loads[i] + task.seconds <= limit]
        place = min(fits or range(n), key=loads.__getitem__)
        bundles[place].append(task)
        loads[place] += task.seconds
        if place not in at_home:
            at_home.append(place)
    return bundles

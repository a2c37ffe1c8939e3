"""Worker processes for decoding: started anew, whatever threads the caller has.

Few images are read by the calling process: a worker takes about a second to start.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

log = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")

_MOST_WORKERS = 16
_IMAGES_PER_WORKER = 500
_CHUNK, _AHEAD = 64, 3
"""Tasks that a worker is given at once, and how often, before their results are taken."""


def worker_count(n_images: int) -> int:
    """Return how many processes read so many images; 1 is the calling process itself."""
    wanted = min(n_images // _IMAGES_PER_WORKER, _MOST_WORKERS)
    if wanted < 2 or multiprocessing.current_process().daemon:  # which may have no children
        return 1
    from joblib import cpu_count

    return int(min(wanted, cpu_count()))


def in_workers(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Yield the result of every task, in order; few are worked on before they are asked for.

    Where a worker process has died, the calling process does the rest.
    """
    done = 0
    if workers > 1:
        from joblib.externals.loky import get_reusable_executor

        executor = get_reusable_executor(max_workers=workers)
        waiting: deque[Future[list[Result]]] = deque()
        try:
            for start in range(0, len(tasks), _CHUNK):
                waiting.append(executor.submit(_each, function, tasks[start : start + _CHUNK]))
                if len(waiting) > _AHEAD * workers:
                    for result in waiting.popleft().result():
                        yield result
                        done += 1
            while waiting:
                for result in waiting.popleft().result():
                    yield result
                    done += 1
        except BrokenProcessPool:
            log.warning("a process that reads images has died; this one reads the rest")
        finally:
            for left in waiting:
                left.cancel()
            executor.shutdown(wait=True)  # else idle workers keep their memory
    yield from map(function, tasks[done:])


def _each(function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    return [function(task) for task in tasks]

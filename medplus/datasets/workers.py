"""Worker processes for decoding: spawned, so that threads and devices of the caller do not matter.

Few images are read by the calling process: a worker takes about half a second to start.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from medplus.errors import DatasetError

log = logging.getLogger(__name__)

Task = TypeVar("Task")
Result = TypeVar("Result")

_MOST_WORKERS = 16
_IMAGES_PER_WORKER = 500
_CHUNK = 64


def worker_count(n_images: int) -> int:
    """Return how many processes read so many images; 0 is the calling process itself."""
    if multiprocessing.current_process().daemon or not _can_start_again():
        return 0  # a daemon may have no children
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(cores or 1, _MOST_WORKERS, n_images // _IMAGES_PER_WORKER)
    return workers if workers > 1 else 0


def _can_start_again() -> bool:
    """Tell whether a new process can import the main module: not where that came from stdin."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    return file is None or main.__spec__ is not None or Path(file).exists()


def in_workers(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Yield the result of every task, in order.

    Where worker processes cannot run or have died, the calling process does the rest.
    """
    done = 0
    if workers:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_leave_interrupts) as pool:
            try:
                for result in pool.map(function, tasks, chunksize=_CHUNK):
                    yield result
                    done += 1
            except BrokenProcessPool:
                log.warning(
                    "the processes that read images have died (a script must call medplus under: "
                    "if __name__ == '__main__':); this process reads the rest, which takes longer"
                )
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    yield from map(function, tasks[done:])


def refuse_while_starting() -> None:
    """Refuse to read images in a worker that is only being started.

    A script that calls medplus without ``if __name__ == '__main__'`` is run again by every worker
    that it starts: those would wait for the cache that their own parent holds.

    Raises
    ------
    DatasetError
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise DatasetError("a script must call medplus under: if __name__ == '__main__':")


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer

"""What runs on the nodes of a Ray cluster: tasks, and the mailbox through which they tell."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from medplus.sweep.events import Doing, Ended, Event, Perform
from medplus.sweep.job import Place, Task

_POST_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Order:
    """A task on its way to a worker.

    Attributes
    ----------
    number, attempt : int
        Which of the round's tasks, and which attempt at it.
    threads : int
        How many threads it may compute with.
    folder : str
        What relative paths in the grid begin at.
    """

    number: int
    attempt: int
    task: Task
    place: Place
    threads: int
    folder: str
    perform: Perform


@dataclass(frozen=True)
class Worker:
    """A worker process; what it tells first.

    Attributes
    ----------
    node : str
        Ray's id of its node.
    """

    host: str
    pid: int
    node: str

    @property
    def name(self) -> str:
        """The name by which it tells of itself."""
        return f"{self.host}:{self.pid}"


@dataclass(frozen=True)
class Letter:
    """What an attempt at a task tells."""

    number: int
    attempt: int
    content: Worker | Event


class Mailbox:
    """An actor that keeps letters until they are taken."""

    def __init__(self) -> None:
        self._letters: list[Letter] = []

    def post(self, letter: Letter) -> None:
        """Add a letter."""
        self._letters.append(letter)

    def take(self) -> list[Letter]:
        """Return all letters, and keep none."""
        letters, self._letters = self._letters, []
        return letters


def carry_out(order: Order, mailbox: Any) -> list[Ended]:
    """Do a task in a worker process, and return how its jobs ended.

    That is told by letter as well; the mailbox may be lost.
    """
    import ray

    _use_threads(order.threads)
    with suppress(OSError):  # without the folder only relative paths fail, and they say so
        os.chdir(order.folder)
    node = ray.get_runtime_context().get_node_id()
    worker = Worker(socket.gethostname(), os.getpid(), node)
    post = _Post(order, mailbox)
    post(worker)
    try:
        order.perform(order.task, order.place, worker.name, post)
    finally:
        _free_gpu()
    return post.endings


class _Post:
    """Sends letters; all but the passing ones have arrived when it returns.

    So they are known if the process dies right after. Waiting for the future, unlike `ray.get`,
    does not lend the worker's cores to another task.
    """

    def __init__(self, order: Order, mailbox: Any) -> None:
        self._order = order
        self._mailbox = mailbox
        self.endings: list[Ended] = []

    def __call__(self, content: Worker | Event) -> None:
        from ray.exceptions import RayError

        if isinstance(content, Ended):
            self.endings.append(content)
        letter = Letter(self._order.number, self._order.attempt, content)
        with suppress(RayError, TimeoutError):  # lost or away: the work goes on
            sent = self._mailbox.post.remote(letter)
            if not isinstance(content, Doing):
                sent.future().result(_POST_TIMEOUT_S)


def _use_threads(threads: int) -> None:
    # Ray sets only the first of these, and only where the node has not.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # otherwise it reads them when it is loaded
        import torch

        torch.set_num_threads(threads)


def _free_gpu() -> None:
    """Leave no cached memory behind: the next task on this GPU may have another process."""
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()

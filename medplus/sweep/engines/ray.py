"""The Ray engine: tasks on the nodes of a Ray cluster, which share a file system."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from medplus.errors import SweepError, first_line
from medplus.sweep.desk import Desk
from medplus.sweep.engines import perform
from medplus.sweep.engines.attempts import Attempts
from medplus.sweep.engines.ray_cluster import (
    Resources,
    check_room,
    connected,
    import_ray,
    is_alive,
    nodes,
    one_sentence,
    room,
    this_machine,
)
from medplus.sweep.engines.ray_worker import Letter, Mailbox, Order, Worker, carry_out
from medplus.sweep.events import Event, Perform
from medplus.sweep.job import Place, Task

_POLL_S = 0.2
_SILENCE_S = 5.0
"""After so long without a word, look whether any node is left that can do the tasks."""
_NODE_DEATH_SHOWS_S = 3.0
_MAILBOX_STARTS_S = 120.0
_PATIENCE_S = 60.0


class RayEngine:
    """Runs each task as a task of Ray's, the largest first.

    Parameters
    ----------
    workers : int, optional
        At most so many tasks at once; by default as many as the cluster's resources take.
    address : str, optional
        ``HOST:PORT`` of a cluster, or ``auto`` for the one that this machine belongs to. By
        default one is started on this machine alone, for as long as a round of the sweep. If this
        process is connected to a cluster already, that one is used.
    cpus : int
        CPU cores, and so threads, per task.
    gpus : float, optional
        GPUs per task, of which one may be shared; by default 1, where the cluster has any and the
        device is not the CPU.
    memory_gb : float, optional
        Memory per task, in 10⁹ bytes; Ray counts it, but does not enforce it.
    max_retries : int
        How many nodes a task may lose before its job counts as the culprit.
    """

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        cpus: int = 1,
        gpus: float | None = None,
        memory_gb: float | None = None,
        max_retries: int = 3,
        _perform: Perform = perform,
    ) -> None:
        import_ray()
        self._limit = workers
        self._address = address
        self._cpus = cpus
        self._gpus = gpus
        self._memory_gb = memory_gb
        self._max_retries = max_retries
        self._perform = _perform
        self.workers = workers or 1
        if address is None:
            self.workers = self._count(self._request("auto", [this_machine()]), [this_machine()])

    def run(self, tasks: Sequence[Task], place: Place) -> Generator[Event]:
        """Run tasks; see `medplus.sweep.engines.Engine`."""
        with connected(self._address):
            request = self._request(place.device, nodes())
            check_room(request, nodes())
            self.workers = self._count(request, nodes())
            yield from _Round(
                tasks, place, request, self._limit, self._max_retries, self._perform
            ).run()

    def _request(self, device: str, have: Sequence[Resources]) -> Resources:
        gpus = self._gpus
        if gpus is None:
            found = device == "auto" and any(node.get("GPU") for node in have)
            gpus = 1.0 if found or device.startswith("cuda") else 0.0
        memory = (self._memory_gb or 0) * 1e9
        return {"CPU": self._cpus, "GPU": gpus, "memory": memory}

    def _count(self, request: Resources, have: Sequence[Resources]) -> int:
        return min(room(request, have) or 1, self._limit or 2**31)


class _Round:
    """One run of the engine on a cluster that is connected.

    Ray's own retries stay unused: they would not tell which job ended its worker, and would let it
    end others.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        place: Place,
        request: Resources,
        limit: int | None,
        max_retries: int,
        perform: Perform,
    ) -> None:
        self._ray = import_ray()
        self._place = _on_cpu_without_gpu(place, request)
        self._request = request
        self._limit = limit or len(tasks)
        self._max_retries = max_retries
        self._perform = perform
        self._desk = Desk(Path(place.runs))
        self._attempts = [Attempts(task) for task in tasks]
        self._workers: dict[int, Worker] = {}
        self._queue = list(range(len(tasks)))
        self._flights: dict[Any, int] = {}
        self._mailbox = self._open_mailbox()
        self._function = self._remote(carry_out, request)
        self._heard = time.monotonic()

    def run(self) -> Iterator[Event]:
        try:
            while self._queue or self._flights:
                self._launch()
                yield from self._listen()
        except self._ray.exceptions.RayError as error:
            raise SweepError(f"the Ray cluster is lost: {one_sentence(error)}") from None
        finally:
            self._stop()

    def _open_mailbox(self) -> Any:
        """Start the mailbox on this node: with the loss of this one the sweep is over anyway."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = self._ray.get_runtime_context().get_node_id()
        pinned = NodeAffinitySchedulingStrategy(here, soft=False)
        mailbox = self._ray.remote(Mailbox).options(
            num_cpus=0, max_restarts=-1, scheduling_strategy=pinned
        ).remote()  # fmt: skip
        try:
            self._ray.get(mailbox.take.remote(), timeout=_MAILBOX_STARTS_S)
        except self._ray.exceptions.RayError as error:
            raise _start_failure(error) from None
        return mailbox

    def _remote(self, function: Any, request: Resources) -> Any:
        # Ray may give a process that is used again another GPU than CUDA has begun with in it.
        may_change = request["GPU"] > 0 and any(node.get("GPU", 0) > 1 for node in nodes())
        return self._ray.remote(
            num_cpus=request["CPU"],
            num_gpus=request["GPU"],
            memory=request["memory"] or None,
            max_calls=1 if may_change else 0,
            max_retries=0,
        )(function)

    def _launch(self) -> None:
        while self._queue and len(self._flights) < self._limit:
            number = self._queue.pop(0)
            attempts = self._attempts[number]
            task = attempts.task
            if task is None:
                continue
            order = Order(
                number, attempts.number, task, self._place, int(self._request["CPU"]),
                str(Path.cwd()), self._perform,
            )  # fmt: skip
            named = self._function.options(name=f"medplus {task.jobs[-1].name}")
            self._flights[named.remote(order, self._mailbox)] = number

    def _listen(self) -> Iterator[Event]:
        """Yield what has been told, then deal with the tasks that had ended before."""
        if not self._flights:
            return
        landed, _ = self._ray.wait(list(self._flights), timeout=_POLL_S)
        letters = self._letters()
        for letter in letters:
            attempts = self._attempts[letter.number]
            if isinstance(letter.content, Worker):
                self._workers[letter.number] = letter.content
                attempts.begin(letter.attempt)
            else:
                yield from attempts.hear(letter.attempt, letter.content)
        for flight in landed:
            yield from self._land(flight)
        self._mind_the_silence(bool(letters or landed))

    def _letters(self) -> list[Letter]:
        with suppress(self._ray.exceptions.RayError):  # it starts again: what it held is lost
            letters: list[Letter] = self._ray.get(self._mailbox.take.remote(), timeout=_SILENCE_S)
            return letters
        return []

    def _mind_the_silence(self, heard: bool) -> None:
        now = time.monotonic()
        if not heard and now - self._heard < _SILENCE_S:
            return
        if not heard:
            check_room(self._request, nodes())
        self._heard = now

    def _land(self, flight: Any) -> Iterator[Event]:
        errors = self._ray.exceptions
        number = self._flights.pop(flight)
        attempts = self._attempts[number]
        try:
            for ended in self._ray.get(flight):
                yield from attempts.hear(attempts.number, ended)
        except (errors.NodeDiedError, errors.TaskCancelledError):
            yield from self._lose(number, "its node was lost, or interrupted it")
        except errors.OutOfMemoryError:
            yield from self._kill(
                number,
                "its node ran out of memory, and Ray killed its process; ask for more memory per "
                "task, so that fewer share a node, or use a smaller batch_size in the grid",
            )
        except errors.WorkerCrashedError:
            if self._node_is_lost(number):
                yield from self._lose(number, "its node was lost")
            else:
                yield from self._kill(
                    number,
                    "its process was killed or crashed; its log may tell why. The system kills "
                    "when memory runs out; if so, ask for more memory per task, so that fewer "
                    "share a node, or use a smaller batch_size in the grid",
                )
        except errors.RayTaskError as error:
            yield from self._fail(number, error)

    def _node_is_lost(self, number: int) -> bool:
        """Tell whether the worker has died with its node, whose end shows a little later."""
        worker = self._workers.get(number)
        until = time.monotonic() + _NODE_DEATH_SHOWS_S
        while worker is not None and time.monotonic() < until:
            if not is_alive(worker.node):
                return True
            time.sleep(_POLL_S)
        return False

    def _lose(self, number: int, why: str) -> Iterator[Event]:
        attempts = self._attempts[number]
        if attempts.task is None:
            return
        if attempts.began and attempts.lost >= self._max_retries:
            yield from self._kill(number, f"{why}, {attempts.lost + 1} times")
            return
        attempts.lose()
        self._queue.insert(0, number)

    def _kill(self, number: int, message: str) -> Iterator[Event]:
        attempts = self._attempts[number]
        if attempts.task is None:
            return
        worker = self._workers.get(number)
        where = (worker.host, worker.pid) if worker else ("", 0)
        self._desk.record_death(attempts.suspect, message, *where)
        yield from attempts.kill(worker.name if worker else "", message)
        self._queue.insert(0, number)

    def _fail(self, number: int, error: Any) -> Iterator[Event]:
        """End the job that raised what `perform` does not deal with."""
        cause = error.cause if isinstance(error.cause, Exception) else error
        if not self._attempts[number].began:
            raise _start_failure(cause)
        self._desk.record_error(self._attempts[number].suspect, cause)
        worker = self._workers[number]
        yield from self._attempts[number].kill(worker.name, first_line(cause))
        self._queue.insert(0, number)

    def _stop(self) -> None:
        """Interrupt what is under way, wait until it has saved what it can, or kill it."""
        flights = list(self._flights)
        with suppress(self._ray.exceptions.RayError):
            for flight in flights:
                self._ray.cancel(flight)
            try:
                if flights:
                    self._ray.wait(flights, num_returns=len(flights), timeout=_PATIENCE_S)
            finally:
                for flight in flights:
                    self._ray.cancel(flight, force=True)
                self._ray.kill(self._mailbox)


def _on_cpu_without_gpu(place: Place, request: Resources) -> Place:
    """Keep workers that were given no GPU from taking one."""
    return replace(place, device="cpu") if not request["GPU"] and place.device == "auto" else place


def _start_failure(error: Exception) -> SweepError:
    text = one_sentence(error)
    if "No module named" in text:
        missing = " ".join(text[text.index("No module named") :].split()[:4]).rstrip(".")
        return SweepError(
            f"Ray's workers cannot import what a task needs ({missing}); install the same medplus "
            "in the Python of every node that `ray start` runs in"
        )
    return SweepError(f"Ray's workers cannot start: {text}")

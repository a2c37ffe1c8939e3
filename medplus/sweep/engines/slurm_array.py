"""Following an array of SLURM: its elements' events, and what becomes of those that die."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medplus.atomic import remove_folder
from medplus.errors import SweepError
from medplus.sweep.desk import Desk
from medplus.sweep.engines.slurm_bundles import Bundle
from medplus.sweep.engines.slurm_cluster import ENDINGS, Cluster, Submission
from medplus.sweep.engines.slurm_worker import Element, from_lines
from medplus.sweep.events import Ended, Event, Started
from medplus.sweep.job import Job

_TAKEN_AWAY = ("NODE_FAIL", "PREEMPTED")
_OUT_OF_MEMORY = ("exceeded job memory limit", "oom_kill event", "oom-kill event")


@dataclass(frozen=True)
class Pace:
    """How often elements and SLURM are looked at, and how long is waited for them; in seconds.

    Attributes
    ----------
    read_s : float
        Between two looks at what the elements tell.
    ask_s : tuple of float
        Between two questions to SLURM, at first and at last: a controller has other users, too.
    patience_s : float
        For interrupted elements to save what they can.
    last_words_s : float
        For submitit to write the results of elements that are over.
    """

    read_s: float = 1.0
    ask_s: tuple[float, float] = (2.0, 30.0)
    patience_s: float = 60.0
    last_words_s: float = 10.0


@dataclass
class Followed:
    """An element of the array, and what it has told so far; has_begun, has_failed: of any job."""

    submission: Submission
    bundle: Bundle
    file: Path
    offset: int = 0
    told: Element | None = None
    doing: Job | None = None
    ended: set[str] = field(default_factory=set)
    has_begun: bool = False
    has_failed: bool = False
    settled: bool = False
    seen_dead: bool = False

    def __post_init__(self) -> None:
        self.jobs = {job.id: job for task in self.bundle for job in task.jobs}

    @property
    def name(self) -> str:
        """The element's name for itself, or its SLURM id before it has one."""
        return self.told.worker if self.told else self.submission.job_id

    @property
    def state(self) -> str:
        """How it says that it stands: waiting, begun, saved or over."""
        return self.told.state if self.told else "waiting"

    def hear(self) -> Iterator[Event]:
        """Yield what the element has told since it was last heard."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self.offset += len(text)
        for event in from_lines(text, self.jobs):
            if isinstance(event, Element):
                self.told = event
                continue
            self.has_begun = True
            if isinstance(event, Started):
                self.doing = event.job
            elif isinstance(event, Ended):
                self.doing = None
                if event.job.id in self.ended:
                    continue
                self.ended.add(event.job.id)
                self.has_failed |= event.outcome == "failed"
            yield event

    @property
    def has_ended_well(self) -> bool:
        """Whether it has done all that it was to do."""
        return self.state == "over" and not self.has_failed

    def remove_files(self) -> None:
        """Remove what it has told, and what submitit has kept of it."""
        for path in (self.file, *self.file.parent.glob(f"{self.submission.job_id}_*")):
            path.unlink(missing_ok=True)

    def left(self) -> list[Job]:
        """Return the jobs that have not ended."""
        return [job for name, job in self.jobs.items() if name not in self.ended]


class Array:
    """The elements of an array, of which some may die.

    Parameters
    ----------
    elements : list of Followed
    cluster : Cluster
    desk : Desk
        Where deaths are recorded.
    pace : Pace
    """

    def __init__(self, elements: list[Followed], cluster: Cluster, desk: Desk, pace: Pace) -> None:
        self._elements = elements
        self._cluster = cluster
        self._desk = desk
        self._pace = pace
        self._trouble: list[str] = []

    def follow(self) -> Iterator[Event]:
        """Yield what the elements tell, and what has become of those that tell no more."""
        start = asked = time.monotonic()
        while live := self._live():
            time.sleep(self._pace.read_s)
            for element in live:
                yield from self._hear(element)
            now = time.monotonic()
            first, last = self._pace.ask_s
            is_time = now - asked >= min(max(first, (now - start) / 10), last)
            if is_time and self._live():
                yield from self._ask()
                asked = time.monotonic()
        if self._trouble:
            more = f" (and {len(self._trouble) - 1} more)" if len(self._trouble) > 1 else ""
            raise SweepError(f"{self._trouble[0]}{more}")

    def _live(self) -> list[Followed]:
        return [element for element in self._elements if not element.settled]

    def _hear(self, element: Followed) -> Iterator[Event]:
        yield from element.hear()
        if element.state == "over":
            yield from self._settle(element, "what became of it was not told; it is planned again")

    def _ask(self) -> Iterator[Event]:
        """Ask SLURM who is dead; believe it the second time, since files may be late."""
        states = self._cluster.states()
        for element in self._live():
            state = states.get(element.submission.job_id, "")
            was_dead, element.seen_dead = element.seen_dead, state in ENDINGS
            if was_dead and element.seen_dead:
                yield from self._hear(element)
                if not element.settled:
                    yield from self._bury(element, state)

    def _bury(self, element: Followed, state: str) -> Iterator[Event]:
        """Tell of the jobs that an element leaves: one may have failed, others are left to plan."""
        name, errors = element.submission.job_id, element.submission.paths.stderr
        words = ENDINGS["OUT_OF_MEMORY" if _tells_of_memory(errors) else state]
        saved = element.state == "saved"
        if state == "CANCELLED":
            self._trouble.append(
                f"element {name} was cancelled; sweep again to go on with what is left"
            )
        elif not element.has_begun and state not in _TAKEN_AWAY:
            why = "it was interrupted before" if saved else words
            self._trouble.append(f"element {name} could not start: {why}; {_last_line(errors)}")
        if element.doing is not None and not saved:
            yield from self._fail(element, element.doing, words)
        why = "it was interrupted" if saved else words
        yield from self._settle(element, f"left undone, to be planned again: {why}")

    def _fail(self, element: Followed, job: Job, words: str) -> Iterator[Event]:
        """Tell that a job has died, and that others cannot be done without it."""
        told = element.told
        self._desk.record_death(job, words, *((told.host, told.pid) if told else ("", 0)))
        [task] = [task for task in element.bundle if job in task.jobs]
        needy = task.jobs[task.jobs.index(job) + 1 :] if task.after(job) is None else ()
        element.ended.update(other.id for other in (job, *needy))
        yield Ended(element.name, job, "failed", message=words)
        for other in needy:
            yield Ended(element.name, other, "blocked")

    def _settle(self, element: Followed, message: str) -> Iterator[Event]:
        element.settled = True
        for job in element.left():
            yield Ended(element.name, job, "held", message=message)

    def tidy(self) -> None:
        """Remove the files of the elements that have ended well; those of others may say why not.

        submitit writes a result once an element is over. Where that does not come, the files stay.
        """
        waited_for = [element for element in self._elements if element.has_ended_well]
        deadline = time.monotonic() + self._pace.last_words_s
        while waited_for:
            late = [e for e in waited_for if not e.submission.paths.result_pickle.is_file()]
            for element in waited_for:
                if element not in late:
                    element.remove_files()
            waited_for = late if time.monotonic() < deadline else []
            time.sleep(self._pace.read_s if waited_for else 0)
        folder = self._elements[0].file.parent
        if all(path.suffix == ".sh" for path in folder.iterdir()):  # how they were submitted
            remove_folder(folder)

    def stop(self) -> None:
        """Interrupt the elements, wait until they have saved what they can, and cancel the rest."""
        if not self._live():
            return
        try:
            self._cluster.interrupt()
            deadline = time.monotonic() + self._pace.patience_s
            while time.monotonic() < deadline and any(map(_is_at_work, self._live())):
                time.sleep(self._pace.read_s)
        except KeyboardInterrupt:
            pass  # whoever asks twice does not want to wait
        finally:
            self._cluster.cancel()


def _is_at_work(element: Followed) -> bool:
    for _ in element.hear():
        pass
    return element.state == "begun"


def _last_line(path: Path) -> str:
    """Return the last line of an element's output, for a message, and where the others are."""
    lines = _output(path).split("\n")
    return f"{path} ends with: {lines[-1].strip()}" if lines[-1] else f"see {path}"


def _tells_of_memory(path: Path) -> bool:
    """Tell whether SLURM says that memory ran out: without cgroups, its state does not."""
    return any(words in _output(path).lower() for words in _OUT_OF_MEMORY)


def _output(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""

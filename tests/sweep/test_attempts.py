"""A task begun several times: every job ends once, whatever is lost on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from medplus.spec import ExtractSpec
from medplus.sweep.engines.attempts import Attempts
from medplus.sweep.events import Doing, Ended, Event, Started
from medplus.sweep.job import Job, Task

SPEC = ExtractSpec("toy", 28, "pixels")
EXTRACT, KNN, PROBE = (Job(kind, SPEC, {}, 1) for kind in ("extract", "knn", "probe"))
TASKS = st.sampled_from([(EXTRACT, KNN, PROBE), (KNN, PROBE), (EXTRACT,), (PROBE,)])


def attempts_at(*jobs: Job) -> Attempts:
    return Attempts(Task(jobs, None, 1.0))


def told(task: Task, outcomes: list[str]) -> Iterator[Event]:
    """Yield what `perform` tells of a task whose jobs end like this."""
    reason = None
    for job, outcome in zip(task.jobs, outcomes, strict=False):
        if reason is None:
            yield Started("w", job)
            yield Doing("w", "1/2")
            if job.kind == "extract" and outcome != "finished":
                reason = "held" if outcome == "held" else "blocked"
            yield Ended("w", job, outcome)  # type: ignore[arg-type]
        else:
            yield Ended("w", job, reason)  # type: ignore[arg-type]


@given(TASKS, st.data())
def test_every_job_ends_once_whatever_is_lost(jobs: tuple[Job, ...], data: st.DataObject) -> None:
    attempts = attempts_at(*jobs)
    heard: list[Event] = []
    late: list[tuple[int, Event]] = []
    while attempts.task is not None:
        number, task = attempts.number, attempts.task
        one = st.sampled_from(["finished", "failed", "held"])
        all_told = list(told(task, data.draw(st.lists(one, min_size=3, max_size=3))))
        cut = data.draw(st.integers(0, len(all_told)))
        attempts.begin(number)
        for event in all_told[:cut] + data.draw(st.permutations(all_told[:cut])):
            heard += attempts.hear(number, event)
        late += [(number, event) for event in all_told[cut:]]
        if attempts.task is not None:
            if data.draw(st.booleans()):
                heard += attempts.kill("w", "killed")
            else:
                attempts.lose()
        for old, event in late:
            assert old == attempts.number or attempts.hear(old, event) == []
        if attempts.lost > 5:
            heard += attempts.kill("w", "enough")

    ended = Counter(event.job.id for event in heard if isinstance(event, Ended))
    assert ended == {job.id: 1 for job in jobs}


def test_the_job_under_way_is_the_one_that_was_killed() -> None:
    attempts = attempts_at(EXTRACT, KNN, PROBE)
    attempts.hear(0, Started("w", EXTRACT))
    attempts.hear(0, Ended("w", EXTRACT, "finished"))
    attempts.hear(0, Started("w", KNN))

    assert attempts.kill("w", "gone") == [Ended("w", KNN, "failed", message="gone")]


def test_a_further_attempt_begins_with_the_finished_extraction() -> None:
    attempts = attempts_at(EXTRACT, KNN, PROBE)
    attempts.hear(0, Ended("w", EXTRACT, "finished"))
    attempts.hear(0, Ended("w", KNN, "finished"))
    attempts.lose()

    assert attempts.task is not None
    assert attempts.task.jobs == (EXTRACT, PROBE)
    assert attempts.hear(1, Started("w", EXTRACT)) == []
    assert attempts.hear(1, Ended("w", EXTRACT, "finished")) == []


def test_what_needs_a_killed_extraction_is_blocked() -> None:
    attempts = attempts_at(EXTRACT, KNN, PROBE)

    events = attempts.kill("w", "gone")

    assert [(e.job, e.outcome) for e in events if isinstance(e, Ended)] == [
        (EXTRACT, "failed"), (KNN, "blocked"), (PROBE, "blocked"),
    ]  # fmt: skip
    assert attempts.task is None


def test_only_attempts_that_began_count_as_lost() -> None:
    attempts = attempts_at(KNN)
    attempts.lose()
    attempts.begin(1)
    attempts.lose()

    assert (attempts.number, attempts.lost) == (2, 1)

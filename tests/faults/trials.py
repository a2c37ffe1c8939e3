"""Crash trials: a command is killed at random moments, and goes on as if nothing had happened.

``python -m tests.faults.trials finetune --trials 60 --seed 1`` tries one command and counts.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.warm import Ended, Fault, Warm
from tests.faults.world import COMMANDS, finished, leftovers, make_world, results, same

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_NEEDS_STORES = ("knn", "probe")
_ROUNDING = {"probe": 1e-5, "sweep": 1e-5}
"""Heads that are trained together differ in their last bits from those trained alone."""

_LATEST = 1.05
"""The last moment for a signal, as a share of the undisturbed run's time."""

_MOST_KILLS = 3


@dataclass
class Counts:
    """What came of the trials of one command.

    Attributes
    ----------
    trials : int
    kills : Counter
        Signals sent, by name.
    moments : Counter
        When they came: ``before`` anything was written, ``while``, or ``after`` the last result.
    kept : int
        Finished chunks and runs that were there after a kill; none was computed again.
    """

    command: str
    trials: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    kept: int = 0

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {n}" for name, n in sorted(self.kills.items()))
        moments = ", ".join(f"{self.moments[name]} {name}" for name in ("before", "while", "after"))
        return (
            f"{self.command}: {self.trials} trials, {self.kills.total()} kills ({kills}; {moments} "
            f"the work), {self.kept} finished chunks and runs kept; all equal, nothing left over"
        )


class Trials:
    """Trials of one command, all against the same undisturbed run.

    Parameters
    ----------
    folder : Path
        An empty folder to work in.
    """

    def __init__(self, warm: Warm, name: str, folder: Path, seed: int) -> None:
        self._warm = warm
        self._words = COMMANDS[name]
        self._folder = folder
        self._random = random.Random(f"{name} {seed}")
        self._origin = folder / "origin"
        self.counts = Counts(name)
        make_world(self._origin)
        if name in _NEEDS_STORES:
            self._succeeds(warm(*COMMANDS["extract"], folder=self._origin))
        self._begin = results(self._origin)
        whole = self._copy("whole")
        undisturbed = self._succeeds(warm(*self._words, folder=whole))
        self._expected = results(whole)
        self._seconds, self._changes = undisturbed.seconds, undisturbed.changes
        assert leftovers(whole) == []

    def _copy(self, name: str) -> Path:
        return Path(shutil.copytree(self._origin, self._folder / name))

    def _succeeds(self, ended: Ended) -> Ended:
        assert ended.code == 0, ended.said
        return ended

    def run(self, n: int) -> None:
        """Try `n` times; the signals take turns, the moments are random."""
        for _ in range(n):
            number = SIGNALS[self.counts.trials % len(SIGNALS)]
            self.counts.trials += 1
            folder = self._copy(f"trial {self.counts.trials}")
            for _ in range(self._random.randint(1, _MOST_KILLS)):
                if self._kill(folder, number) == "after":
                    break
            self._finish(folder)
            shutil.rmtree(folder)

    def _fault(self, number: int) -> Fault:
        group = self._random.random() < 0.7
        if self._random.random() < 0.5:
            return Fault(
                number, after_s=self._random.uniform(0, _LATEST * self._seconds), group=group
            )
        return Fault(number, at_change=self._random.randint(1, self._changes), group=group)

    def _kill(self, folder: Path, number: int) -> str:
        """Kill a run of the command, and tell when it was; check what it leaves."""
        before = finished(folder)
        fault = self._fault(number)
        ended = self._warm(*self._words, folder=folder, fault=fault)
        where = f"{fault}\n{ended.code}\n{ended.said}"
        allowed = {
            signal.SIGKILL: {0, -signal.SIGKILL},
            signal.SIGTERM: {0, -signal.SIGTERM, 130},
            signal.SIGINT: {0, 130},
        }
        assert ended.code in allowed[signal.Signals(number)], where
        assert "Traceback" not in ended.said, where
        after = finished(folder)
        assert before.items() <= after.items(), f"finished work was done again: {where}"
        if ended.code == 130 and fault.group:
            # A run under way keeps its state; nothing else may stay.
            stray = [name for name in leftovers(folder) if ".partial" not in name]
            assert stray == [], f"{stray}\n{where}"
        self.counts.kills[signal.Signals(number).name] += 1
        moment = self._moment(folder)
        self.counts.moments[moment] += 1
        self.counts.kept += len(after)
        return moment

    def fail(self, n: int, number: int, lasting: bool) -> None:
        """Let a change of the file system fail, `n` times at evenly spread places."""
        step = max(self._changes // n, 1)
        for place in range(1, self._changes + 1, step):
            fault = Fault(number, at_change=place, fails=True, lasting=lasting)
            self.counts.trials += 1
            folder = self._copy(f"trial {self.counts.trials}")
            self._fail(folder, fault)
            self._finish(folder)
            shutil.rmtree(folder)

    def _fail(self, folder: Path, fault: Fault) -> None:
        ended = self._warm(*self._words, folder=folder, fault=fault)
        where = f"{fault}\n{ended.code}\n{ended.said}"
        reason = os.strerror(fault.number)
        # What is not worth failing for may fail: a note, or the removal of what is no longer used.
        assert ended.code in (0, 1), where
        assert "Traceback" not in ended.said and "a bug" not in ended.said, where
        if ended.code == 1:
            assert reason in ended.said, where
        else:
            self.counts.moments["tolerated"] += 1
        self.counts.kept += len(finished(folder))

    def _moment(self, folder: Path) -> str:
        names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        if names <= self._begin.keys():
            return "before"
        return "after" if self._expected.keys() <= names else "while"

    def _finish(self, folder: Path) -> None:
        before = finished(folder)
        states = len(list(folder.rglob("last.safetensors")))
        words = (*self._words, "--retry-failed") if self.counts.command == "sweep" else self._words
        ended = self._succeeds(self._warm(*words, folder=folder))
        assert "Traceback" not in ended.said, ended.said
        assert before.items() <= finished(folder).items(), "finished work was done again"
        if self.counts.command == "finetune":
            assert ended.said.count("going on in epoch") == states, ended.said
        assert leftovers(folder) == [], leftovers(folder)
        found = results(folder)
        unlike = found.keys() ^ self._expected.keys()
        assert not unlike, unlike
        rounding = _ROUNDING.get(self.counts.command, 0.0)
        for name, content in self._expected.items():
            assert same(found[name], content, rounding), name


def main() -> None:
    """Try one command as often as asked, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warm = Warm()
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(warm, arguments.command, Path(folder), arguments.seed)
        trials.run(arguments.trials)
    warm.close()
    print(trials.counts)


if __name__ == "__main__":
    main()

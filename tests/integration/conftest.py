"""What the commands need as a user runs them: small files to work on, and checks of the remains."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

_REMAINS = ("*.tmp*", "*.lock", "*.partial", ".export-*")


@pytest.fixture
def fails(cli: Callable, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs a command which must fail well, and returns its message.

    That is: one message, no traceback, the given exit code and words, nothing half-written.
    """

    def run(*arguments: object, code: int, says: tuple[str, ...]) -> str:
        ran = cli(*arguments)
        assert ran.code == code, ran.err
        assert "\nError: " in f"\n{ran.err}", ran.err
        assert ran.err.count("Error: ") == 1, ran.err
        assert "Traceback" not in ran.err + ran.out
        assert "a bug" not in ran.err
        assert not ran.out
        for words in says:
            assert words in ran.err, ran.err
        assert leftovers(tmp_path) == []
        return ran.err

    return run


def leftovers(root: Path) -> list[Path]:
    """Return everything under `root` that a command should have removed before it ended."""
    return [path for pattern in _REMAINS for path in root.rglob(pattern)]


@pytest.fixture(name="leftovers")
def _leftovers() -> Callable[[Path], list[Path]]:
    return leftovers


@pytest.fixture
def quick_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no learning curves: that takes longer than a tiny training."""
    from medplus.training import folder

    def draw(path: Path, rows: object, title: str) -> None:
        path.write_bytes(b"a picture")

    monkeypatch.setattr(folder, "draw_learning_curve", draw)


@pytest.fixture
def signals_at() -> Callable[..., AbstractContextManager[None]]:
    """Return a context in which signals come just before a training step, counted from 1."""
    from medplus.training.step import Stepper

    @contextmanager
    def signalling(step: int, *numbers: int) -> Iterator[None]:
        call, calls = Stepper.__call__, iter(range(1, 10_000))

        def signalled(self: Stepper, *arguments: object) -> object:
            if next(calls) == step:
                for number in numbers:
                    os.kill(os.getpid(), number)
            return call(self, *arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Stepper, "__call__", signalled)
            yield

    return signalling


@pytest.fixture
def files_up_to() -> Callable[[int], AbstractContextManager[None]]:
    """Return a context in which no file may grow beyond so many bytes: a disk that is full."""

    @contextmanager
    def limit(n_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit

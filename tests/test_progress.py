"""Progress: plain lines where nobody watches a terminal, a bar where somebody does."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from medplus import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test advances."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def test_lines_come_every_ten_seconds_and_at_the_end(clock):
    out = console(terminal=False)
    with progress.on_console(out)("toy 28 px", 100, "img") as advance:
        for _ in range(10):
            clock.now += 4
            advance(10)
    lines = out.file.getvalue().splitlines()
    # After 12, 24, 36 and, the end, 40 seconds.
    assert [line.partition(",")[0] for line in lines] == [
        f"toy 28 px: {done}/100" for done in (30, 60, 90, 100)
    ]


def test_a_line_tells_rate_and_time_left(clock):
    out = console(terminal=False)
    with progress.on_console(out)("toy", 100, "img") as advance:
        clock.now += 20
        advance(40)
    assert out.file.getvalue() == "toy: 40/100, 2 img/s, 30 s left\n"


def test_lines_hold_no_control_codes_and_are_not_wrapped(clock):
    out = console(terminal=False)
    with progress.on_console(out)("a description " * 20, 1, "img") as advance:
        clock.now += 1
        advance(1)
    text = out.file.getvalue()
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_brackets_in_a_name_are_printed_as_they_are(clock):
    out = console(terminal=False)
    with progress.on_console(out)("my [red] data", 1, "img") as advance:
        advance(1)
    assert out.file.getvalue().startswith("my [red] data: 1/1")


def test_a_terminal_shows_a_bar_with_the_rate():
    out = console(terminal=True)
    with progress.on_console(out)("my [red] data", 10, "img") as advance:
        advance(4)
        advance(6)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.file.getvalue())
    assert "my [red] data" in text
    assert "100%" in text
    assert "img/s" in text


@pytest.mark.parametrize("terminal", [False, True])
def test_an_error_passes_through(terminal):
    report = progress.on_console(console(terminal))
    with pytest.raises(RuntimeError, match="melted"), report("toy", 10, "img") as advance:
        advance(1)
        raise RuntimeError("melted")


def test_bytes_are_told_in_megabytes_and_may_be_taken_back():
    console = Console(file=io.StringIO(), markup=False)
    with progress.on_console(console)("2 files", 3_000_000, "B") as advance:
        advance(3_000_000)
        advance(-1_000_000)
    assert console.file.getvalue().startswith("2 files: 3.0 of 3.0 MB, ")
    assert console.file.getvalue().count("\n") == 1

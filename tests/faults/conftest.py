"""The warm process that all trials share, and the counts of what was tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faults.warm import Warm


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    process = Warm()
    yield process
    process.close()


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[object], None]:
    """Return a function whose argument stands in the summary at the end."""
    return lambda counts: record_property("tried", str(counts))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how often what was tried, also where other processes tried it."""
    reports = [r for name in ("passed", "failed") for r in terminalreporter.getreports(name)]
    told = [text for r in reports for name, text in r.user_properties if name == "tried"]
    if told:
        terminalreporter.section("faults that were tried")
    for text in told:
        terminalreporter.write_line(str(text))

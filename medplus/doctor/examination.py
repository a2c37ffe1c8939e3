"""The whole examination; a part that cannot be examined is itself a finding."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from medplus.doctor.finding import Finding, Group, Places, ok, problem
from medplus.doctor.trial import try_packages
from medplus.errors import UsageError, first_line


def examine(places: Places, grid: Path | None = None, deep: bool = False) -> list[Finding]:
    """Tell what is wrong; nothing is written, and nothing is asked of the network.

    Parameters
    ----------
    places : Places
        Where data, stores and runs lie.
    grid : Path, optional
        A sweep's grid; what is left of it is compared with the free disk.
    deep : bool
        Read every byte of data, stores and runs; else look at sizes, and at what is recorded.

    Raises
    ------
    UsageError
        If the grid's file is not one.
    """
    trials = try_packages()
    broken = [package for package, trial in trials.items() if trial.error]

    def told(group: Group, needs: Sequence[str], *arguments: object) -> list[Finding]:
        lacking = [package for package in needs if package in broken]
        findings = _examined(group, arguments)
        if lacking:  # importing it here may end this process, too
            text = f"not examined, since {lacking[0]} cannot be imported"
            findings = iter([problem("", text, "mend that first")])
        return [replace(finding, group=group) for finding in findings]

    torch_if = {True: ("numpy", "torch"), False: ("numpy",)}
    return [
        *told("installation", (), trials),
        *told("hardware", (), trials),
        *told("folders", torch_if[grid is not None], places, grid),
        *told("data", ("numpy",), places.data, deep),
        *told("stores", ("numpy",), places.stores, deep),
        *told("runs", torch_if[deep], places.runs, deep),
        *told("leftovers", ("numpy",), places),
    ]


def _examined(group: Group, arguments: Sequence[object]) -> Iterator[Finding]:
    """Yield what a part finds; each is imported by itself, since what it needs may be broken."""
    try:
        if isinstance(arguments[0], Path) and not arguments[0].is_dir():
            yield ok(f"no folder {arguments[0]}")
            return
        module = importlib.import_module(f"medplus.doctor.{group}")
        yield from getattr(module, f"examine_{group}")(*arguments)
    except UsageError:
        raise
    except Exception as error:  # a broken package, or a disk that refuses to read
        text = f"cannot be examined: {type(error).__name__}: {first_line(error)}"
        yield problem("", text, "mend what else is wrong first, then ask again")

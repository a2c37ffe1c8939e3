"""The whole examination; a part that cannot be examined is itself a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from medplus.doctor.finding import Finding, Group, Places
from medplus.doctor.hardware import examine_hardware
from medplus.doctor.installation import examine_installation
from medplus.doctor.trial import try_packages
from medplus.errors import UsageError, first_line

Look = Callable[[], Iterable[Finding]]


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
    torch_if = {True: ("numpy", "torch"), False: ("numpy",)}

    def told(group: Group, needs: Sequence[str], look: Look) -> Iterator[Finding]:
        lacking = [package for package in needs if package in broken]
        if lacking:  # importing it here may end this process, too
            text = f"not examined, since {lacking[0]} cannot be imported"
            return iter([Finding(group, "problem", "", text, "mend that first")])
        return _guarded(group, look)

    return [
        *told("installation", (), lambda: examine_installation(trials)),
        *told("hardware", (), lambda: examine_hardware(trials)),
        *told("folders", torch_if[grid is not None], lambda: _folders(places, grid)),
        *told("data", ("numpy",), lambda: _data(places, deep)),
        *told("stores", ("numpy",), lambda: _stores(places, deep)),
        *told("runs", torch_if[deep], lambda: _runs(places, deep)),
        *told("leftovers", ("numpy",), lambda: _leftovers(places)),
    ]


def _guarded(group: Group, look: Look) -> Iterator[Finding]:
    try:
        yield from look()
    except UsageError:
        raise
    except Exception as error:  # a broken package, or a disk that refuses to read
        text = f"cannot be examined: {type(error).__name__}: {first_line(error)}"
        yield Finding(group, "problem", "", text, "mend what else is wrong first, then ask again")


# Imported one by one: what one of them needs may be broken.


def _folders(places: Places, grid: Path | None) -> Iterable[Finding]:
    from medplus.doctor.folders import examine_folders, need_of_caches

    if grid is None:
        return examine_folders(places, need_of_caches(places), is_plan=False)
    from medplus.doctor.need import need_of_grid

    return examine_folders(places, need_of_grid(grid, places), is_plan=True)


def _data(places: Places, deep: bool) -> Iterable[Finding]:
    from medplus.doctor.data import examine_data

    return examine_data(places.data, deep)


def _stores(places: Places, deep: bool) -> Iterable[Finding]:
    from medplus.doctor.stores import examine_stores

    return examine_stores(places.stores, deep)


def _runs(places: Places, deep: bool) -> Iterable[Finding]:
    from medplus.doctor.runs import examine_runs

    return examine_runs(places.runs, deep)


def _leftovers(places: Places) -> Iterable[Finding]:
    from medplus.doctor.leftovers import examine_leftovers

    return examine_leftovers(places)

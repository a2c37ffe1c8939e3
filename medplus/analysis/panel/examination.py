"""A run's panel and what else was asked of it: how it does on groups, and where it errs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medplus.analysis.panel.all_classes import Panel, panel
from medplus.analysis.panel.errors import confident_mistakes
from medplus.analysis.panel.groups import group_images
from medplus.analysis.panel.samples import test_columns
from medplus.analysis.panel.sections import error_section, panel_section, subgroup_section
from medplus.analysis.panel.subgroups import Subgroups, subgroups
from medplus.analysis.section import Section
from medplus.config import as_tuple
from medplus.errors import UsageError
from medplus.run.ledger import read_record


@dataclass(frozen=True, eq=False)
class Examination:
    """A run's panel, and what else was asked of it.

    Attributes
    ----------
    panel : Panel
    subgroups : tuple of Subgroups
        By the columns that were named.
    """

    panel: Panel
    subgroups: tuple[Subgroups, ...] = ()

    def sections(self, data_root: str | Path | None = "data") -> list[Section]:
        """Return what the report says of it.

        Parameters
        ----------
        data_root : str, Path or None
            Where the images of MedMNIST's datasets lie; None shows no images.
        """
        shown = [panel_section(self.panel)]
        if self.subgroups:
            shown.append(subgroup_section(self.panel, self.subgroups))
        return [*shown, error_section(self.panel, data_root)]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            **self.panel.to_dict(),
            "subgroups": [one.to_dict() for one in self.subgroups],
            "mistakes": [case.to_dict() for case in confident_mistakes(self.panel)],
        }


def examine(
    run: str | Path,
    positive: str | None = None,
    prevalence: float | None = None,
    by: str | Sequence[str] = (),
    table: Path | None = None,
) -> Examination:
    """Return the panel of a run, and how it does on groups of the test images.

    Parameters
    ----------
    run, positive, prevalence
        As for `panel`.
    by : str or sequence of str
        Columns by which to group the test images; see `group_images`.
    table : Path, optional
        That has these columns; by default the dataset's own. See `test_columns`.

    Raises
    ------
    UsageError
        If there is no such class, or the table is missing or lacks a column.
    RunError
        If the run cannot be read.
    """
    found = panel(run, positive, prevalence)
    if not by:
        return Examination(found)
    columns = test_columns(found.record, found.predictions, table)
    groups = subgroups(found, [group_images(columns, one) for one in as_tuple(by) or ()])
    return Examination(found, tuple(groups))


def sections_of(
    runs: Sequence[Path],
    positive: str | None = None,
    prevalence: float | None = None,
    by: str | Sequence[str] = (),
    table: Path | None = None,
    data_root: str | Path = "data",
) -> list[Section]:
    """Return the sections of runs, one run for each dataset; as `examine`.

    `positive` and `prevalence` are for the datasets that have a class of this name, and `by` for
    those that have a table with these columns.

    Raises
    ------
    UsageError
        If no dataset has such a class, or none such a table.
    RunError
        If a run cannot be read.
    """
    having = [run for run in runs if positive in read_record(run).classes]
    # Where none has it, the first to be examined says what it has.
    named = having or list(runs)
    sections, refusals = [], []
    for run in runs:
        own = (positive, prevalence) if run in named else (None, None)
        try:
            found = examine(run, *own, by, table)
        except UsageError as refusal:
            refusals.append(refusal)
            if len(refusals) == len(runs):
                raise refusals[0] from None
            found = examine(run, *own)
        sections += found.sections(data_root)
    return sections

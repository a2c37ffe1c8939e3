"""All analyses of a benchmark: what a report says."""

from __future__ import annotations

from dataclasses import dataclass

from medplus.analysis.accuracy import accuracy
from medplus.analysis.against import against
from medplus.analysis.benchmark import Benchmark
from medplus.analysis.by_dataset import by_dataset
from medplus.analysis.costs import costs
from medplus.analysis.friedman import critical_difference
from medplus.analysis.gains import gains
from medplus.analysis.intervals import intervals
from medplus.analysis.learning_curves import learning_curves
from medplus.analysis.left_out import left_out
from medplus.analysis.newcomers import newcomers
from medplus.analysis.over_folds import over_folds
from medplus.analysis.paired import paired
from medplus.analysis.pairwise import pairwise
from medplus.analysis.protocols import protocols
from medplus.analysis.ranking import ranking
from medplus.analysis.robustness import robustness
from medplus.analysis.section import Analysis, Figure, Section
from medplus.analysis.sources import sources
from medplus.analysis.spread import spread
from medplus.analysis.table import Table
from medplus.analysis.transfer import transfers
from medplus.analysis.verdict import Answer, Verdict, verdict

ANALYSES: tuple[Analysis, ...] = (
    verdict, against, newcomers, accuracy, by_dataset, protocols, gains, ranking, spread, pairwise,
    critical_difference, intervals, paired, over_folds, learning_curves, robustness, costs,
    transfers, left_out, sources,
)  # fmt: skip
"""All there are, in the order of the page. A new one is a file, and its name here."""


@dataclass(frozen=True)
class Document:
    """What a report says.

    Attributes
    ----------
    benchmark : Benchmark
    sections : tuple of Section
        Of the analyses that apply.
    """

    benchmark: Benchmark
    sections: tuple[Section, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What to take on every dataset, and over all."""
        return tuple(v for one in self.sections if isinstance(one, Answer) for v in one.verdicts)

    @property
    def findings(self) -> tuple[str, ...]:
        """All sentences."""
        return tuple(sentence for section in self.sections for sentence in section.sentences)

    @property
    def notes(self) -> tuple[tuple[str, str], ...]:
        """The section of each note, and the note."""
        return tuple((section.name, note) for section in self.sections for note in section.notes)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures."""
        return tuple(figure for section in self.sections for figure in section.figures)

    @property
    def tables(self) -> dict[str, Table]:
        """All tables by name."""
        return {table.name: table for section in self.sections for table in section.tables}


def analyse(benchmark: Benchmark) -> Document:
    """Put every question to a benchmark."""
    found = (analysis(benchmark) for analysis in ANALYSES)
    return Document(benchmark, tuple(section for section in found if section is not None))

"""The sections of the page: what is shown, by which rule; tables and figures have names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from medplus.reporting.analysis import Analysis
from medplus.reporting.format import p_equals, significant
from medplus.reporting.table import Block, Table

_LONG = 30
"""Rows of a table that opens on demand only."""


_NEEDS = {
    "ranking": (3, 3),
    "percentiles": (3, 2),
    "pairwise": (6, 2),  # fewer datasets cannot give a p below 0.05
    "comparisons": (6, 2),
    "friedman": (3, 3),
    "transfers": (3, 4),
}
"""Of sections that say nothing about less: the fewest datasets, and the fewest backbones."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes
    ----------
    id : str
        What links to it, and what notes name as their `where`.
    short : str
        What the contents call it.
    title : str
    text : str
        An empty line stands between paragraphs.
    names : tuple of str
        Of its tables and figures.
    tables : tuple of Block
    notes : tuple of str
    """

    id: str
    short: str
    title: str
    text: str
    names: tuple[str, ...]
    tables: tuple[Block, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> tuple[Block, ...]:
        """The table that is seen at once, if it is short."""
        return self.tables[:1] if self.tables and len(self.tables[0].rows) <= _LONG else ()

    @property
    def folded(self) -> tuple[Block, ...]:
        """The tables that open on demand."""
        return self.tables[len(self.first) :]


def sections(analysis: Analysis, tables: Mapping[str, Table]) -> list[Section]:
    """Return the sections for which there is something to say, in the order of the page."""
    found = []
    have = (analysis.cells["dataset"].nunique(), analysis.cells["backbone"].nunique())
    for one in _sections(analysis):
        needs = _NEEDS.get(one.id, (1, 1))
        if have[0] < needs[0] or have[1] < needs[1]:
            continue
        shown = [tables[name] for name in one.names if name in tables and len(tables[name].frame)]
        blocks = tuple(block for table in shown for block in table.blocks)
        notes = tuple(dict.fromkeys(n.text for n in analysis.notes if n.where == one.id))
        if blocks or one.id == "costs" or (one.id == "against" and analysis.against is not None):
            found.append(replace(one, tables=blocks, notes=notes))
    return found


def _sections(analysis: Analysis) -> Iterator[Section]:
    yield from _results(analysis)
    yield from _tests(analysis)
    yield from _predictions(analysis)


def _results(analysis: Analysis) -> Iterator[Section]:
    against = analysis.against
    yield Section(
        "against",
        "Beside the paper",
        "Beside the paper",
        "None of your cells is one of the paper's."
        if against is None or against.empty
        else f"{int(against['passed'].sum())} of {len(against)} cells that you share with the "
        "paper pass at the stated tolerance (dotted; cells that fail are hollow). Beside it stands "
        "whether the difference lies within the paper's spread over seeds, and whether the paper's "
        "ACC lies in your 95 % interval over test images.",
        ("against", "fig11_against"),
    )
    yield Section(
        "newcomers",
        "New backbones",
        "New backbones among the paper's",
        "The rank that each backbone would take by its mean ACC among the paper's, over the "
        "datasets that you ran.",
        ("newcomers",),
    )
    yield Section(
        "benchmark",
        "Accuracy by size",
        "Accuracy by image size",
        "Means over seeds. The average is over datasets, and stands only where a backbone has all "
        "of them. Each panel has a scale of its own.",
        ("benchmark", "fig1_overview", "fig9_datasets"),
    )
    yield Section(
        "ranking",
        "Ranking",
        "Who ranks first",
        "In every dataset, protocol and size that all backbones of the table have, they are "
        "ordered by mean ACC; equal ones stay in the paper's order. Counted is how often each "
        "takes each rank.",
        ("ranking", "settings", "fig2_ranking"),
    )
    yield Section(
        "gains",
        "Resolution gains",
        "What a higher resolution brings",
        "On how many datasets the mean ACC is strictly higher at the larger size.",
        ("resolution_gains", "fig3_gains"),
    )
    yield Section(
        "percentiles",
        "Spread",
        "Spread over datasets",
        "Boxes from the 25th to the 75th percentile over datasets with the median, whiskers to "
        "the last value within 1.5 box lengths, all others as points.\n\n"
        "The percentile table is of each dataset's ACC averaged over protocols and sizes that "
        "all backbones have (numpy's linear rule).",
        ("percentiles", "means", "fig4_boxes"),
    )


def _tests(analysis: Analysis) -> Iterator[Section]:
    pairs, friedman = analysis.pairwise, analysis.friedman
    n_pairs = len(pairs)
    if n_pairs:
        threshold = significant(pairs["threshold"].iloc[0])
        yield Section(
            "pairwise",
            "Pairwise tests",
            "Pairwise differences, as the paper tests them",
            f"Two-sided Wilcoxon signed-rank tests over {len(analysis.means)} datasets, each with "
            "its ACC averaged over the protocols and sizes that all backbones have. With "
            f"Bonferroni's correction p must lie below {threshold} (0.05 / {n_pairs}): "
            f"{int(pairs['significant'].sum())} of {n_pairs} pairs do.",
            ("pairwise", "fig5_pairwise"),
        )
        yield Section(
            "comparisons",
            "Holm, effect sizes",
            "The same pairs by Holm, with effect sizes",
            "Not in the paper. Holm's correction guards against the same error as Bonferroni's and "
            f"finds no fewer differences: here {int(pairs['significant_holm'].sum())} of "
            f"{n_pairs}. The effect size is the matched-pairs rank-biserial correlation: 1 where "
            "the first is better on every dataset, −1 where the second is, 0 for a balance.",
            ("comparisons",),
        )
    if friedman is not None:
        yield Section(
            "friedman",
            "Critical difference",
            "All backbones at once: Friedman's test and critical difference",
            f"Friedman's test over {friedman.n_datasets} datasets: χ² = {friedman.statistic:.2f}, "
            f"{p_equals(friedman.p_value)}. By Nemenyi's test two mean ranks differ at the 5 % "
            f"level where they are {friedman.critical_difference:.2f} or more apart "
            "(Demšar 2006).\n\nA bar joins backbones that cannot be told apart.",
            ("friedman", "nemenyi", "fig7_critical_difference"),
        )


def _predictions(analysis: Analysis) -> Iterator[Section]:
    yield Section(
        "intervals",
        "Intervals",
        "How certain the means are: three uncertainties, kept apart",
        "An interval over seeds, one over datasets and one over test images answer three "
        "different questions; none contains another, and they must not be mixed. All are of "
        "95 %. The figure shows those over datasets.",
        ("intervals", "fig10_intervals"),
    )
    yield Section(
        "paired",
        "Best and second",
        "Best against second best on the same images",
        "A paired bootstrap: both are scored on the same resamples of the test images, or of "
        "their patients, all seeds together. The two are chosen on val where it is known; chosen "
        "on test, p is too small. An interval that holds 0 means that these images cannot tell "
        "the two apart.",
        ("paired",),
    )
    told = any(note.where == "costs" for note in analysis.notes)
    yield Section(
        "costs",
        "Cost",
        "Accuracy against cost",
        "Mean ACC over the measured device time of one run, extraction included. On the "
        "Pareto front stands what no other setting beats or equals at the same or a lower cost."
        if len(analysis.costs)
        else ""
        if told
        else "No cost is known.",
        ("costs", "fig6_cost"),
    )
    yield Section(
        "transfers",
        "Cheap predicts",
        "Does the cheap predict the expensive?",
        "Within each dataset the backbones are ranked by the cheap protocol and by the "
        "expensive one. ρ is Spearman's correlation of the two, averaged over datasets, with a "
        "Student's t interval over datasets. Regret: the percent points of ACC by the expensive "
        "protocol that you lose if you take the backbone that the cheap one ranks first; beside "
        "it what you lose by taking any. The cheap one is ranked on val where it is known.\n\n"
        "Coloured symbols are means over datasets, grey ones single datasets. On the dashed "
        "line both ranks agree.",
        ("transfer", "transfer_ranks", "fig8_transfer"),
    )
    yield Section(
        "unlike",
        "Left out",
        "Left out: made under other conditions",
        "These cells stand in no other table, since their numbers are not comparable with the "
        "others.",
        ("unlike",),
    )
    yield Section(
        "datasets",
        "Data",
        "Data, licences and citations",
        "What the owners of the data ask for; each MedMNIST collection also has a source of its "
        "own, which medmnist.com names.",
        ("datasets",),
    )

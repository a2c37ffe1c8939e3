"""The statistics of a report, each with its rule, its numbers and its warnings."""

from __future__ import annotations

from functools import partial

from medplus.reporting.analysis import Analysis
from medplus.reporting.page.inference import (
    comparisons_section,
    costs_section,
    friedman_section,
    intervals_section,
    paired_section,
    pairwise_section,
    transfers_section,
)
from medplus.reporting.page.links import PageLinks
from medplus.reporting.page.parts import Section
from medplus.reporting.page.results import (
    against_section,
    benchmark_section,
    datasets_section,
    gains_section,
    newcomers_section,
    ranking_section,
    spread_section,
    unlike_section,
)


def sections(analysis: Analysis, links: PageLinks) -> list[Section]:
    """Return the sections for which there is something to say, in the order of the page."""
    builders = (
        against_section, newcomers_section, benchmark_section, ranking_section, gains_section,
        spread_section, pairwise_section, comparisons_section, friedman_section,
        intervals_section, paired_section, costs_section, transfers_section,
        partial(unlike_section, links=links), datasets_section,
    )  # fmt: skip
    return [section for build in builders if (section := build(analysis)) is not None]

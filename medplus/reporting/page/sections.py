"""The statistics of a report, each with its rule, its numbers and its warnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from medplus.reporting.analysis import Analysis
from medplus.reporting.page import inference, results
from medplus.reporting.page.links import PageLinks
from medplus.reporting.page.parts import Section


def sections(analysis: Analysis, links: PageLinks) -> list[Section]:
    """Return the sections for which there is something to say, in the order of the page."""
    notes = analysis.notes
    return [
        replace(one, notes=tuple(dict.fromkeys(n.text for n in notes if n.where == one.id)))
        for one in _sections(analysis, links)
    ]


def _sections(analysis: Analysis, links: PageLinks) -> Iterator[Section]:
    if analysis.against is not None:
        yield results.against_section(analysis.against)
    if analysis.newcomers is not None and len(analysis.newcomers):
        yield results.newcomers_section(analysis)
    yield results.benchmark_section(analysis)
    yield results.ranking_section(analysis)
    if len(analysis.gains):
        yield results.gains_section(analysis)
    yield results.spread_section(analysis)
    if len(analysis.pairwise):
        yield inference.pairwise_section(analysis)
        yield inference.comparisons_section(analysis)
    if analysis.friedman is not None:
        yield inference.friedman_section(analysis.friedman)
    if len(analysis.intervals):
        yield inference.intervals_section(analysis)
    if len(analysis.paired):
        yield inference.paired_section(analysis)
    yield inference.costs_section(analysis)
    if analysis.transfers:
        yield inference.transfers_section(analysis)
    if len(analysis.unlike):
        yield results.unlike_section(analysis.unlike, links)
    if len(analysis.datasets):
        yield results.datasets_section(analysis)

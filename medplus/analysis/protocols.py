"""How far apart the protocols are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pandas as pd

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.format import first_upper
from medplus.analysis.results.cells import order_protocols
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Section


def protocols(benchmark: Benchmark) -> Section | None:
    """Return how far apart neighbouring protocols are; None where nothing was run by two."""
    sentences = tuple(protocol_gaps(benchmark.compared))
    if not sentences:
        return None
    return Section("protocols", "Protocols beside each other", "Protocols", sentences=sentences)


def protocol_gaps(cells: pd.DataFrame) -> Iterator[str]:
    """Yield how far apart neighbouring protocols are, on the cells that both have."""
    scores = cells.pivot_table(
        index=["dataset", "backbone", "size"], columns="protocol", values="acc_mean"
    )
    present = order_protocols(scores.columns)
    for dear, cheap in pairwise(present):
        both = scores[[dear, cheap]].dropna()
        if len(both):
            gaps = settle(both[dear] - both[cheap])
            gap, wins, ties = float(gaps.mean()), int((gaps > 0).sum()), int((gaps == 0).sum())
            equal = f", equal in {ties}" if ties else ""
            yield (
                f"{first_upper(PROTOCOL_LABELS[dear])} is on average {abs(gap):.1f} points "
                f"{'above' if gap >= 0 else 'below'} {PROTOCOL_LABELS[cheap]} with the same "
                f"dataset, backbone and size, and better in {wins} of {len(both)} cases{equal}."
            )

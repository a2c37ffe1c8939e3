"""What a larger size brings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.heatmap import DIVERGING, Panel, draw_panels, panels_width
from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.drawing.sheet import MARGIN, WIDE, Sheet, text_width
from medplus.analysis.drawing.style import NORMAL, short_names
from medplus.analysis.format import MISSING
from medplus.analysis.results.cells import PROTOCOLS, order_backbones, order_protocols
from medplus.analysis.results.ties import settle
from medplus.analysis.section import Figure, Section
from medplus.analysis.table import Block, Column, Table, cross_block

_CAPTION = (
    "Datasets on which the larger image size has the higher mean ACC, of those that have both sizes"
)


def gains(benchmark: Benchmark) -> Section | None:
    """Return what more pixels bring; None where no dataset has two sizes."""
    steps = resolution_gains(benchmark.cells)
    if steps.empty:
        return None
    return Section(
        name="gains",
        title="What a higher resolution brings",
        short="Resolution gains",
        text="On how many datasets the mean ACC is strictly higher at the larger size.",
        tables=(
            Table.of(
                "resolution_gains", _CAPTION, steps, " ".join(_COLUMNS), blocks=[_block(steps)]
            ),
        ),
        figures=(
            Figure(
                "fig3_gains",
                "Heat maps: on how many datasets each step to a larger image size helps.",
                partial(_draw, steps),
            ),
        ),
        sentences=tuple(resolution(steps)),
    )


_COLUMNS = ["protocol", "backbone", "from_size", "to_size", "improved", "n_datasets"]


def resolution_gains(cells: pd.DataFrame) -> pd.DataFrame:
    """Count on how many datasets each step to the next size improves the mean ACC.

    The steps lie between consecutive sizes of the table (the paper's Figure 3: 28 to 64, 64 to
    128, 128 to 224). Equal is no improvement.

    Parameters
    ----------
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`.

    Returns
    -------
    pandas.DataFrame
        Columns protocol, backbone, from_size, to_size, improved, n_datasets: of the `n_datasets`
        that have both sizes, `improved` are strictly better at the larger one. Steps that no
        dataset has are left out.
    """
    acc = cells.assign(acc_mean=settle(cells["acc_mean"])).pivot(
        index=["protocol", "backbone", "dataset"], columns="size", values="acc_mean"
    )
    place = order_backbones(cells["backbone"]).index
    rows = []
    for smaller, larger in pairwise(sorted(acc.columns)):
        both = acc[[smaller, larger]].dropna()
        better = both[larger] > both[smaller]
        for (protocol, backbone), of_step in better.groupby(["protocol", "backbone"]):
            counts = (int(of_step.sum()), len(of_step))
            rows.append((protocol, backbone, int(smaller), int(larger), *counts))
    rows.sort(key=lambda row: (PROTOCOLS.index(row[0]), place(row[1]), row[2]))
    return pd.DataFrame(rows, columns=_COLUMNS)


def resolution(gains: pd.DataFrame) -> Iterator[str]:
    """Yield how often a step in size improves ACC, pooled over protocols and backbones."""
    steps = gains.groupby(["from_size", "to_size"])[["improved", "n_datasets"]].sum()
    told = [
        f"{start} to {end} px {row.improved} of {row.n_datasets} "
        f"({100 * row.improved / row.n_datasets:.0f} %)"
        for (start, end), row in zip(steps.index, steps.itertuples(), strict=True)
    ]
    if told:
        yield f"More pixels raise ACC in: {'; '.join(told)} cases; equal is no rise."


def _by_step(
    gains: pd.DataFrame,
) -> dict[tuple[str, str, tuple[int, int]], tuple[int, int]]:
    """Return datasets that gain, and those that have both sizes, by protocol, backbone and step."""
    return {
        (row.protocol, row.backbone, (row.from_size, row.to_size)): (row.improved, row.n_datasets)
        for row in gains.itertuples()
    }


def _block(gains: pd.DataFrame) -> Block:
    """Set the steps beside each other."""
    found = _by_step(gains)
    columns = {
        step: Column(f"{step[0]} → {step[1]}", numeric=True)
        for step in sorted({key[2] for key in found})
    }
    cells = {(key[:2], key[2]): "/".join(map(str, counts)) for key, counts in found.items()}
    return cross_block(_CAPTION, "protocol backbone", columns, cells, grouped=True)


_ROW, _TOP, _BELOW, _COLUMN_MAX = 5.0, 7.0, 5.0, 18.0


def _draw(gains: pd.DataFrame) -> Drawing:
    """Draw a block per protocol: backbones by steps from one size to the next."""
    found = _by_step(gains)
    backbones = order_backbones(backbone for _, backbone, _ in found)
    steps = sorted({step for _, _, step in found})
    panels = []
    for protocol in order_protocols(protocol for protocol, _, _ in found):
        cells = [[found.get((protocol, name, step)) for step in steps] for name in backbones]
        panels.append(
            Panel(
                PROTOCOL_LABELS[protocol],
                [f"{smaller}→{larger}" for smaller, larger in steps],
                np.array([[c[0] / c[1] if c else np.nan for c in row] for row in cells]),
                [[f"{c[0]}/{c[1]}" if c else MISSING for c in row] for row in cells],
            )
        )
    names = list(short_names(backbones).values())
    left, height = MARGIN + text_width(names) + 2.0, _ROW * len(names)
    width = min(WIDE - left - MARGIN, _COLUMN_MAX * panels_width(panels))
    sheet = Sheet(WIDE, _TOP + height + _BELOW + 5.0 + MARGIN)
    draw_panels(sheet.axes(left, _TOP, width, height), panels, names, DIVERGING, size=NORMAL)
    sheet.note(
        left,
        _TOP + height + _BELOW + 1.0,
        "datasets with a higher mean ACC at the larger size, of those that have both sizes (px)",
    )
    return sheet.figure

"""Accuracy by image size on each dataset."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from medplus.analysis.benchmark import Benchmark
from medplus.analysis.drawing.palette import PROTOCOL_LABELS
from medplus.analysis.drawing.sheet import MARGIN, WIDE, Key, Sheet, text_width
from medplus.analysis.drawing.style import FAINT, short_names, signs
from medplus.analysis.results.cells import Extent
from medplus.analysis.section import Figure, Section

_TOP, _LEFT, _HEIGHT = 7.0, 13.0, 50.0
_PER_LINE = 12
"""Datasets beside each other."""


def by_dataset(benchmark: Benchmark) -> Section | None:
    """Return the datasets beside each other; None for one alone."""
    cells = benchmark.cells.dropna(subset="acc_mean")
    if cells["dataset"].nunique() < 2:
        return None
    return Section(
        name="by_dataset",
        title="Accuracy on each dataset",
        short="On each dataset",
        text="The numbers stand in the tables of the section before.",
        figures=(
            Figure(
                "fig9_datasets",
                "Lines: ACC by image size on each dataset, one line per backbone.",
                partial(_draw, cells),
            ),
        ),
    )


def _draw(cells: pd.DataFrame) -> Drawing:
    """Draw, per protocol, a line per dataset and backbone from the smallest to the largest size."""
    datasets = sorted(set(cells["dataset"]))
    extent, drawn = Extent.of(cells), signs(cells["backbone"])
    names, titles = short_names(extent.backbones), short_names(datasets)
    n_lines = -(-len(datasets) // _PER_LINE)
    parts = np.array_split(datasets, n_lines)
    row = _TOP + _HEIGHT + text_width(titles.values()) * 0.5 + 6.0
    panels = [(protocol, part) for protocol in extent.protocols for part in parts]
    key = Key(names, drawn)
    sheet = Sheet(WIDE, row * len(panels) + 4.0 + key.height + MARGIN)
    acc = cells.set_index(["protocol", "backbone", "dataset", "size"])["acc_mean"]
    for line, (protocol, part) in enumerate(panels):
        axes = sheet.axes(_LEFT, line * row + _TOP, WIDE - _LEFT - MARGIN, _HEIGHT)
        step = len(extent.sizes) + 1
        for backbone in extent.backbones:
            keys = [(protocol, backbone, one, s) for one in part for s in (*extent.sizes, None)]
            axes.plot(
                np.arange(len(keys)),
                acc.reindex(keys).to_numpy(),
                label=names[backbone],
                linestyle=drawn[backbone].line,
                **drawn[backbone].style(3.0),
            )
        for place in range(1, len(part)):
            axes.axvline(place * step - 1, color=FAINT, lw=0.6)
        middles = [place * step + (step - 2) / 2 for place in range(len(part))]
        axes.set_xticks(middles, [titles[one] for one in part], rotation=30, ha="right",
                        rotation_mode="anchor")  # fmt: skip
        axes.set_xlim(-1, len(part) * step - 1)
        axes.set_title(PROTOCOL_LABELS[protocol])
        axes.set_ylabel("ACC, %")
        axes.grid(axis="y")
    sizes = ", ".join(map(str, extent.sizes))
    sheet.note(MARGIN, row * len(panels), f"within each dataset from left to right: {sizes} px")
    key.put(sheet, row * len(panels) + 4.0)
    return sheet.figure

"""The benchmark in the paper's form: sizes beside each other, best in bold, second underlined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pandas as pd

from medplus.reporting import format as fmt
from medplus.reporting.cells import AVERAGE, order_backbones, order_protocols
from medplus.reporting.palette import PROTOCOL_LABELS
from medplus.reporting.table import MISSING, Block, Cell, Column

Mark = Literal["", "best", "second"]

SCORE_NAMES = {"acc": "ACC", "auc": "AUC"}


def mark_best(benchmark: pd.DataFrame) -> pd.DataFrame:
    """Find the best and the second-best backbones of each dataset, protocol and size.

    Numbers that are printed alike are equally good, so that several may be best; second best is
    the next lower number. A backbone without a rival is not marked.

    Parameters
    ----------
    benchmark : pandas.DataFrame
        As `medplus.reporting.statistics.averages.with_averages` returns it.

    Returns
    -------
    pandas.DataFrame
        The same index, columns ``acc`` and ``auc`` of ``best``, ``second`` or ``""``.
    """
    marks = pd.DataFrame("", index=benchmark.index, columns=[*SCORE_NAMES], dtype=object)
    for score in SCORE_NAMES:
        printed = benchmark[f"{score}_mean"].map(fmt.percent)
        printed = printed[printed != ""].astype(float)
        keys = [benchmark.loc[printed.index, key] for key in ("dataset", "protocol", "size")]
        groups = printed.groupby(keys)
        place = groups.rank(method="dense", ascending=False)
        rivals = groups.transform("size") > 1
        marks.loc[place.index[(place == 1) & rivals], score] = "best"
        marks.loc[place.index[(place == 2) & rivals], score] = "second"
    return marks


def benchmark_blocks(benchmark: pd.DataFrame) -> Iterator[Block]:
    """Yield one block per dataset and at last one for the average, as far as there is one."""
    marked = benchmark.join(mark_best(benchmark).add_suffix("_mark"))
    datasets = [name for name in dict.fromkeys(benchmark["dataset"]) if name != AVERAGE]
    backbones = order_backbones(benchmark["backbone"])
    for dataset in datasets:
        yield _block(dataset, marked[marked["dataset"] == dataset], backbones)
    mean = marked[marked["dataset"] == AVERAGE]
    if not mean.empty:
        yield _block(f"{AVERAGE} over {len(datasets)} datasets", mean, backbones)


def _block(title: str, rows: pd.DataFrame, backbones: list[str]) -> Block:
    sizes = sorted(set(rows["size"]))
    scores = [score for score in SCORE_NAMES if rows[f"{score}_mean"].notna().any()]
    cells = {
        (row["protocol"], row["backbone"], row["size"]): row for row in rows.to_dict("records")
    }
    columns = [Column("protocol", numeric=False), Column("backbone", numeric=False)]
    columns += [Column(str(size), SCORE_NAMES[score]) for score in scores for size in sizes]
    lines = []
    for protocol in order_protocols(rows["protocol"]):
        having = set(rows.loc[rows["protocol"] == protocol, "backbone"])
        for backbone in (name for name in backbones if name in having):
            found = (cells.get((protocol, backbone, s), {}) for _ in scores for s in sizes)
            kinds = (score for score in scores for _ in sizes)
            numbers = [_score(cell, score) for cell, score in zip(found, kinds, strict=True)]
            lines.append([Cell(PROTOCOL_LABELS[protocol]), Cell(backbone), *numbers])
    names = " and ".join(SCORE_NAMES[score] for score in scores)
    caption = f"{title}: {names} in percent by image size, mean ± standard deviation over seeds"
    return Block(caption, columns, lines, grouped=True)


def _score(cell: Mapping[Any, Any], score: str) -> Cell:
    mean = fmt.percent(cell.get(f"{score}_mean", float("nan")))
    std = fmt.percent(cell.get(f"{score}_std", float("nan")))
    if not mean:
        return Cell(MISSING)
    return Cell(f"{mean} ± {std}" if std else mean, cell[f"{score}_mark"])

"""The paper's tables in its form, in files and on the page: sizes, ranks and steps side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.format import MISSING, percent
from medplus.analysis.results.cells import ALL, AVERAGE, order_backbones, order_protocols
from medplus.analysis.series import SCORE_NAMES, best_and_second, gains_by_step
from medplus.analysis.table import Block, Cell, Column, cross_block

_PER_BACKBONE = (Column("Protocol"), Column("Backbone"))


def benchmark_blocks(benchmark: pd.DataFrame) -> Iterator[Block]:
    """Yield a block for the average, as far as there is one, and one per dataset."""
    marks = {score: best_and_second(benchmark, f"{score}_mean") for score in SCORE_NAMES}
    marked = benchmark.assign(**{f"{score}_mark": marks[score] for score in SCORE_NAMES})
    n_datasets = len(set(benchmark["dataset"]) - {AVERAGE})
    average = marked["dataset"] == AVERAGE
    ordered = pd.concat([marked[average], marked[~average]])
    for dataset, rows in ordered.groupby("dataset", sort=False):
        over = f" over {n_datasets} datasets" if dataset == AVERAGE else ""
        yield _benchmark_block(f"{dataset}{over}", rows)


def _benchmark_block(title: str, rows: pd.DataFrame) -> Block:
    """Set sizes beside each other, best in bold and second underlined, as the paper does."""
    scores = [score for score in SCORE_NAMES if rows[f"{score}_mean"].notna().any()]
    cells = {
        ((row["protocol"], row["backbone"]), (score, row["size"])): _score(row, score)
        for row in rows.to_dict("records")
        for score in scores
    }
    names = {
        (protocol, backbone): (PROTOCOL_LABELS[protocol], label_of(backbone))
        for protocol in order_protocols(rows["protocol"])
        for backbone in order_backbones(rows.loc[rows["protocol"] == protocol, "backbone"])
    }
    columns = {
        (score, size): Column(str(size), numeric=True, group=SCORE_NAMES[score])
        for score in scores
        for size in sorted(set(rows["size"]))
    }
    told = " and ".join(SCORE_NAMES[score] for score in scores)
    caption = f"{title}: {told} in percent by image size, mean ± standard deviation over seeds"
    return cross_block(caption, _PER_BACKBONE, names, columns, cells, grouped=True)


def _score(row: Mapping[Any, Any], score: str) -> Cell:
    mean, std = (percent(row[f"{score}_{part}"]) for part in ("mean", "std"))
    text = f"{mean} ± {std}" if mean and std else mean or MISSING
    return Cell(text, row[f"{score}_mark"])


def ranking_blocks(title: str, ranking: pd.DataFrame) -> Iterator[Block]:
    """Yield a block per protocol, with the ranks beside each other."""
    columns = {
        rank: Column(str(rank), numeric=True, group="Rank") for rank in sorted(set(ranking["rank"]))
    }
    heads = (Column("Size"), Column("Backbone"))
    for protocol, rows in ranking.groupby("protocol", sort=False):
        keys = list(zip(rows["size"], rows["backbone"], strict=True))
        counts = map(str, rows["count"])
        cells = dict(zip(zip(keys, rows["rank"], strict=True), counts, strict=True))
        pooled = "all protocols" if protocol == ALL else PROTOCOL_LABELS[str(protocol)]
        caption = f"{title}: {pooled}"
        names = {(size, backbone): (str(size), label_of(backbone)) for size, backbone in keys}
        yield cross_block(caption, heads, names, columns, cells, grouped=True)


def gains_block(title: str, gains: pd.DataFrame) -> Block:
    """Set the steps beside each other."""
    found = gains_by_step(gains)
    names = {key[:2]: (PROTOCOL_LABELS[key[0]], label_of(key[1])) for key in found}
    columns = {
        step: Column(f"{step[0]} → {step[1]}", numeric=True)
        for step in sorted({key[2] for key in found})
    }
    cells = {(key[:2], key[2]): "/".join(map(str, counts)) for key, counts in found.items()}
    return cross_block(title, _PER_BACKBONE, names, columns, cells, grouped=True)

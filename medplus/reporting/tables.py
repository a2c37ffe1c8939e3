"""The report's tables: which there are, what they hold, and their files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from medplus import atomic
from medplus.reporting import format as fmt
from medplus.reporting.analysis import Analysis
from medplus.reporting.benchmark_table import benchmark_blocks
from medplus.reporting.cells import ALL
from medplus.reporting.palette import PROTOCOL_LABELS
from medplus.reporting.statistics.friedman import Friedman
from medplus.reporting.statistics.transfer import Transfer
from medplus.reporting.table import MISSING, Block, Cell, Column, Kind, Table, list_block

KINDS: Mapping[str, Mapping[str, Kind]] = {
    "benchmark": {
        "dataset": "text", "protocol": "protocol", "backbone": "text", "size": "size",
        "acc_mean": "percent", "acc_std": "percent", "auc_mean": "percent", "auc_std": "percent",
        "n_seeds": "count",
    },
    "ranking": {
        "protocol": "protocol", "size": "size", "backbone": "text", "rank": "count",
        "count": "count",
    },
    "resolution_gains": {
        "protocol": "protocol", "backbone": "text", "from_size": "count", "to_size": "count",
        "improved": "count", "n_datasets": "count",
    },
    "percentiles": {"backbone": "text", "p25": "percent", "p50": "percent", "p75": "percent"},
    "pairwise": {
        "backbone_a": "text", "backbone_b": "text", "p_value": "p", "threshold": "p",
        "significant": "flag", "favoured": "text",
    },
    "settings": {"protocol": "protocol", "size": "size", "n_settings": "count"},
    "comparisons": {
        "backbone_a": "text", "backbone_b": "text", "n_datasets": "count",
        "mean_difference": "percent", "effect_size": "exact", "p_value": "p", "p_holm": "p",
        "significant_holm": "flag",
    },
    "friedman": {
        "backbone": "text", "mean_rank": "exact", "groups": "text", "statistic": "exact",
        "p_value": "p", "n_datasets": "count", "critical_difference": "exact",
    },
    "nemenyi": {"backbone_a": "text", "backbone_b": "text", "p_value": "p"},
    "intervals": {
        "over": "text", "dataset": "text", "protocol": "protocol", "backbone": "text",
        "size": "size", "mean": "percent", "low": "percent", "high": "percent", "n": "count",
    },
    "transfer": {
        "cheap_protocol": "protocol", "cheap_size": "size", "target_protocol": "protocol",
        "target_size": "size", "n_datasets": "count", "n_backbones": "count", "rho": "exact",
        "low": "exact", "high": "exact", "regret": "percent",
    },
    "costs": {
        "protocol": "protocol", "backbone": "text", "size": "size", "acc": "percent",
        "device_seconds": "seconds", "n_datasets": "count", "front": "flag",
    },
    "paired": {
        "dataset": "text", "protocol": "protocol", "size": "size", "best": "text", "second": "text",
        "acc_difference": "percent", "low": "percent", "high": "percent", "p_value": "p",
        "n_resamples": "count", "n_images": "count", "seeds": "text",
    },
    "against": {
        "dataset": "text", "protocol": "protocol", "backbone": "text", "size": "size",
        "acc": "percent", "paper_acc": "percent", "paper_std": "percent", "difference": "percent",
        "within_spread": "flag", "within_interval": "flag", "tolerance": "percent",
        "passed": "flag", "differs": "text",
    },
    "newcomers": {
        "backbone": "text", "protocol": "protocol", "size": "size", "rank": "count", "of": "count",
        "n_datasets": "count",
    },
    "unlike": {
        "reason": "text", "dataset": "text", "protocol": "protocol", "backbone": "text",
        "size": "size", "acc_mean": "percent", "n_seeds": "count", "conditions": "text",
        "runs": "text",
    },
    "datasets": {"dataset": "text", "data": "text", "licence": "text", "citation": "text"},
}  # fmt: skip
"""Tables by name, and what their columns hold; the columns of the CSV files, in their order."""

CAPTIONS: Mapping[str, str] = {
    "ranking": "How often each backbone takes each rank by mean ACC",
    "resolution_gains": "Datasets on which the larger image size has the higher mean ACC, of those "
    "that have both sizes",
    "percentiles": "Percentiles over datasets of ACC in percent, averaged over protocols and sizes",
    "pairwise": "Two-sided Wilcoxon signed-rank tests over datasets; significant below the "
    "threshold, which is 0.05 over the number of pairs (Bonferroni)",
    "settings": "Settings (dataset, protocol and size) that the ranking counts",
    "comparisons": "Pairs of backbones over datasets: difference of mean ACC in percent points, "
    "matched-pairs rank-biserial correlation, and Wilcoxon's p corrected after Holm",
    "nemenyi": "Nemenyi test of each pair, after Friedman's test",
    "intervals": "Mean ACC in percent and its 95 % interval, each over one source of uncertainty",
    "transfer": "How well a cheap setting predicts the ranks of an expensive one: Spearman's ρ "
    "within datasets, its 95 % interval over datasets, and the ACC lost in percent points by "
    "taking the backbone that the cheap setting ranks first",
    "costs": "Mean ACC in percent and measured device seconds of one run, extraction included",
    "paired": "Best backbone less second best on the same test images: difference of ACC in "
    "percent points, with its 95 % bootstrap interval",
    "against": "Runs beside the paper's results, ACC in percent",
    "newcomers": "Ranks that new backbones take among the paper's ten, by mean ACC over datasets",
    "unlike": "Results that stand in no other table, since they were made under other conditions",
    "datasets": "The data, their licences, and what is to be cited",
}

_ALWAYS = ("benchmark", "ranking", "resolution_gains", "percentiles", "pairwise")
"""Tables that are written even when they are empty, so that scripts find them."""

_HIDDEN: Mapping[str, tuple[str, ...]] = {
    "friedman": ("statistic", "p_value", "n_datasets", "critical_difference"),
    "unlike": ("runs",),
}
"""Columns for machines only."""


def tables_of(analysis: Analysis) -> dict[str, Table]:
    """Return the tables of an analysis by name.

    Parameters
    ----------
    analysis : Analysis

    Returns
    -------
    dict of str to Table
        The five of the paper always, all others where they have a row.
    """
    frames = _frames(analysis)
    return {
        name: _table(name, frame[list(KINDS[name])], analysis)
        for name, frame in frames.items()
        if name in _ALWAYS or not frame.empty
    }


def write_tables(analysis: Analysis, folder: Path) -> list[Path]:
    """Write every table as .csv, .md and .tex into a folder, which is made if there is none.

    Returns
    -------
    list of Path
        The files, in the order of `tables_of`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in tables_of(analysis).items():
        texts = {"csv": table.csv(), "md": table.markdown(), "tex": table.latex()}
        for ending, text in texts.items():
            path = folder / f"{name}.{ending}"
            atomic.write_bytes(path, text.encode())
            written.append(path)
    return written


def _frames(analysis: Analysis) -> dict[str, pd.DataFrame]:
    empty = pd.DataFrame()
    frames = {
        "benchmark": analysis.benchmark,
        "ranking": analysis.ranking,
        "resolution_gains": analysis.gains,
        "percentiles": analysis.percentiles,
        "pairwise": analysis.pairwise,
        "settings": analysis.settings,
        "comparisons": analysis.comparisons,
        "friedman": empty if analysis.friedman is None else _ranks(analysis.friedman),
        "nemenyi": empty if analysis.friedman is None else _nemenyi(analysis.friedman),
        "intervals": analysis.intervals,
        "transfer": _transfers(analysis.transfers),
        "costs": analysis.costs,
        "paired": analysis.paired,
        "against": empty if analysis.against is None else analysis.against,
        "newcomers": empty if analysis.newcomers is None else analysis.newcomers,
        "unlike": analysis.unlike,
        "datasets": analysis.datasets,
    }
    return {name: frame.reindex(columns=list(KINDS[name])) for name, frame in frames.items()}


def _table(name: str, frame: pd.DataFrame, analysis: Analysis) -> Table:
    kinds = KINDS[name]
    if name == "benchmark":
        blocks = list(benchmark_blocks(analysis.benchmark))
    elif name == "ranking":
        blocks = list(_ranking_blocks(frame))
    elif name == "resolution_gains":
        blocks = [_gains_block(frame)]
    else:
        caption = CAPTIONS.get(name) or _friedman_caption(analysis.friedman)
        blocks = [list_block(caption, frame, kinds, _HIDDEN.get(name, ()))]
    return Table(name, frame, kinds, blocks)


def _ranking_blocks(ranking: pd.DataFrame) -> Iterator[Block]:
    """Yield a block per protocol, with the ranks beside each other."""
    ranks = sorted(set(ranking["rank"]))
    columns = [Column("size"), Column("backbone", numeric=False)]
    columns += [Column(str(rank), "rank") for rank in ranks]
    for protocol, of_protocol in ranking.groupby("protocol", sort=False):
        rows = []
        for (size, backbone), group in of_protocol.groupby(["size", "backbone"], sort=False):
            counts = dict(zip(group["rank"], group["count"], strict=True))
            texts = (str(size), backbone, *(str(counts[rank]) for rank in ranks))
            rows.append([Cell(text) for text in texts])
        pooled = "all protocols" if protocol == ALL else PROTOCOL_LABELS[str(protocol)]
        yield Block(f"{CAPTIONS['ranking']}: {pooled}", columns, rows, grouped=True)


def _gains_block(gains: pd.DataFrame) -> Block:
    """Set the steps beside each other."""
    steps = sorted(set(zip(gains["from_size"], gains["to_size"], strict=True)))
    columns = [Column("protocol", numeric=False), Column("backbone", numeric=False)]
    columns += [Column(f"{first} → {second}") for first, second in steps]
    rows = []
    for (protocol, backbone), group in gains.groupby(["protocol", "backbone"], sort=False):
        texts = {
            (row.from_size, row.to_size): f"{row.improved}/{row.n_datasets}"
            for row in group.itertuples()
        }
        numbers = (texts.get(step, MISSING) for step in steps)
        rows.append([Cell(t) for t in (PROTOCOL_LABELS[protocol], backbone, *numbers)])
    return Block(CAPTIONS["resolution_gains"], columns, rows, grouped=True)


def _ranks(result: Friedman) -> pd.DataFrame:
    """Return mean ranks, the best first; backbones that share a letter do not differ."""
    letters = {
        backbone: " ".join(
            _letters(number) for number, clique in enumerate(result.cliques) if backbone in clique
        )
        for backbone in result.mean_ranks.index
    }
    ranks = result.mean_ranks.sort_values(kind="stable")
    return pd.DataFrame(
        {
            "backbone": ranks.index,
            "mean_rank": ranks.to_numpy(),
            "groups": [letters[backbone] for backbone in ranks.index],
            "statistic": result.statistic,
            "p_value": result.p_value,
            "n_datasets": result.n_datasets,
            "critical_difference": result.critical_difference,
        }
    )


def _letters(number: int) -> str:
    """Count in letters: a, b, …, z, aa, ab and so on."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("a") + last)


def _friedman_caption(result: Friedman | None) -> str:
    if result is None:
        return ""
    p = fmt.p_value(result.p_value)
    p = f"< {p[1:]}" if p.startswith("<") else f"= {p}"
    return (
        f"Mean ranks over {result.n_datasets} datasets (Friedman's test: statistic "
        f"{fmt.percent(result.statistic)}, p {p}). Ranks that are "
        f"{fmt.percent(result.critical_difference)} or more apart differ significantly (Nemenyi); "
        "backbones that share a letter do not"
    )


def _nemenyi(result: Friedman) -> pd.DataFrame:
    names = list(result.nemenyi.index)
    pairs = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
    p_values = [float(result.nemenyi.loc[a, b]) for a, b in pairs]
    frame = pd.DataFrame(pairs, columns=["backbone_a", "backbone_b"])
    return frame.assign(p_value=p_values)


def _transfers(transfers: Iterable[Transfer]) -> pd.DataFrame:
    rows = [
        (*one.cheap, *one.target, one.n_datasets, one.n_backbones, one.rho, one.low, one.high,
         one.regret)
        for one in transfers
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(KINDS["transfer"]))

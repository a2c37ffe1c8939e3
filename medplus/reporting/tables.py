"""The report's tables: which there are, what they hold, and their files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

import pandas as pd

from medplus import atomic
from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import order_backbones
from medplus.reporting.format import p_equals, percent
from medplus.reporting.markup import latex_table, markdown_table
from medplus.reporting.palette import label_of, setting_label
from medplus.reporting.paper_form import benchmark_blocks, gains_block, ranking_blocks
from medplus.reporting.statistics.friedman import Friedman
from medplus.reporting.statistics.transfer import Transfer
from medplus.reporting.table import Block, Column, Kind, Table, cross_block, list_block

_COLUMNS: Mapping[str, str] = {
    "benchmark": "dataset protocol backbone size acc_mean acc_std auc_mean auc_std n_seeds",
    "ranking": "protocol size backbone rank count",
    "resolution_gains": "protocol backbone from_size to_size improved n_datasets",
    "percentiles": "backbone p25 p50 p75",
    "means": "dataset backbone acc_mean",
    "pairwise": "backbone_a backbone_b p_value threshold significant favoured",
    "settings": "protocol size n_settings",
    "comparisons": "backbone_a backbone_b n_datasets mean_difference effect_size p_value p_holm "
    "significant_holm",
    "friedman": "backbone mean_rank groups statistic p_value n_datasets critical_difference",
    "nemenyi": "backbone_a backbone_b p_value",
    "intervals": "over dataset protocol backbone size mean low high n",
    "transfer": "cheap_protocol cheap_size target_protocol target_size n_datasets n_backbones rho "
    "low high regret random_regret ranked_on",
    "transfer_ranks": "cheap_protocol cheap_size target_protocol target_size dataset backbone "
    "cheap_rank target_rank",
    "costs": "protocol backbone size acc device_seconds n_datasets front",
    "paired": "dataset protocol size best second acc_difference low high p_value p_holm "
    "n_resamples n_images seeds chosen_on",
    "against": "dataset protocol backbone size acc paper_acc paper_std difference within_spread "
    "within_interval tolerance passed differs",
    "newcomers": "backbone protocol size rank rank_low rank_high of n_datasets over "
    "conditions differs",
    "unlike": "reason dataset protocol backbone size acc_mean n_seeds conditions runs",
    "datasets": "dataset data licence citation",
}
"""Tables by name, and the columns of their CSV files."""

_KINDS: Mapping[Kind, str] = {
    "backbone": "backbone backbone_a backbone_b favoured best second",
    "protocol": "protocol cheap_protocol target_protocol",
    "size": "size cheap_size target_size",
    "percent": "acc acc_mean acc_std auc_mean auc_std p25 p50 p75 mean low high regret "
    "random_regret paper_acc paper_std tolerance",
    "difference": "mean_difference acc_difference difference",
    "runs": "runs",
    "count": "n n_seeds n_settings n_datasets n_backbones n_resamples n_images rank rank_low "
    "rank_high count of from_size to_size improved",
    "exact": "effect_size mean_rank statistic critical_difference rho cheap_rank target_rank",
    "p": "p_value threshold p_holm",
    "seconds": "device_seconds",
    "flag": "significant significant_holm front within_spread within_interval passed",
}
"""What columns hold; all others hold text."""

_OF_A_CORRELATION: Mapping[str, Kind] = {"low": "exact", "high": "exact"}

CAPTIONS: Mapping[str, str] = {
    "ranking": "How often each backbone takes each rank by mean ACC",
    "resolution_gains": "Datasets on which the larger image size has the higher mean ACC, of those "
    "that have both sizes",
    "percentiles": "Percentiles over datasets of ACC in percent, averaged over protocols and sizes",
    "means": "ACC per dataset in percent, averaged over protocols and sizes",
    "pairwise": "Two-sided Wilcoxon signed-rank tests over datasets; significant below the "
    "threshold, which is 0.05 over the number of pairs (Bonferroni)",
    "settings": "Settings (dataset, protocol and size) that the ranking counts",
    "comparisons": "Pairs of backbones over datasets: difference of mean ACC in percent points, "
    "matched-pairs rank-biserial correlation, and Wilcoxon's p corrected after Holm",
    "nemenyi": "Nemenyi test of each pair, after Friedman's test",
    "transfer": "How well a cheap setting predicts the ranks of an expensive one: Spearman's ρ "
    "within datasets, its 95 % interval over datasets, and the ACC lost in percent points by "
    "taking the backbone that the cheap setting ranks first",
    "transfer_ranks": "Ranks within each dataset",
    "costs": "Mean ACC in percent and measured device seconds of one run, extraction included",
    "paired": "Best backbone less second best, chosen on val where it is known, on the same test "
    "images, all seeds together: difference of ACC in percent points, with its 95 % bootstrap "
    "interval, and p as it is and corrected for the rows after Holm",
    "against": "Runs beside the paper's results, ACC in percent",
    "newcomers": "Ranks that new backbones take among the paper's ten, by mean ACC over datasets, "
    "with 95 % intervals; under other conditions than the paper's there is none",
    "unlike": "Results that stand in no other table, since they were made under other conditions",
    "datasets": "The data, their licences, and what is to be cited",
}

_OVER = {
    "seeds": "what another seed would change (Student's t interval of the mean over seeds)",
    "datasets": "what another choice of datasets would change (Student's t interval of the mean)",
    "test samples": "what other images of the same kind would change (Wilson's interval, over "
    "patients where they are known)",
}

_SETTINGS = ["cheap_protocol", "cheap_size", "target_protocol", "target_size"]

_ALWAYS = ("benchmark", "ranking", "resolution_gains", "percentiles", "pairwise")
"""Tables that are written even when they are empty, so that scripts find them."""

_HIDDEN: Mapping[str, tuple[str, ...]] = {
    "friedman": ("statistic", "p_value", "n_datasets", "critical_difference"),
    "unlike": ("conditions",),
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
    tables = {}
    for name, frame in _frames(analysis).items():
        if name in _ALWAYS or (frame is not None and len(frame)):
            kinds = _kinds(name)
            shown = pd.DataFrame(frame).reindex(columns=list(kinds))
            tables[name] = Table(name, shown, kinds, list(_blocks(name, shown, kinds, analysis)))
    return tables


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
        blocks = table.blocks
        texts = {"csv": table.csv(), "md": markdown_table(blocks), "tex": latex_table(blocks)}
        for ending, text in texts.items():
            path = folder / f"{name}.{ending}"
            atomic.write_bytes(path, text.encode())
            written.append(path)
    return written


def _frames(analysis: Analysis) -> dict[str, pd.DataFrame | None]:
    return {
        "benchmark": analysis.benchmark,
        "ranking": analysis.ranking,
        "resolution_gains": analysis.gains,
        "percentiles": analysis.percentiles,
        "means": _long(analysis.means),
        "pairwise": analysis.pairwise,
        "settings": analysis.ranking.drop_duplicates(["protocol", "size"]),
        "comparisons": analysis.pairwise,
        "friedman": _ranks(analysis.friedman),
        "nemenyi": _nemenyi(analysis.friedman),
        "intervals": analysis.intervals,
        "transfer": _transfers(analysis.transfers),
        "transfer_ranks": _transfer_ranks(analysis.transfers),
        "costs": analysis.costs,
        "paired": analysis.paired,
        "against": analysis.against,
        "newcomers": analysis.newcomers,
        "unlike": analysis.unlike,
        "datasets": analysis.datasets,
    }


def _kinds(name: str) -> dict[str, Kind]:
    """Return the columns of a table with what they hold."""
    known = {column: kind for kind, columns in _KINDS.items() for column in columns.split()}
    known |= _OF_A_CORRELATION if name == "transfer" else {}
    return {column: known.get(column, "text") for column in _COLUMNS[name].split()}


def _blocks(
    name: str, frame: pd.DataFrame, kinds: Mapping[str, Kind], analysis: Analysis
) -> Iterator[Block]:
    """Yield what readers see: the paper's form where it has one, else the frame as it is."""
    if name == "benchmark":
        yield from benchmark_blocks(frame)
    elif name == "ranking":
        yield from ranking_blocks(CAPTIONS[name], frame)
    elif name == "resolution_gains":
        yield gains_block(CAPTIONS[name], frame)
    elif name == "means":
        cells = {(row.dataset, row.backbone): percent(row.acc_mean) for row in frame.itertuples()}
        yield _by_dataset(CAPTIONS[name], frame, cells)
    elif name == "transfer_ranks":
        for (*cheap, target_protocol, target_size), rows in frame.groupby(_SETTINGS, sort=False):
            label = f"{setting_label(*cheap)} → {setting_label(target_protocol, target_size)}"
            cells = {
                (row.dataset, row.backbone): f"{row.cheap_rank:g} → {row.target_rank:g}"
                for row in rows.itertuples()
            }
            yield _by_dataset(f"{CAPTIONS[name]}: {label}", rows, cells)
    elif name == "intervals":
        for over, rows in frame.groupby("over", sort=False):
            yield list_block(f"Over {over}: {_OVER[over]}", rows, _without(kinds, "over"))
    else:
        caption = CAPTIONS.get(name) or _friedman_caption(analysis.friedman)
        yield list_block(caption, frame, _without(kinds, *_HIDDEN.get(name, ())))


def _without(kinds: Mapping[str, Kind], *columns: str) -> dict[str, Kind]:
    return {column: kind for column, kind in kinds.items() if column not in columns}


def _by_dataset(caption: str, frame: pd.DataFrame, cells: Mapping[tuple[str, str], str]) -> Block:
    """Return a block of datasets × backbones."""
    rows = {name: (name,) for name in sorted(set(frame["dataset"]))}
    columns = {one: Column(label_of(one), True) for one in order_backbones(frame["backbone"])}
    return cross_block(caption, [Column("Dataset")], rows, columns, cells)


def _long(means: pd.DataFrame) -> pd.DataFrame:
    return (
        means.rename_axis(index="dataset")
        .melt(var_name="backbone", value_name="acc_mean", ignore_index=False)
        .reset_index()
    )


def _ranks(result: Friedman | None) -> pd.DataFrame | None:
    """Return mean ranks, the best first; backbones that share a letter do not differ."""
    if result is None:
        return None
    ranks = result.mean_ranks.sort_values(kind="stable").rename_axis("backbone")
    groups = [
        " ".join(_letters(i) for i, clique in enumerate(result.cliques) if backbone in clique)
        for backbone in ranks.index
    ]
    return ranks.reset_index(name="mean_rank").assign(
        groups=groups,
        statistic=result.statistic,
        p_value=result.p_value,
        n_datasets=result.n_datasets,
        critical_difference=result.critical_difference,
    )


def _letters(number: int) -> str:
    """Count in letters: a, b, …, z, aa, ab and so on."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("a") + last)


def _friedman_caption(result: Friedman | None) -> str:
    if result is None:
        return ""
    return (
        f"Mean ranks over {result.n_datasets} datasets (Friedman's test: statistic "
        f"{percent(result.statistic)}, {p_equals(result.p_value)}). Ranks that are "
        f"{percent(result.critical_difference)} or more apart differ significantly (Nemenyi); "
        "backbones that share a letter do not"
    )


def _nemenyi(result: Friedman | None) -> pd.DataFrame | None:
    if result is None:
        return None
    pairs = combinations(result.nemenyi.index, 2)
    rows = [(a, b, float(result.nemenyi.loc[a, b])) for a, b in pairs]
    return pd.DataFrame(rows, columns=_COLUMNS["nemenyi"].split())


def _transfers(transfers: Iterable[Transfer]) -> pd.DataFrame:
    return pd.DataFrame([vars(one) | _settings(one) for one in transfers])


def _transfer_ranks(transfers: Iterable[Transfer]) -> pd.DataFrame | None:
    frames = [one.points.assign(**_settings(one)) for one in transfers]
    return pd.concat(frames) if frames else None


def _settings(one: Transfer) -> dict[str, str | int]:
    return dict(zip(_SETTINGS, (*one.cheap, *one.target), strict=True))

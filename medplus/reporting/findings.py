"""What a table of results says, in sentences that are computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import pandas as pd

from medplus.naming import counted
from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import ALL, AVERAGE, order_protocols
from medplus.reporting.format import percent
from medplus.reporting.palette import PROTOCOL_LABELS, setting_label
from medplus.reporting.statistics.friedman import Friedman
from medplus.reporting.statistics.pairwise import smallest_p
from medplus.reporting.statistics.ties import settle
from medplus.reporting.statistics.transfer import Transfer

_FEWEST_DATASETS = 3
_FEWEST_BACKBONES = 4
_LEVEL = 0.05


def findings_of(analysis: Analysis) -> Iterator[str]:
    """Yield all that an analysis says, and that so many datasets and backbones can support."""
    n_datasets = analysis.cells["dataset"].nunique()
    several = n_datasets >= _FEWEST_DATASETS
    testable = smallest_p(n_datasets) <= _LEVEL
    return chain(
        best_averages(analysis.benchmark),
        reproduction(analysis.against),
        ranks_of_newcomers(analysis.newcomers),
        protocol_gaps(analysis.cells),
        resolution(analysis.gains),
        winners(analysis.ranking) if several else (),
        significance(analysis.pairwise, analysis.friedman) if testable else (),
        predictions([t for t in analysis.transfers if t.n_backbones >= _FEWEST_BACKBONES])
        if several
        else (),
        costs(analysis.costs),
    )


def best_averages(benchmark: pd.DataFrame) -> Iterator[str]:
    """Yield the backbone and size of the highest mean ACC of each protocol.

    Sizes that were run on other datasets have means that cannot be compared, so that only those
    with the most datasets are told of.
    """
    averages = benchmark[benchmark["dataset"] == AVERAGE].dropna(subset=["acc_mean"])
    single = benchmark[benchmark["dataset"] != AVERAGE]
    datasets = {key: set(rows["dataset"]) for key, rows in single.groupby(["protocol", "size"])}
    for protocol in order_protocols(averages["protocol"]):
        rows = averages[averages["protocol"] == protocol]
        most = max((datasets[protocol, size] for size in rows["size"].unique()), key=len)
        rows = rows[rows["size"].map(lambda size: datasets[protocol, size] == most)]  # noqa: B023
        over = f"over {len(most)} datasets" if len(most) > 1 else f"on {next(iter(most))}"
        means = settle(rows["acc_mean"])
        tied = rows[means == means.max()]
        best = tied.iloc[0]
        names = " and ".join(f"{one.backbone} at {one.size} px" for one in tied.itertuples())
        has = "has" if len(tied) == 1 else "have"
        plain = len(tied) > 1 or pd.isna(best["auc_mean"])
        auc = "" if plain else f" (AUC {percent(best['auc_mean'])} %)"
        yield (
            f"{_first_upper(PROTOCOL_LABELS[protocol])}: {names} {has} the highest mean ACC "
            f"{over}, {percent(best['acc_mean'])} %{auc}."
        )


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
                f"{_first_upper(PROTOCOL_LABELS[dear])} is on average {abs(gap):.1f} points "
                f"{'above' if gap >= 0 else 'below'} {PROTOCOL_LABELS[cheap]} with the same "
                f"dataset, backbone and size, and better in {wins} of {len(both)} cases{equal}."
            )


def resolution(gains: pd.DataFrame) -> Iterator[str]:
    """Yield how often a step in size improves ACC, pooled over protocols and backbones."""
    steps = gains.groupby(["from_size", "to_size"])[["improved", "n_datasets"]].sum()
    told = [
        f"{start} to {end} px {row.improved} of {row.n_datasets} "
        f"({100 * row.improved / row.n_datasets:.0f} %)"
        for (start, end), row in zip(steps.index, steps.itertuples(), strict=True)
    ]
    if told:
        yield f"More pixels raise ACC in: {'; '.join(told)} cases."


def winners(ranking: pd.DataFrame) -> Iterator[str]:
    """Yield who is first most often, over all settings."""
    pooled = ranking[(ranking["protocol"] == ALL) & (ranking["size"] == ALL)]
    firsts = pooled[pooled["rank"] == 1].set_index("backbone")["count"]
    total = pooled["n_settings"].max()
    if len(firsts) > 1 and total:
        most = list(firsts.index[firsts == firsts.max()])
        verb, each = ("are", " each") if len(most) > 1 else ("is", "")
        yield (
            f"{' and '.join(most)} {verb} first most often: in {firsts.max()} of {total} "
            f"settings{each}."
        )


def significance(pairs: pd.DataFrame, friedman: Friedman | None) -> Iterator[str]:
    """Yield what the tests over datasets say."""
    if friedman is not None:
        verdict = "differ" if friedman.p_value < 0.05 else "cannot be told apart"
        yield (
            f"Over {friedman.n_datasets} datasets the backbones {verdict} as a group "
            f"(Friedman p = {friedman.p_value:.2g}); mean ranks must be "
            f"{friedman.critical_difference:.2f} apart to count."
        )
    if pairs["p_value"].notna().any():
        firm, holm = (int(pairs[name].sum()) for name in ("significant", "significant_holm"))
        yield (
            f"Of {counted(len(pairs), 'pair')} of backbones, {firm} differ "
            f"significantly after Bonferroni's correction, {holm} after Holm's."
        )


def predictions(transfers: Sequence[Transfer]) -> Iterator[str]:
    """Yield how well the cheap predicts the expensive."""
    for one in transfers:
        if pd.isna(one.rho):
            continue
        interval = "" if pd.isna(one.low) else f", 95 % interval {one.low:.2f} to {one.high:.2f}"
        yield (
            f"{_first_upper(setting_label(*one.cheap))} predicts the order of "
            f"{one.n_backbones} backbones under {setting_label(*one.target)} with "
            f"a rank correlation of {one.rho:.2f}{interval}; trusting it costs "
            f"{one.regret:.1f} points of ACC on average."
        )


def costs(front: pd.DataFrame) -> Iterator[str]:
    """Yield the cheapest way to nearly the best mean ACC, where costs were measured."""
    if len(front) < 2:
        return
    best = front.loc[front["acc"].idxmax()]
    near = front[front["acc"] >= best["acc"] - 1.0]
    cheapest = near.loc[near["device_seconds"].idxmin()]
    if cheapest.name == best.name:
        yield f"Nothing cheaper comes within 1 point of the best: {_setting(best)}."
        return
    share = 100 * cheapest["device_seconds"] / best["device_seconds"]
    yield (
        f"{_first_upper(_setting(cheapest))} comes within 1 point of the best "
        f"({_setting(best)}) for {share:.{0 if share >= 1 else 2}f} % of its device time."
    )


def reproduction(against: pd.DataFrame | None) -> Iterator[str]:
    """Yield how many cells agree with the paper's."""
    if against is None or against.empty:
        return
    passed, tolerance = int(against["passed"].sum()), against["tolerance"].iloc[0]
    strict = against[against["differs"] == ""]
    alike = (
        f"of the {len(strict)} that were run under its conditions, {int(strict['passed'].sum())}"
        if len(strict)
        else "none was run under its conditions"
    )
    yield (
        f"{passed} of {len(against)} cells lie within {tolerance:g} points of the paper's ACC; "
        f"{alike}."
    )


def ranks_of_newcomers(newcomers: pd.DataFrame | None) -> Iterator[str]:
    """Yield the best rank that each new backbone would take."""
    if newcomers is None:
        return
    for backbone, rows in newcomers.groupby("backbone", sort=False):
        best = rows.loc[rows["rank"].idxmin()]
        yield (
            f"{backbone} would be {best['rank']} of {best['of']} among the paper's at best "
            f"({PROTOCOL_LABELS[best['protocol']]}, {best['size']} px, over "
            f"{counted(best['n_datasets'], 'dataset')})."
        )


def _first_upper(text: str) -> str:
    return text if text.startswith("k-NN") else text[:1].upper() + text[1:]


def _setting(row: pd.Series) -> str:
    return f"{PROTOCOL_LABELS[row['protocol']]} of {row['backbone']} at {row['size']} px"

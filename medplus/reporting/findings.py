"""What a table of results says, in sentences that are computed from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import pandas as pd

from medplus.reporting.analysis import Analysis
from medplus.reporting.cells import ALL, AVERAGE, order_protocols
from medplus.reporting.format import counted, percent
from medplus.reporting.palette import PROTOCOL_LABELS, setting_label
from medplus.reporting.statistics.friedman import Friedman, friedman
from medplus.reporting.statistics.pairwise import pairwise as pairwise_tests
from medplus.reporting.statistics.pairwise import smallest_p
from medplus.reporting.statistics.percentiles import RELATED, merge_related
from medplus.reporting.statistics.ranking import tied_firsts
from medplus.reporting.statistics.ties import settle
from medplus.reporting.statistics.transfer import Transfer

_FEWEST_DATASETS = 3
_FEWEST_BACKBONES = 4
_LEVEL = 0.05
_SETTING = ["protocol", "backbone", "size"]


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
        winners(analysis.ranking, tied_firsts(analysis.cells)) if several else (),
        significance(analysis.pairwise, analysis.friedman) if testable else (),
        of_independent_data(analysis.means) if testable else (),
        predictions([t for t in analysis.transfers if t.n_backbones >= _FEWEST_BACKBONES])
        if several
        else (),
        costs(analysis.costs, len(analysis.cells[_SETTING].drop_duplicates())),
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
        yield f"More pixels raise ACC in: {'; '.join(told)} cases; equal is no rise."


def winners(ranking: pd.DataFrame, n_tied: int) -> Iterator[str]:
    """Yield who is first most often, over all settings."""
    pooled = ranking[(ranking["protocol"] == ALL) & (ranking["size"] == ALL)]
    firsts = pooled[pooled["rank"] == 1].set_index("backbone")["count"]
    total = pooled["n_settings"].max()
    if len(firsts) > 1 and total:
        most = list(firsts.index[firsts == firsts.max()])
        verb, each = ("are", " each") if len(most) > 1 else ("is", "")
        yield (
            f"{' and '.join(most)} {verb} first most often: in {firsts.max()} of {total} "
            f"settings{each}"
            + (f"; {n_tied} have several firsts, of which one is counted." if n_tied else ".")
        )


def significance(pairs: pd.DataFrame, tested: Friedman | None) -> Iterator[str]:
    """Yield what the tests over datasets say."""
    if tested is not None:
        verdict = "differ" if tested.p_value < 0.05 else "cannot be told apart"
        yield (
            f"Over {tested.n_datasets} datasets the backbones {verdict} as a group "
            f"(Friedman p = {tested.p_value:.2g}); mean ranks must be "
            f"{tested.critical_difference:.2f} apart to count."
        )
    if pairs["p_value"].notna().any():
        firm, holm = (int(pairs[name].sum()) for name in ("significant", "significant_holm"))
        yield (
            f"Of {counted(len(pairs), 'pair')} of backbones, {firm} differ "
            f"significantly after Bonferroni's correction, {holm} after Holm's."
        )


def of_independent_data(means: pd.DataFrame) -> Iterator[str]:
    """Yield what the tests say where datasets that share patients count as one."""
    merged = merge_related(means.dropna())
    if len(merged) == len(means.dropna()) or smallest_p(len(merged)) > _LEVEL:
        return
    pairs, tested = pairwise_tests(merged), friedman(merged)
    firm, holm = (int(pairs[name].sum()) for name in ("significant", "significant_holm"))
    said = f"with these as one, n = {len(merged)}: "
    if tested is not None:
        said += f"Friedman p = {tested.p_value:.2g}, "
    of = counted(len(pairs), "pair")
    said += f"{firm} of {of} differ after Bonferroni's correction, {holm} after Holm's"
    least = smallest_p(len(merged))
    if len(pairs) and least >= pairs["threshold"].iloc[0]:
        said += (
            f" (no pair can pass Bonferroni's, since p is never below {least:.2g} and has to be "
            f"below {pairs['threshold'].iloc[0]:.2g})"
        )
    shared = " and ".join(str(name) for name in means.index if name in RELATED)
    yield f"{shared} show the same patients and are not independent; {said}."


def predictions(transfers: Sequence[Transfer]) -> Iterator[str]:
    """Yield how well the cheap predicts the expensive, and what trusting it costs."""
    for one in transfers:
        if pd.isna(one.rho):
            continue
        interval = "" if pd.isna(one.low) else f", 95 % interval {one.low:.2f} to {one.high:.2f}"
        limit = ""
        if one.ranked_on == "test":
            limit = (
                " Both were scored on the same test images, as no val scores are known, so that "
                "they agree more than they would on others."
            )
        yield (
            f"{_first_upper(setting_label(*one.cheap))} "
            f"{'predicts' if one.predicts else 'does not predict'} the order of "
            f"{one.n_backbones} backbones under {setting_label(*one.target)}: the rank "
            f"correlation over {counted(one.n_datasets, 'dataset')} is {one.rho:.2f}{interval}. "
            f"Trusting it costs {one.regret:.1f} points of ACC on average, choosing at random "
            f"{one.random_regret:.1f}.{limit}"
        )


def costs(front: pd.DataFrame, n_settings: int) -> Iterator[str]:
    """Yield the cheapest way to nearly the best mean ACC, of those whose cost was measured."""
    if len(front) < 2:
        return
    acc = settle(front["acc"])
    # Of equally good ones the cheapest is the best.
    best = front.loc[front.loc[acc == acc.max(), "device_seconds"].idxmin()]
    near = front[settle(front["acc"] - best["acc"]) >= -1.0]
    cheapest = near.loc[near["device_seconds"].idxmin()]
    of = ""
    if len(front) < n_settings:
        of = f"Of the {len(front)} of {n_settings} settings whose cost was measured: "
    if cheapest.name == best.name:
        said = f"nothing cheaper comes within 1 point of the best: {_setting(best)}."
    else:
        share = 100 * cheapest["device_seconds"] / best["device_seconds"]
        said = (
            f"{_setting(cheapest)} comes within 1 point of the best "
            f"({_setting(best)}) for {share:.{0 if share >= 1 else 2}f} % of its device time."
        )
    yield of + said if of else _first_upper(said)


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
    """Yield the rank that each new backbone would take, by each protocol at its largest size.

    The size is chosen by no score: the best of several ranks would be a lucky one.
    """
    if newcomers is None:
        return
    for (backbone, protocol), rows in newcomers.groupby(["backbone", "protocol"], sort=False):
        row = rows.loc[rows["size"].idxmax()]
        setting = setting_label(protocol, row["size"])
        if row["differs"]:
            yield (
                f"{backbone} has no rank among the paper's under {setting}: it was run with "
                f"{row['differs']}; the paper's conditions are {row['conditions']}."
            )
            continue
        interval = ""
        if pd.notna(row["rank_low"]):
            ends = f"{row['rank_low']} to {row['rank_high']}"
            interval = f" (95 % interval {ends}, over other {row['over']})"
        yield (
            f"{backbone} would be {row['rank']} of {row['of']} among the paper's{interval} under "
            f"{setting}, over {counted(row['n_datasets'], 'dataset')}, with the paper's "
            f"{row['conditions']}."
        )


def _first_upper(text: str) -> str:
    return text if text.startswith("k-NN") else text[:1].upper() + text[1:]


def _setting(row: pd.Series) -> str:
    return f"{PROTOCOL_LABELS[row['protocol']]} of {row['backbone']} at {row['size']} px"

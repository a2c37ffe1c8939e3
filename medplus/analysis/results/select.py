"""From runs to cells: like with like, and what is unlike set apart with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import pandas as pd

from medplus.analysis.results.baseline import paper_conditions
from medplus.analysis.results.cells import KEYS, order_protocols, sort_cells
from medplus.analysis.results.contenders import AXES, with_contenders
from medplus.analysis.results.runs import ALL_ROWS, ANY, ROWS, TUNED, describe
from medplus.errors import UsageError, nearest
from medplus.spec import NONE

UNLIKE_COLUMNS = ["reason", *KEYS, "acc_mean", "n_seeds", "conditions", "runs"]

ON_VAL = "chosen on val"
"""The value of a condition that was chosen for each cell and seed by its val score."""

_UNSAID = {ROWS: ALL_ROWS}
"""What a condition is where it is not told."""

_NAMES = ("dataset", "protocol", "backbone")


@dataclass(frozen=True)
class Selection:
    """Runs that may stand in one table, and those that may not.

    Attributes
    ----------
    runs : pandas.DataFrame
        The runs that the cells were made of.
    cells : pandas.DataFrame
        See `medplus.analysis.results.cells`, with the further columns of runs.
    unlike : pandas.DataFrame
        Columns `UNLIKE_COLUMNS`.
    conditions : dict of str to str
        Per protocol, the conditions of the runs.
    """

    runs: pd.DataFrame
    cells: pd.DataFrame
    unlike: pd.DataFrame
    conditions: dict[str, str]


def select_alike(
    runs: pd.DataFrame,
    only: Sequence[tuple[str, str]] = (),
    tuned: Literal["fixed", "val"] = "fixed",
) -> Selection:
    """Choose the runs that are alike, and make cells of them.

    Data must be equal within a dataset, everything else within a protocol; but for backbones,
    sizes, weights, fits and features, which are what is compared. Of several conditions those with
    the most cells are taken, and of equally many those of the paper. All runs of a dataset and size
    must have seen the same images, and within a cell all must have begun with the same weights; of
    several the newest are taken. So is of runs that differ in nothing, such as those of kNN by two
    libraries: a cell has one run for each seed.

    Parameters
    ----------
    runs : pandas.DataFrame
        As `medplus.analysis.results.runs.read_runs` returns it.
    only : sequence of (name, value)
        Conditions, or columns, that runs must have; the same name twice allows both values.
    tuned : {"fixed", "val"}
        ``fixed`` takes one k, learning rate and weight decay for all; ``val`` takes, in each cell
        and for each seed, those of the best val ACC; of equals, the best val AUC.

    Raises
    ------
    UsageError
        If `only` names what no run has.
    """
    sieve = _Sieve(with_contenders(filtered(runs, only)))
    for _, of_it in sieve.kept.groupby("dataset"):
        sieve.keep_main(["data", ROWS], of_it.index)
    if tuned == "val":
        sieve.kept = best_on_val(sieve.kept)
    for protocol in order_protocols(sieve.kept["protocol"]):
        of_it = sieve.kept.index[sieve.kept["protocol"] == protocol]
        sieve.keep_main(_names(sieve.kept.loc[of_it]), of_it)
    sieve.keep_newest(["dataset", "size"], 0, "other images under the same name, since replaced")
    sieve.keep_newest(KEYS, 1, "other weights under the same name, since replaced")
    sieve.keep_one_per_seed()
    shown = {
        protocol: describe(_common(rows["conditions"]))
        for protocol, rows in sieve.kept.groupby("protocol")
    }
    conditions = {str(name): shown[name] for name in order_protocols(shown)}
    return Selection(sieve.kept, _means(sieve.kept), sieve.unlike(), conditions)


def _means(runs: pd.DataFrame, apart: Sequence[str] = ()) -> pd.DataFrame:
    """Return the means over seeds; runs that differ in a column of `apart` stay apart.

    The interval over test samples is that of the mean over seeds of the single runs' bounds: all
    seeds are scored on the same images, so their errors are not independent and averaging does
    not narrow them. The paper's code does not say which standard deviation it prints; we give that
    of the sample.
    """
    cells = (
        runs.groupby([*apart, *KEYS])
        .agg(
            acc_mean=("acc", "mean"),
            acc_std=("acc", "std"),
            auc_mean=("auc", "mean"),
            auc_std=("auc", "std"),
            n_seeds=("acc", "size"),
            val_mean=("val_acc", "mean"),
            acc_low=("acc_low", "mean"),
            acc_high=("acc_high", "mean"),
            device_seconds=("device_seconds", "mean"),
            runs=("run", tuple),
            **{name: (name, "first") for name in ("network", *AXES)},
        )
        .reset_index()
    )
    return sort_cells(cells)


@dataclass
class _Sieve:
    """Runs that are kept, and the parts that were set apart, each with its reason."""

    kept: pd.DataFrame
    _apart: list[tuple[str, pd.DataFrame]] = field(default_factory=list)

    def keep_main(self, names: Iterable[str], within: pd.Index) -> None:
        """Of the runs `within`, keep those of the condition with the most merit."""
        names = tuple(names)
        rows = self.kept.loc[within]
        values = rows["conditions"].map(
            lambda c: tuple(c.get(name, _UNSAID.get(name, "")) for name in names)
        )
        distinct = list(dict.fromkeys(values))
        # Raw pixels follow the networks, and only alone they choose.
        plain = [value for value in distinct if ANY not in value] or distinct
        main = max(plain, key=lambda value: _merit(value, names, rows[values == value]))
        for value in distinct:
            differing = [
                f"{name} {theirs or 'unknown'}, not {ours or 'unknown'}"
                for name, theirs, ours in zip(names, value, main, strict=True)
                if theirs not in (ours, ANY)
            ]
            if differing:
                self._set_apart(rows.index[values == value], ", ".join(differing))

    def keep_newest(self, names: list[str], part: int, reason: str) -> None:
        """Of several digests under one name, keep the runs of the one that was used last."""
        digests = self.kept["digests"].map(lambda digests: str(digests[part]))
        ordered = self.kept.assign(digest=digests).sort_values(["created", "digest"])
        newest = ordered.groupby(names)["digest"].transform("last")
        self._set_apart(ordered.index[ordered["digest"] != newest], reason)

    def keep_one_per_seed(self) -> None:
        """Of runs that differ in nothing that is known, keep the newest: they are no new seeds."""
        ordered = self.kept.sort_values(["created", "run"])
        again = ordered.duplicated([*KEYS, "seed"], keep="last")
        self._set_apart(ordered.index[again], "the same seed and conditions again, since repeated")

    def unlike(self) -> pd.DataFrame:
        """Return what was set apart, as cells."""
        if not self._apart:
            return pd.DataFrame(columns=UNLIKE_COLUMNS)
        apart = pd.concat([rows.assign(reason=reason) for reason, rows in self._apart])
        apart["conditions"] = apart["conditions"].map(describe)
        apart["digests"] = apart["digests"].map(str)
        return _means(apart, ["reason", "conditions", "digests"])[UNLIKE_COLUMNS]

    def _set_apart(self, index: pd.Index, reason: str) -> None:
        if not len(index):
            return
        self._apart.append((reason, self.kept.loc[index]))
        self.kept = self.kept.drop(index)


def filtered(runs: pd.DataFrame, only: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return the runs that have what is asked for."""
    wanted: dict[str, list[str]] = {}
    for name, value in only:
        wanted.setdefault(name, []).append(value)
    chosen = pd.Series(True, index=runs.index)
    for name, values in wanted.items():
        has = _values(runs, name)
        present = sorted(set(has) - {ANY}, key=_in_order)
        allowed = {ANY}
        for value in values:
            same = {one for one in present if _same(name, one, value)}
            if not same:
                raise UsageError(
                    f"--only {name}={value}: no run has it; there is {', '.join(present) or 'none'}"
                )
            allowed |= same
        chosen &= has.isin(allowed)
    if not chosen.any():
        raise UsageError("--only: no run has all of it")
    return runs[chosen]


def _values(runs: pd.DataFrame, name: str) -> pd.Series:
    """Return a condition of each run as text; where it has none it cannot be left out by it."""
    columns = [*KEYS, "seed"]
    if name in columns:
        return runs[name].map(lambda value: ANY if pd.isna(value) else str(value)).astype(object)
    known = [*columns, *dict.fromkeys(name for c in runs["conditions"] for name in c)]
    if name not in known:
        raise UsageError(
            f"--only {name}: runs have no such condition{nearest(name, known)} "
            f"(known: {', '.join(known)})"
        )
    return runs["conditions"].map(lambda conditions: conditions.get(name, _UNSAID.get(name, ANY)))


def _same(name: str, text: str, wanted: str) -> bool:
    """Return whether a value is the one that is asked for; 1e-4 is 0.0001, but names are names."""
    number = _number(text) if name not in _NAMES else None
    return text == wanted or (number is not None and number == _number(wanted))


def _in_order(text: str) -> tuple[bool, Decimal, str]:
    number = _number(text)
    return number is None, number or Decimal(0), text


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)  # seeds have more digits than a float
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def best_on_val(runs: pd.DataFrame) -> pd.DataFrame:
    """Of runs that differ in what a search varies, keep the best on val, as a search does itself.

    Of equals on val it is the first by the name of its folder; test takes no part. Its cost is that
    of the whole search, on embeddings that were made once. The further columns `fixed_acc` and
    `n_tried` hold the test ACC by the paper's own choice, where it was tried, and how many were.
    """
    kept = []
    for protocol, rows in runs.groupby("protocol", sort=False):
        tuned = TUNED.get(str(protocol), ())
        rest = rows["conditions"].map(
            lambda c, tuned=tuned: describe({n: v for n, v in c.items() if n not in tuned})
        )
        keys = [rows[name] for name in KEYS] + [rows["seed"].fillna(-1), rows["digests"], rest]
        extraction = rows["extraction_seconds"].astype(float).fillna(0)
        own = (rows["device_seconds"] - extraction).groupby(
            [key.loc[rows.index] for key in keys], sort=False
        )
        searched = own.transform("sum", min_count=1) + extraction
        paper = paper_conditions(str(protocol))
        fixed = rows["conditions"].map(
            lambda c, tuned=tuned, paper=paper: all(c.get(n) == paper.get(n) for n in tuned)
        )
        keys = [key.loc[rows.index] for key in keys]
        best = (
            rows.assign(
                device_seconds=searched,
                fixed_acc=rows["acc"].where(fixed).groupby(keys, sort=False).transform("max"),
                n_tried=rows.groupby(keys, sort=False)["run"].transform("size"),
            )
            .sort_values(["val_acc", "val_auc", "run"], ascending=[False, False, True])
            .groupby([key.loc[rows.index] for key in keys], sort=False)
        )
        chosen = best.head(1).copy()
        chosen["conditions"] = chosen["conditions"].map(
            lambda c, tuned=tuned: {n: ON_VAL if n in tuned else v for n, v in c.items()}
        )
        kept.append(chosen)
    return pd.concat(kept).sort_index()


def _names(runs: pd.DataFrame) -> tuple[str, ...]:
    named = dict.fromkeys(name for conditions in runs["conditions"] for name in conditions)
    return tuple(name for name in named if name not in ("data", ROWS, *AXES))


def _merit(value: tuple[str, ...], names: tuple[str, ...], rows: pd.DataFrame) -> tuple[Any, ...]:
    """Return what conditions are chosen by.

    Whether a trained network has them, whose runs must not be set apart for those of random ones;
    how many cells; likeness to the paper; age.
    """
    # What is asked of all is the same for all.
    paper = {**_UNSAID, **paper_conditions(rows["protocol"].iloc[0])}
    likeness = sum(paper.get(name) == text for name, text in zip(names, value, strict=True))
    trained = "data" not in names and bool((rows["weights"] != NONE).any())
    return trained, len(rows[KEYS].drop_duplicates()), likeness, rows["created"].max(), value


def _common(conditions: pd.Series) -> dict[str, str]:
    """Return what alike runs have in common; raw pixels follow the networks."""
    found: dict[str, set[str]] = {}
    for one in conditions:
        for name, value in {**_UNSAID, **one}.items():
            found.setdefault(name, set()).add(value)
    found[ROWS].discard(ALL_ROWS if len(found[ROWS]) == 1 else "")
    return {
        name: next(iter(values - {ANY}))
        for name, values in found.items()
        if len(values - {ANY}) == 1
    }

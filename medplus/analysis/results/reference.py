"""What runs are set beside: the paper, or any table of results in the same columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from medplus.analysis.results.baseline import load_baseline, paper_conditions
from medplus.analysis.results.cells import AVERAGE, COLUMNS, KEYS, PROTOCOLS, SCORES
from medplus.analysis.results.contenders import AXES
from medplus.errors import RunError, UsageError

PAPER = "paper"


@dataclass(frozen=True, eq=False)
class Reference:
    """Results of others.

    Attributes
    ----------
    name : str
        What they are called in sentences.
    cells : pandas.DataFrame
        Columns `medplus.analysis.results.cells.COLUMNS`, and weights, fit and feature, which are
        empty where they are not told.
    conditions : mapping of str to (mapping of str to str)
        Per protocol, the conditions they were made under, as far as they are known.
    data : tuple of str
        What data a run must have been made on to be of the same dataset; empty where the name of
        the dataset says enough.
    """

    name: str
    cells: pd.DataFrame
    conditions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    data: tuple[str, ...] = ()


def load_reference(name: str) -> Reference:
    """Return the paper's results, or those of a CSV file.

    Parameters
    ----------
    name : str
        ``paper``, or a file with the columns dataset, protocol (``finetune``, ``probe``,
        ``knn``), backbone, size, acc_mean, acc_std, auc_mean, auc_std (percent) and n_seeds; all
        but the first four and acc_mean may be missing, others are not read. Rows of the dataset
        ``average`` are left out. Where it has the columns weights, fit or feature, a row is
        only for runs with the same.

    Raises
    ------
    UsageError
        If there is no such file.
    RunError
        If it lacks a column, or a row is wrong.
    """
    if name == PAPER:
        # An unofficial file says that it is one of the paper's datasets, and is not proven to be.
        conditions = {str(protocol): paper_conditions(protocol) for protocol in PROTOCOLS}
        cells = load_baseline().assign(**dict.fromkeys(AXES, ""))
        return Reference("the paper", cells, conditions, ("official", "unofficial"))
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"--against {name}: say paper, or name a CSV file; there is no {path}")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise RunError(f"{path} cannot be read as CSV: {error}") from None
    needed = [*KEYS, "acc_mean"]
    if missing := [column for column in needed if column not in table]:
        raise RunError(
            f"{path} lacks the column {missing[0]}; it needs {', '.join(needed)}, and may have "
            f"{', '.join(one for one in COLUMNS if one not in needed)}"
        )
    table = table[table["dataset"] != AVERAGE]
    cells = pd.DataFrame({one: _column(path, table, one) for one in (*COLUMNS, *AXES)})
    if not len(cells):
        raise RunError(f"{path} has no rows to compare with")
    if (again := cells.duplicated([*KEYS, *AXES])).any():
        row = cells[again].iloc[0]
        raise RunError(
            f"{path}, line {again.idxmax() + 2}: {row['dataset']}, {row['protocol']}, "
            f"{row['backbone']}, {row['size']} px stands there twice; leave one of them out"
        )
    return Reference(path.stem, cells.reset_index(drop=True))


def _column(path: Path, table: pd.DataFrame, name: str) -> pd.Series:
    """Return a column with what it must hold."""
    if name not in table:
        missing = "" if name in AXES else 1 if name == "n_seeds" else float("nan")
        return pd.Series(missing, index=table.index)
    texts = table[name].str.strip()
    if name in AXES:
        return texts
    if name in ("size", "n_seeds"):
        wrong, what = ~texts.str.fullmatch(r"[1-9]\d*"), "a whole number from 1"
    elif name in SCORES:
        numbers = pd.to_numeric(texts, errors="coerce")
        left_out = (texts == "") & (name != "acc_mean")
        wrong, what = ~(numbers.between(0, 100) | left_out), "a percentage from 0 to 100"
    elif name == "protocol":
        wrong, what = ~texts.isin(PROTOCOLS), f"one of {', '.join(PROTOCOLS)}"
    else:
        wrong, what = texts == "", "a name"
    if wrong.any():
        line = int(wrong.idxmax())
        raise RunError(f"{path}, line {line + 2}: {name} is '{texts[line]}', not {what}")
    if name in ("size", "n_seeds"):
        return texts.astype(int)
    return pd.to_numeric(texts) if name in SCORES else texts

"""The columns of a folder's table, CSV or parquet, as text."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medplus.errors import UsageError, first_line, nearest, optional
from medplus.naming import counted, several, some

PATH = "path"
"""The column that names the images."""


@dataclass(frozen=True)
class Table:
    """A table, and where it comes from; missing values are empty."""

    path: Path
    columns: dict[str, list[str]]

    def full(self, name: str) -> list[str]:
        """Return a column that has a value in every row.

        Raises
        ------
        UsageError
            If there is no such column, or it has gaps.
        """
        if name not in self.columns:
            told = f"(it has {some(self.columns, 12)}){nearest(name, self.columns)}"
            if name == PATH:
                told = f"(it has {some(self.columns, 12)}); call the one that names the images so"
            raise UsageError(f"{self.path} has no column '{name}' {told}")
        gaps = [str(row) for row, value in enumerate(self.columns[name], start=2) if not value]
        if gaps:
            raise UsageError(
                f"{self.path}: {counted(len(gaps), 'row')} without {name} (rows "
                f"{', '.join(gaps[:3])}); fill in every row, or drop it"
            )
        return self.columns[name]


def read_columns(path: Path) -> Table:
    """Read a table.

    Raises
    ------
    UsageError
        If it cannot be read, or has no rows.
    """
    import pandas as pd

    try:
        if path.suffix.lower() == ".parquet":
            optional("pyarrow", f"to read {path}")
            frame = pd.read_parquet(path)
        else:
            with path.open(encoding="utf-8-sig") as file:
                header = file.readline()
            separator = _separator(header)
            names = Counter(map(str.strip, next(csv.reader([header], delimiter=separator), ())))
            twice = sorted(name for name, n in names.items() if name and n > 1)
            if twice:
                raise UsageError(f"{path} has {several(twice, 'column')} twice; keep one of each")
            frame = pd.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
            )
            if not isinstance(frame.index, pd.RangeIndex) and not any(frame.iloc[:, -1]):
                names = frame.columns  # a separator ends every line: the first column is no index
                frame = frame.reset_index().iloc[:, :-1].set_axis(names, axis=1)
    except UsageError:
        raise
    except Exception as error:  # parsers fail in many ways
        remedy = "; save it as CSV in UTF-8" if isinstance(error, UnicodeError) else ""
        told = f"is no table that can be read: {first_line(error)}{remedy}"
        raise UsageError(f"{path} {told}") from None
    if frame.empty:
        raise UsageError(f"{path} has no rows")
    columns = {str(name).strip(): [*map(word, frame[name])] for name in frame.columns}
    return Table(path, columns)


def refuse_twins(path: Path, names: Iterable[str], noun: str) -> None:
    """Refuse a table or file that names something on several rows.

    Raises
    ------
    UsageError
    """
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise UsageError(f"{path}: {several(twice, noun)} on several rows; keep one of each")


def csv_rows(
    path: Path, content: bytes, needed: Sequence[str], remedy: str
) -> list[dict[str, str]]:
    """Return the rows of a table that medplus has written, and a person may have edited.

    Raises
    ------
    UsageError
        If it is no table, or lacks a column that is needed.
    """
    text = content.decode("utf-8-sig", "surrogateescape")
    # As a stream, since names of files may have ends of lines in them.
    stream, separator = io.StringIO(text, newline=""), _separator(text.partition("\n")[0])
    try:
        reader = csv.DictReader(stream, delimiter=separator, restval="")
        rows = list(reader)
    except csv.Error as error:
        raise UsageError(f"{path} is no table: {error}; {remedy}") from None
    missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(f"{path} has no column {missing[0]}; {remedy}")
    return [{str(name): str(value or "") for name, value in row.items()} for row in rows]


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV, each ended by a line feed."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _separator(header: str) -> str:
    """Return what separates the columns: the most frequent in the header, outside quotes.

    Spreadsheets write semicolons where numbers have decimal commas.
    """
    return max(",;\t", key=re.sub(r'"[^"]*"', "", header).count)


def word(value: Any) -> str:
    """Return a value of a table as text; a missing one is empty."""
    if value is None or str(value) in ("nan", "NaT", "<NA>"):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a column of integers that had a gap
    return str(value).strip()

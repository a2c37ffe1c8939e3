"""Tables in files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from medplus import atomic
from medplus.analysis.table import Table
from medplus.reporting.markup import latex_table, markdown_table


def write_tables(tables: Iterable[Table], folder: Path) -> list[Path]:
    """Write every table as .csv, .md and .tex into a folder, which is made if there is none.

    Returns
    -------
    list of Path
        The files, in the order of the tables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for table in tables:
        blocks = table.blocks
        texts = {"csv": table.csv(), "md": markdown_table(blocks), "tex": latex_table(blocks)}
        for ending, text in texts.items():
            path = folder / f"{table.name}.{ending}"
            atomic.write_bytes(path, text.encode())
            written.append(path)
    return written

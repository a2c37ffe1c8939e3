"""Sections in files, without a report around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medplus import atomic
from medplus.analysis.section import Section
from medplus.errors import writing
from medplus.naming import safe_name
from medplus.reporting.figures import write_figures
from medplus.reporting.tables import write_tables


def write_sections(sections: Sequence[Section], out: Path) -> list[Path]:
    """Write what sections show into a folder, which is made if there is none.

    Tables go to ``tables``, figures to ``figures``, and the images of galleries to ``pictures``.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    tables = [table for section in sections for table in section.tables]
    figures = [figure for section in sections for figure in section.figures]
    with writing(out, "free space, or name another --out"):
        written = write_tables(tables, out / "tables") + write_figures(figures, out / "figures")
        for section in sections:
            for gallery in section.galleries:
                for picture in gallery.pictures:
                    name = f"{safe_name(picture.title.replace('/', '-')).removesuffix('.png')}.png"
                    path = out / "pictures" / section.name / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    atomic.write_bytes(path, picture.png)
                    written.append(path)
    return list(dict.fromkeys(written))

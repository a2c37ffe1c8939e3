"""Sections as files: tables as CSV, figures as PNG and SVG, pictures as they are."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from medplus import atomic
from medplus.analysis.drawing.style import look
from medplus.analysis.section import Figure, Section
from medplus.naming import safe_name

_DPI = 200


def write_sections(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Write what sections show into a folder, which is made if there is none.

    Returns
    -------
    list of Path
        The files.
    """
    written = []
    for section in sections:
        for name, content in _files(section):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, content)
            written.append(path)
    return written


def _files(section: Section) -> Iterator[tuple[str, bytes]]:
    for table in section.tables:
        yield f"{table.name}.csv", table.csv().encode()
    for figure in section.figures:
        for ending in ("png", "svg"):
            yield f"{figure.name}.{ending}", _drawn(figure, ending)
    for gallery in section.galleries:
        for picture in gallery.pictures:
            name = safe_name(picture.title.replace("/", "-").removesuffix(".png"))
            yield f"{section.name}/{name}.png", picture.png


def _drawn(figure: Figure, ending: str) -> bytes:
    content = io.BytesIO()
    with look():
        # Without a date, so that the same numbers give the same file.
        dated = {"Date": None} if ending == "svg" else None
        figure.draw().savefig(content, format=ending, dpi=_DPI, metadata=dated)
    return content.getvalue()

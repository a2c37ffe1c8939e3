"""A curve in files: its figure, and everything as JSON."""

from __future__ import annotations

from pathlib import Path

from medplus import atomic
from medplus.analysis.learning_curves import draw_curve
from medplus.curves.kept import Curve
from medplus.errors import writing
from medplus.reporting.figures import FORMATS, render


def write_curve(made: Curve, folder: Path) -> list[Path]:
    """Write ``curve.json`` and the figure ``curve.png``, ``.svg`` and ``.pdf`` into a folder.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    written = [folder / f"curve.{ending}" for ending in FORMATS]
    with writing(f"--out {folder}", "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        figure = draw_curve(made)
        for path, ending in zip(written, FORMATS, strict=True):
            atomic.write_bytes(path, render(figure, ending))
        atomic.write_json(folder / "curve.json", made.to_dict())
    return [*written, folder / "curve.json"]

"""A view of a collection as the JSON that its page holds: numbers packed, names as they are."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from medplus.exploration.maps import to_grid
from medplus.exploration.thumbnails import COLUMNS, Sheets

if TYPE_CHECKING:
    from medplus.exploration.collection import Collection

_JS = {"u1": "Uint8Array", "u2": "Uint16Array", "u4": "Uint32Array", "f4": "Float32Array"}
NO_SCORE = 255


def packed(values: np.ndarray, kind: str | None = None) -> dict[str, str]:
    """Return an array as JavaScript reads it: the name of its type, and its bytes in base64.

    Parameters
    ----------
    values : ndarray
    kind : {"u1", "u2", "u4", "f4"}, optional
        By default the smallest that holds these whole numbers.

    Examples
    --------
    >>> packed(np.array([0, 255]))
    {'type': 'Uint8Array', 'data': 'AP8='}
    """
    if kind is None:
        most = int(values.max(initial=0))
        kind = "u1" if most < 1 << 8 else "u2" if most < 1 << 16 else "u4"
    content = np.ascontiguousarray(values, f"<{kind}").tobytes()
    return {"type": _JS[kind], "data": base64.b64encode(content).decode("ascii")}


def payload(view: Collection) -> dict[str, Any]:
    """Return all that the page shows of a collection."""
    pool, labels = view.pool, view.labels
    return {
        "name": pool.dataset,
        "names": [pool.name_of(row) for row in range(len(pool))],
        "index": packed(pool.index),
        "words": list(labels.words),
        "maps": [
            {"label": label, "places": packed(to_grid(places), "u2")}
            for label, places in view.maps.items()
        ],
        "columns": [
            {
                "key": one.key,
                "label": one.label,
                "names": list(one.names),
                "values": packed(one.values),
                "quiet": one.quiet,
            }
            for one in view.columns
        ],
        "flags": {str(row): text for row, text in view.flags.items()},
        "runs": [
            {
                "name": run.name,
                "path": run.path,
                # One more than the place of its word; 0 is none.
                "predicted": packed(guess + 1),
                "score": packed(_in_steps(run.score), "u1"),
            }
            for run, guess in zip(view.runs, labels.predicted, strict=True)
        ],
        "neighbours": packed(view.neighbours),
        "distances": packed(view.distances, "f4"),
        "k": view.neighbours.shape[1],
        "thumbnails": None if view.sheets is None else _pictures(view.sheets),
    }


def _in_steps(score: np.ndarray) -> np.ndarray:
    """Return scores from 0 to 1 in 250 steps; 255 is none."""
    return np.where(np.isnan(score), NO_SCORE, np.rint(np.nan_to_num(score).clip(0, 1) * 250))


def _pictures(sheets: Sheets) -> dict[str, Any]:
    encoded = [base64.b64encode(sheet).decode("ascii") for sheet in sheets.sheets]
    return {"side": sheets.side, "columns": COLUMNS, "sheets": encoded}

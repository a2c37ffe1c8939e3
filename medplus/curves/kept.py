"""Curves as they are kept beside runs: small sealed documents, which a report finds again.

``<runs>/curves/<dataset>/<size>/<id>.json``; the same question has the same id, and is kept once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medplus import atomic
from medplus.curves.points import Point, Tune
from medplus.curves.powerlaw import PowerLaw
from medplus.curves.sentences import of_crossings, of_gain, of_law, of_test
from medplus.curves.summary import Crossing, Series, find_crossings, fit
from medplus.errors import RunError, writing
from medplus.jsonfile import digest_of, parse_json
from medplus.naming import safe_name, utc_now
from medplus.seal import seal, unseal

CURVES = "curves"
SCHEMA = 1
_KEPT = ("dataset", "size", "dataset_digest", "created", "tune", "target", "n_test")


@dataclass(frozen=True)
class Curve:
    """The curves of some backbones on one dataset at one size.

    Attributes
    ----------
    dataset, dataset_digest : str
    size : int
    tune : {"val", "shots"}
    target : float
        The accuracy asked for.
    n_test : int
        Images that are tested; of folds, by all of them together.
    series : list of Series
    stores : dict of str to str
        The key of each backbone's store.
    config : dict
        All that determines the curves.
    created : str
        ISO 8601, UTC.
    points : list of Point
        Not kept: they name every row that was learned from.
    path : Path or None
        Where it is kept.
    """

    dataset: str
    size: int
    dataset_digest: str
    tune: Tune
    target: float
    n_test: int
    series: list[Series]
    stores: Mapping[str, str]
    config: Mapping[str, Any]
    created: str = field(default_factory=utc_now)
    points: list[Point] = field(default_factory=list)
    path: Path | None = None

    @cached_property
    def laws(self) -> list[PowerLaw]:
        """The fitted power laws, in the order of series."""
        return [fit(one, self.target, self.n_test) for one in self.series]

    @cached_property
    def crossings(self) -> list[Crossing]:
        """Where curves change places."""
        return find_crossings(self.series)

    @property
    def title(self) -> str:
        """What it is of, in words."""
        return f"{self.dataset} at {self.size} px: how many labels?"

    def sentences(self) -> list[str]:
        """Return what the curves say: fits, crossings, and what the test images leave open."""
        return [
            *map(of_gain, self.series),
            *(of_law(one, law) for one, law in zip(self.series, self.laws, strict=True)),
            *of_crossings(self.crossings),
            of_test(self.series, self.n_test),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            **{name: getattr(self, name) for name in _KEPT},
            "points": [point.to_dict() for point in self.points],
            "summary": [row for one in self.series for row in one.to_dict()],
            "crossings": [asdict(crossing) for crossing in self.crossings],
            "fits": [
                {**one.named, **law.to_dict()}
                for one, law in zip(self.series, self.laws, strict=True)
            ],
            "sentences": self.sentences(),
            "path": None if self.path is None else str(self.path),
        }


def keep(made: Curve, runs: Path) -> Path:
    """Write a curve below the root of runs, but for its points, and return the file.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    name = f"{digest_of(made.config)[:8]}.json"
    path = runs / CURVES / safe_name(made.dataset) / str(made.size) / name
    document = {
        "schema_version": SCHEMA,
        **{name: getattr(made, name) for name in _KEPT},
        "stores": dict(made.stores),
        "config": dict(made.config),
        "series": [
            {**vars(one), "n": one.n.tolist(), "accuracies": one.accuracies.tolist()}
            for one in made.series
        ],
    }
    with writing(f"the curve {path}", "choose another --runs"):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_json(path, seal(document))
    return path


def list_curves(runs: Path) -> list[Path]:
    """Return the files of the curves below the root of runs, sorted."""
    return sorted(runs.glob(f"{CURVES}/*/*/[!.]*.json"))


def read_curve(path: Path) -> Curve:
    """Read a curve that was kept; it has no points.

    Raises
    ------
    RunError
        If it is damaged, or of another schema.
    """
    try:
        content, intact = unseal(parse_json(path.read_bytes()))
        if content["schema_version"] != SCHEMA or not intact:
            raise ValueError(path)
        series = [
            Series(**{
                **one,
                "amounts": tuple(one["amounts"]),
                "n": np.array(one["n"], np.int64),
                "accuracies": np.array(one["accuracies"], np.float64),
            })
            for one in content["series"]
        ]  # fmt: skip
        told = {name: content[name] for name in (*_KEPT, "stores", "config")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{path} is damaged; delete it and run medplus curve again") from None
    return Curve(**told, series=series, path=path)

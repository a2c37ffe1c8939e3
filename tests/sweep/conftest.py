"""Small grids on random images, with files of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medplus.sweep.conduct import Sweep
from medplus.sweep.grid import read_grid
from medplus.sweep.job import Place


@pytest.fixture
def new_sweep(write_npz: Callable[..., Path], tmp_path: Path) -> Callable[..., Sweep]:
    """Return a function that makes a sweep; keywords replace keys of its grid.

    ``new_sweep(n_datasets=2, protocols={"knn": {"k": 3}})``: the datasets are toy0, toy1, …
    """

    def make(n_datasets: int = 2, root: Path | None = None, **keys: Any) -> Sweep:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        paths = [str(write_npz(f"toy{i}", seed=i, folder=folder)) for i in range(n_datasets)]
        document = {
            "datasets": paths,
            "backbones": "pixels",
            "seeds": [1, 2],
            "protocols": {"knn": {"k": [1, 3]}, "probe": {"epochs": 2}},
            **keys,
        }
        file = tmp_path / "grid.yaml"
        file.write_text(yaml.safe_dump(document))
        home = root or tmp_path
        place = Place(str(folder), str(home / "embeddings"), str(home / "runs"))
        return Sweep(read_grid(file), place)

    return make

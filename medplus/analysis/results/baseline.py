"""The paper: its published results, as they ship inside the package, and their conditions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

import pandas as pd

from medplus.analysis.results.cells import COLUMNS, sort_cells
from medplus.analysis.results.runs import as_text
from medplus.config import finetune_recipe, probe_recipe
from medplus.spec import PRELOGITS
from medplus.vocabulary import PAPER_K

DOI = "10.1038/s41598-025-92156-9"
_PROTOCOLS = {"endToEnd": "finetune", "linearProbing": "probe", "kNN": "knn"}

_OF_THE_MACHINE = {"channels_last", "fused", "deterministic"}
"""Fields of a recipe that say how fast, and change no result by more than rounding."""


def load_baseline() -> pd.DataFrame:
    """Return the paper's 1,440 results: 12 datasets × 3 protocols × 10 backbones × 4 sizes.

    Returns
    -------
    pandas.DataFrame
        Columns `medplus.analysis.results.cells.COLUMNS`, scores in percent as printed.
        Fine-tuning and probing are means over three seeds. kNN (k = 11) has no seed and was
        printed as one ACC: `n_seeds` is 1, and its other scores are NaN.

    References
    ----------
    .. [1] Doerrich, Di Salvo, Brockmann, Ledig: Rethinking model prototyping through the MedMNIST+
       dataset collection. Scientific Reports 15, 7669 (2025). doi:10.1038/s41598-025-92156-9
    """
    file = resources.files("medplus.analysis.results") / "data" / "paper_results.csv"
    with file.open(encoding="utf-8") as lines:
        printed = pd.read_csv(lines)
    names = {"training_procedure": "protocol", "architecture": "backbone", "img_size": "size"}
    cells = printed.rename(columns=names)
    cells["protocol"] = cells["protocol"].map(_PROTOCOLS)
    cells["n_seeds"] = cells["protocol"].map({"finetune": 3, "probe": 3, "knn": 1})
    return sort_cells(cells[COLUMNS])


@cache
def paper_conditions(protocol: str) -> Mapping[str, str]:
    """Return the paper's conditions of a protocol."""
    common = {"data": "official", "weights": "trained", "fit": "pad", "precision": "fp32"}
    if protocol == "finetune":
        recipe = finetune_recipe("paper").model_dump(mode="json")
        own = {name: value for name, value in recipe.items() if name not in _OF_THE_MACHINE}
    elif protocol == "probe":
        recipe = probe_recipe("paper").model_dump(mode="json")
        own = {name: recipe[name] for name in ("epochs", "batch_size", "patience")}
        own |= {name: recipe[name][0] for name in ("lr", "weight_decay")}
        own["feature"] = PRELOGITS
    else:
        own = {"k": PAPER_K, "metric": "l2", "vote": "majority", "feature": PRELOGITS}
    return {name: as_text(value) for name, value in {**common, **own}.items()}

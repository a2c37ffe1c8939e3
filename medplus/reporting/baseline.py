"""The paper's published results, as they ship inside the package."""

from __future__ import annotations

from importlib import resources

import pandas as pd

from medplus.reporting.cells import COLUMNS, sort_cells

DOI = "10.1038/s41598-025-92156-9"
_PROTOCOLS = {"endToEnd": "finetune", "linearProbing": "probe", "kNN": "knn"}


def load_baseline() -> pd.DataFrame:
    """Return the paper's 1,440 results: 12 datasets × 3 protocols × 10 backbones × 4 sizes.

    Returns
    -------
    pandas.DataFrame
        Columns `medplus.reporting.cells.COLUMNS`, scores in percent as printed. Fine-tuning and
        probing are means over three seeds. k-NN (k = 11) has no seed and was printed as one ACC:
        `n_seeds` is 1, and its other scores are NaN.

    References
    ----------
    .. [1] Doerrich, Di Salvo, Brockmann, Ledig: Rethinking model prototyping through the MedMNIST+
       dataset collection. Scientific Reports 15, 7669 (2025). doi:10.1038/s41598-025-92156-9
    """
    file = resources.files("medplus.reporting") / "data" / "paper_results.csv"
    with file.open(encoding="utf-8") as lines:
        printed = pd.read_csv(lines)
    names = {"training_procedure": "protocol", "architecture": "backbone", "img_size": "size"}
    cells = printed.rename(columns=names)
    cells["protocol"] = cells["protocol"].map(_PROTOCOLS)
    cells["n_seeds"] = cells["protocol"].map({"finetune": 3, "probe": 3, "knn": 1})
    return sort_cells(cells[COLUMNS])

"""medplus: prototype image models on medical data through an embedding store.

>>> import medplus
>>> store = medplus.extract("breastmnist", 28, "resnet18")  # doctest: +SKIP
>>> records = medplus.knn(store, k=[1, 5, 11])  # doctest: +SKIP
>>> records += medplus.probe(store, seeds=[1, 2, 3])  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from medplus._version import __version__

if TYPE_CHECKING:
    from medplus.analysis.panel import panel
    from medplus.analysis.results.frames import predictions, runs
    from medplus.auditing.audit import audit
    from medplus.comparison import compare
    from medplus.curves.curve import curve
    from medplus.datasets.phantom import write_phantom
    from medplus.datasets.sources import load_dataset
    from medplus.embeddings.extract import extract, extract_all
    from medplus.embeddings.imported.importing import import_store
    from medplus.embeddings.select import find_store
    from medplus.embeddings.store import open_store
    from medplus.embeddings.torchdata import StoreDataset
    from medplus.errors import MedplusError
    from medplus.evaluation import evaluate
    from medplus.exploration.explore import explore
    from medplus.heads.knn import knn
    from medplus.heads.probe import probe
    from medplus.prediction.predict import predict
    from medplus.reporting.report import report
    from medplus.robustness.robust import robust
    from medplus.spec import ExtractSpec
    from medplus.training import finetune, finetune_all

_HOMES = {
    "MedplusError": "medplus.errors",
    "ExtractSpec": "medplus.spec",
    "StoreDataset": "medplus.embeddings.torchdata",
    "audit": "medplus.auditing.audit",
    "compare": "medplus.comparison",
    "curve": "medplus.curves.curve",
    "evaluate": "medplus.evaluation",
    "explore": "medplus.exploration.explore",
    "extract": "medplus.embeddings.extract",
    "extract_all": "medplus.embeddings.extract",
    "find_store": "medplus.embeddings.select",
    "finetune": "medplus.training",
    "finetune_all": "medplus.training",
    "import_store": "medplus.embeddings.imported.importing",
    "knn": "medplus.heads.knn",
    "load_dataset": "medplus.datasets.sources",
    "open_store": "medplus.embeddings.store",
    "panel": "medplus.analysis.panel",
    "predict": "medplus.prediction.predict",
    "predictions": "medplus.analysis.results.frames",
    "probe": "medplus.heads.probe",
    "report": "medplus.reporting.report",
    "robust": "medplus.robustness.robust",
    "runs": "medplus.analysis.results.frames",
    "write_phantom": "medplus.datasets.phantom",
}
"""Public names and their modules, imported on first use: `import medplus` stays instant."""

__all__ = [
    "ExtractSpec",
    "MedplusError",
    "StoreDataset",
    "__version__",
    "audit",
    "compare",
    "curve",
    "evaluate",
    "explore",
    "extract",
    "extract_all",
    "find_store",
    "finetune",
    "finetune_all",
    "import_store",
    "knn",
    "load_dataset",
    "open_store",
    "panel",
    "predict",
    "predictions",
    "probe",
    "report",
    "robust",
    "runs",
    "write_phantom",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medplus' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

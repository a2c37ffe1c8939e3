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
    from medplus.analysis.panel import panel as panel
    from medplus.analysis.results.frames import predictions as predictions
    from medplus.analysis.results.frames import runs as runs
    from medplus.auditing.audit import audit as audit
    from medplus.comparison import compare as compare
    from medplus.curves.curve import curve as curve
    from medplus.datasets.phantom import write_phantom as write_phantom
    from medplus.datasets.sources import load_dataset as load_dataset
    from medplus.embeddings.extract import extract as extract
    from medplus.embeddings.extract import extract_all as extract_all
    from medplus.embeddings.imported.importing import import_store as import_store
    from medplus.embeddings.select import find_store as find_store
    from medplus.embeddings.store import open_store as open_store
    from medplus.embeddings.torchdata import StoreDataset as StoreDataset
    from medplus.errors import MedplusError as MedplusError
    from medplus.evaluation import evaluate as evaluate
    from medplus.exploration.explore import explore as explore
    from medplus.heads.knn import knn as knn
    from medplus.heads.probe import probe as probe
    from medplus.packaging import package as package
    from medplus.prediction.predict import predict as predict
    from medplus.reporting.report import report as report
    from medplus.robustness.robust import robust as robust
    from medplus.spec import ExtractSpec as ExtractSpec
    from medplus.training import finetune as finetune
    from medplus.training import finetune_all as finetune_all

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
    "package": "medplus.packaging",
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

__all__ = ["__version__"]
__all__.extend(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medplus' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

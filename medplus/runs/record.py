"""The record of a run: one protocol on one store or dataset with one recipe and one seed."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from medplus._version import __version__
from medplus.spec import ExtractSpec
from medplus.vocabulary import Split

Protocol = Literal["knn", "probe", "finetune"]
RECORD_SCHEMA = 1
_PACKAGES = ("torch", "faiss-gpu", "faiss-cpu", "numpy", "timm", "zarr")


class RunRecord(BaseModel):
    """Everything that is recorded of a run; fields that do not apply are left out.

    Attributes
    ----------
    run_id : str
        Readable, and ending in 8 hex digits of the hash of `config`: equal configurations are the
        same run.
    path : str
        The run's folder.
    licence, citation : str
        Of the data; empty where they are not known.
    config : dict
        All that determines the result: protocol, store key or data and weights, recipe, seed.
    store : dict or None
        The embeddings that a head was made on; None for a run on images.
    network, training : dict or None
        The network that was trained, and how: what does not determine the result, or follows from
        it.
    metrics : dict
        Per split, the scores of `medplus.metrics.Scores.to_dict`; fractions from 0 to 1.
    seconds : float
        Wall time of the computation that produced this record; runs computed together (all k of
        one search, all heads of one stack) share it.
    cost : dict
        What `medplus.cost.describe_cost` tells, where it applies: `seconds` again,
        `device_seconds` (× devices), `device`, `peak_memory_bytes`, `peak_device_memory_bytes`,
        `images_per_second` (of kNN, queries), `energy_joules`. Runs computed together share these,
        and `shared_by` is their number; kNN adds `backend` and `queries`, an evaluation `images`.
        Of a fine-tuning in several sessions, times and energy are those of all, the peaks those
        of the last.
    selected : bool or None
        Whether this run is the best of its group by its val score. It depends on what it is
        compared with, so it is computed for display and not stored.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = RECORD_SCHEMA
    run_id: str
    path: str
    protocol: Protocol
    dataset: str
    size: Annotated[int, Field(ge=1, lt=2**31)]
    backbone: str
    task: str
    n_classes: int
    data_source: str
    licence: str
    citation: str = ""
    weights: str
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    k: int | None = None
    metric: str | None = None
    vote: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    epochs_run: int | None = None
    best_epoch: int | None = None
    metrics: dict[Split, dict[str, Any]]
    seconds: float
    cost: dict[str, Any]
    config: dict[str, Any]
    store: dict[str, Any] | None = None
    network: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    environment: dict[str, str]
    created: str
    spec: ExtractSpec
    selected: bool | None = None

    @property
    def tag(self) -> str:
        """The backbone's full name."""
        return str((self.store or self.network or {}).get("backbone", ""))

    @property
    def dataset_digest(self) -> str:
        """Of the data."""
        return str((self.store or self.network or {}).get("dataset_digest", ""))

    @property
    def weights_sha256(self) -> str:
        """Of the weights at the start."""
        return str((self.store or self.network or {}).get("weights_sha256", ""))

    @property
    def store_key(self) -> str | None:
        """The identity of the embeddings that a head was made on."""
        return None if self.store is None else self.store["key"]

    @property
    def group(self) -> tuple[Any, ...]:
        """What runs have in common that differ in their recipe only."""
        own = (self.dataset, self.size, self.backbone, self.weights, self.store_key, self.seed)
        return (self.protocol, *own)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON, without the fields that do not apply."""
        return self.model_dump(mode="json", exclude_none=True)


def config_hash(config: dict[str, Any]) -> str:
    """Return 8 hex digits of the SHA-256 of a configuration in canonical JSON."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def environment() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    found = {"medplus": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["platform"] = platform.platform()
    return found

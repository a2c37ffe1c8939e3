"""The record of a run: one protocol on one store or dataset with one recipe and one seed."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field, model_validator

from medplus._version import __version__
from medplus.reading import Reading
from medplus.spec import ExtractSpec
from medplus.vocabulary import Split, Task

Protocol = Literal["knn", "probe", "finetune"]
RECORD_SCHEMA = 2
_PACKAGES = ("torch", "faiss-gpu", "faiss-cpu", "numpy", "timm", "zarr")


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(_Facts):
    """The data and the backbone of a run, whichever protocol it follows.

    Attributes
    ----------
    spec : ExtractSpec
        Settled: of a head, that of its embeddings; of a fine-tuning, data, backbone and precision.
    dataset, size, task, classes
        The data's name, the images' height and width in pixels, and what the labels mean; class
        names in order.
    data_source, licence, citation : str
        Of the data; empty where they are not known.
    dataset_digest : str
        SHA-256 of the data.
    backbone, tag : str
        The backbone's short and its full name.
    weights : str
        ``pretrained``, ``none``, or the absolute path of the file.
    weights_sha256, backbone_digest : str
        Of the weights that were in memory (of a fine-tuning, before it), and of the whole backbone.
    weights_licence : str
        Of the pretrained weights; empty where it is not known, or there are none.
    card_digest, warnings : str, list of str
        Of the data card: what was said of the data when they were read.
    baseline_acc : dict
        Per split, the ACC of always saying the most frequent class of train, or of each label what
        most images of train have.
    reading : Reading or None
        How the data's files became pixels, settled; None where the images were made by hand.
    """

    spec: ExtractSpec
    dataset: str
    size: Annotated[int, Field(ge=1, lt=2**31)]
    task: Task
    classes: list[str]
    data_source: str
    licence: str
    citation: str = ""
    dataset_digest: str
    backbone: str
    tag: str
    weights: str
    weights_sha256: str
    backbone_digest: str
    weights_licence: str = ""
    card_digest: str = ""
    warnings: list[str] = []
    baseline_acc: dict[Split, float] = {}
    reading: Reading | None = None

    @classmethod
    def of(cls, made: Any) -> Provenance:
        """Return that of a store's `StoreInfo` or a record, which have the same words for it."""
        return cls(**{name: getattr(made, name) for name in cls.model_fields})


class PartFacts(_Facts):
    """One of the stores that embeddings were made of when they were read.

    Attributes
    ----------
    path, key : str
        Where it lay, and its identity.
    spec : ExtractSpec
        Settled, with which the same is found of other data.
    backbone_digest : str
    """

    path: str
    key: str
    spec: ExtractSpec
    backbone_digest: str


class StoreFacts(_Facts):
    """The store that a head was made on: where it lay, its key, and what it was made of, if any."""

    path: str
    key: str
    parts: list[PartFacts] = []


class NetworkFacts(_Facts):
    """The network that was trained.

    Attributes
    ----------
    dim : int
        Number of embedding dimensions.
    n_parameters, n_trainable : int
        Without the head: the network's own parameters, and those that learned; of low-rank
        updates their own number, though they are merged at the end.
    """

    dim: int
    n_parameters: int
    n_trainable: int


class TrainingFacts(_Facts):
    """How a network was trained, beyond what determines the result.

    Attributes
    ----------
    deterministic : str
        What was promised, in words.
    images : str
        Where they lay.
    batch_norm : str
        Over what the statistics were taken.
    resumed : int
        How often training went on from a saved state.
    """

    deterministic: str
    images: str
    batch_norm: str
    devices: int
    compiled: bool
    resumed: int


class FoldFacts(_Facts):
    """The folds whose out-of-fold predictions a run consists of.

    Attributes
    ----------
    n, repeat : int
        Number of folds, and which dealing out of the rows this is.
    pool : bool
        Whether the test split took part.
    grouped : bool
        Whether groups, such as patients, were kept whole.
    n_train, n_test : list of int
        Rows per fold.
    acc, auc : list of float
        On each fold's test rows; AUC is None where a class is missing.
    chosen : list of dict
        The setting that each fold chose on its val rows.
    """

    n: int
    repeat: int
    pool: bool
    grouped: bool
    n_train: list[int]
    n_test: list[int]
    acc: list[float]
    auc: list[float | None]
    chosen: list[dict[str, float]]


class RunRecord(Provenance):
    """Everything that is recorded of a run; fields that do not apply are left out.

    Attributes
    ----------
    run_id : str
        Readable, and ending in 8 hex digits of the hash of `config`: equal configurations are the
        same run.
    path : str
        The run's folder.
    config : dict
        All that determines the result: protocol, store key or data and weights, recipe, seed.
    store : StoreFacts or None
        The embeddings that a head was made on; None for a run on images.
    folds : FoldFacts or None
        Of a cross-validated head: `metrics` and predictions are then out of fold.
    network, training : NetworkFacts, TrainingFacts or None
        The network that was trained, and how.
    metrics : dict
        Per split, the scores of `medplus.metrics.Scores.to_dict`; fractions from 0 to 1.
    seconds : float
        Wall time of the computation that produced this record; runs computed together (all k of
        one search, all heads of one stack) share it.
    cost : dict
        What `medplus.cost.CostMeter.cost` tells, where it applies: `seconds` again,
        `device_seconds` (× devices), `device`, `peak_memory_bytes`, `peak_device_memory_bytes`,
        `images_per_second` (of kNN, queries), `energy_joules`. Runs computed together share these,
        and `shared_by` is their number; kNN adds `backend` and `queries`, an evaluation `images`.
        Of a fine-tuning in several sessions, times and energy are those of all, the peaks those
        of the last.
    selected : bool or None
        Whether this run is the best of its group by its val score. It depends on what it is
        compared with, so it is computed for display and not stored.
    """

    schema_version: int = RECORD_SCHEMA
    run_id: str
    path: str
    protocol: Protocol
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    k: int | None = None
    metric: str | None = None
    vote: str | None = None
    lr: float | None = None
    weight_decay: float | None = None
    solver: str | None = None
    strength: float | None = None
    epochs_run: int | None = None
    best_epoch: int | None = None
    metrics: dict[Split, dict[str, Any]]
    seconds: float
    cost: dict[str, Any]
    config: dict[str, Any]
    store: StoreFacts | None = None
    folds: FoldFacts | None = None
    network: NetworkFacts | None = None
    training: TrainingFacts | None = None
    environment: dict[str, str]
    created: str
    selected: bool | None = None

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @property
    def n_classes(self) -> int:
        """Number of classes, or of labels if the task is multi-label."""
        return len(self.classes)

    @model_validator(mode="before")
    @classmethod
    def _without_computed(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if name != "n_classes"}

    @property
    def store_key(self) -> str | None:
        """The identity of the embeddings that a head was made on."""
        return None if self.store is None else self.store.key

    @property
    def parts(self) -> list[PartFacts]:
        """The stores that a head's embeddings were made of; one, where they are as stored."""
        if self.store is None:
            return []
        whole = PartFacts(
            path=self.store.path,
            key=self.store.key,
            spec=self.spec,
            backbone_digest=self.backbone_digest,
        )
        return self.store.parts or [whole]

    @property
    def specs(self) -> list[ExtractSpec]:
        """How each backbone that images go through was asked for; mostly one."""
        return [part.spec for part in self.parts] or [self.spec]

    @property
    def lora(self) -> int | None:
        """The rank of the updates that a fine-tuning learned in place of whole weights, if any."""
        return self.config.get("recipe", {}).get("lora") or None

    @property
    def group(self) -> tuple[Any, ...]:
        """What runs have in common that differ in their recipe only."""
        own = (self.dataset, self.size, self.backbone, self.weights, self.store_key, self.seed)
        folds = self.folds and (self.folds.n, self.folds.repeat, self.folds.pool)
        return (self.protocol, *own, self.config.get("rows"), folds)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON, without the fields that do not apply."""
        return self.model_dump(mode="json", exclude_none=True)


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

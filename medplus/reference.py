"""The front door for the paper's reference code: its config file and flags, one run.

Reads what ``main.py --config_file config.yaml`` of Doerrich et al. reads, and does that run with
the paper's recipe. ``docs/coming-from-the-reference.md`` says what differs, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medplus.errors import UsageError, nearest, short
from medplus.progress import Progress, silent
from medplus.spec import ExtractSpec
from medplus.vocabulary import PAPER_K, PAPER_SEEDS, SIZES
from medplus.yamlfile import read_yaml

if TYPE_CHECKING:
    from medplus.embeddings.store import EmbeddingStore
    from medplus.run.record import RunRecord
    from medplus.training.watch import Watch

T = TypeVar("T")
TrainingProcedure = Literal["endToEnd", "linearProbing", "kNN"]


class ReferenceConfig(BaseModel):
    """One run as the reference describes it: its keys, and its values where nothing is said.

    The description of every field is also the help of its flag.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_path: Path = Field(Path("data"), description="Folder of the datasets' npz files.")
    output_path: Path = Field(Path("runs"), description="Root of the runs.")
    epochs: int = Field(100, ge=1, description="Passes over train, at most.")
    learning_rate: float = Field(
        1e-4, gt=0, allow_inf_nan=False, description="AdamW's learning rate."
    )
    batch_size: int = Field(64, ge=1, description="Images per step of the training.")
    batch_size_eval: int | None = Field(
        None, ge=1, description="Images per forward of the extraction; automatic if not given."
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:i.")
    dataset: str = Field(description="MedMNIST flag, or path of an npz file.")
    img_size: int | None = Field(
        None, ge=1, description="28, 64, 128 or 224; an npz file of yours has its own."
    )
    training_procedure: TrainingProcedure = Field(description="endToEnd, linearProbing or kNN.")
    architecture: str = Field(description="One of the paper's ten, or any timm name.")
    k: int = Field(PAPER_K, ge=1, description="Neighbours for kNN.")
    seed: int = Field(
        PAPER_SEEDS[0], ge=0, lt=2**63, description="Seed of the training; kNN has none."
    )


def read_reference(path: str | Path | None, **flags: Any) -> ReferenceConfig:
    """Read the reference's config file; a key without a value, or with a blank one, is not given.

    Parameters
    ----------
    path : str or Path, optional
        The YAML file; without it, the flags say everything.
    **flags
        Values that win over the file's; None or blank text stands for one that is not given.

    Raises
    ------
    UsageError
        If the file cannot be read, a key is unknown, a value is missing or not allowed; names the
        file and key or the flag, and the nearest name.
    """
    in_file = {} if path is None else read_yaml(Path(path), "config")
    known = ReferenceConfig.model_fields
    for key in in_file:
        if key not in known:
            raise UsageError(
                f"{path}: unknown key '{key}'{nearest(key, known)} (known: {', '.join(known)})"
            )
    values = {**_given(in_file), **_given(flags)}
    places = {key: f"{path}: {key}" for key in in_file}
    places |= {key: f"--{key}" for key in _given(flags)}
    config = _validated(values, places, path)
    _check_names(config, places, path)
    return config


def run_reference(
    config: ReferenceConfig,
    *,
    store: str | Path = "embeddings",
    weights: str = "pretrained",
    overwrite: bool = False,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> RunRecord:
    """Train and evaluate one run with the paper's recipe; a run that exists is not done again.

    Parameters
    ----------
    store : str or Path
        Root of the embedding stores, which linearProbing and kNN work on; filled where needed.
    weights : str
        ``pretrained``, ``none`` (random), or the path of a weights file.
    overwrite : bool
        Do the run again if it exists.
    progress, watch
        Where to report the extraction and probing, and the training of a whole network.

    Returns
    -------
    RunRecord

    Raises
    ------
    MedplusError
        UsageError, DatasetError, BackboneError, StoreError or RunError, saying what is wrong and
        what to do.
    """
    place: dict[str, Any] = {
        "device": config.device, "runs": config.output_path, "overwrite": overwrite,
    }  # fmt: skip
    training: dict[str, Any] = {
        "recipe": "paper", "epochs": config.epochs, "lr": config.learning_rate,
        "batch_size": config.batch_size,
    }  # fmt: skip
    if config.training_procedure == "endToEnd":
        from medplus.training import finetune

        [record] = finetune(
            config.dataset, config.img_size, config.architecture, config.seed, fit="pad",
            weights=weights, data_root=config.data_path, watch=watch, **training, **place,
        )  # fmt: skip
        return record
    embeddings = _extract(config, store, weights, progress)
    if config.training_procedure == "kNN":
        from medplus.heads.knn import knn

        [record] = knn(embeddings, config.k, **place)
    else:
        from medplus.heads.probe import probe

        [record] = probe(embeddings, config.seed, progress=progress, **training, **place)
    return record


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    def is_blank(value: Any) -> bool:
        return value is None or (isinstance(value, str) and not value.strip())

    return {key: value for key, value in values.items() if not is_blank(value)}


def _validated(
    values: dict[str, Any], places: Mapping[str, str], path: str | Path | None
) -> ReferenceConfig:
    for key, value in values.items():
        if isinstance(value, bool):
            raise UsageError(
                f"{places[key]} takes text or a number, but YAML reads its value as {value}; "
                "put it in quotes"
            )
        if isinstance(value, list | dict):
            raise UsageError(
                f"{places[key]} takes one value, not {short(value)}; do one run for each"
            )
    try:
        return ReferenceConfig.model_validate(values)
    except ValidationError as error:
        # What is wrong comes before what is missing.
        faults = [fault for fault in error.errors() if fault["type"] != "missing"]
        if not faults:
            missing = [str(fault["loc"][0]) for fault in error.errors()]
            raise _lacking(missing, path) from None
        key, value = str(faults[0]["loc"][0]), faults[0]["input"]
        words = get_args(TrainingProcedure) if faults[0]["type"] == "literal_error" else ()
        reason = faults[0]["msg"][0].lower() + faults[0]["msg"][1:]
        raise UsageError(
            f"{places[key]} = {short(value)}: {reason}{nearest(str(value), words)}"
        ) from None


def _lacking(keys: list[str], path: str | Path | None) -> UsageError:
    flags = " and ".join(f"--{key}" for key in keys)
    if path is None:
        return UsageError(f"{flags} must be given, or a config file that says it: --config FILE")
    return UsageError(f"{path} gives no {' and no '.join(keys)}; add it there, or say {flags}")


def _check_names(
    config: ReferenceConfig, places: Mapping[str, str], path: str | Path | None
) -> None:
    """Refuse names and sizes that nobody knows, saying where they stand."""
    from medplus.backbones.sources import is_code, resolve
    from medplus.datasets import sources

    if _look_up(config.dataset, sources.resolve, places["dataset"]).source == "medmnist":
        if config.img_size is None:
            raise _lacking(["img_size"], path)
        if config.img_size not in SIZES:
            raise UsageError(
                f"{places['img_size']} = {config.img_size}: MedMNIST+ has 28, 64, 128 and 224"
            )
    if is_code(config.architecture):
        raise UsageError(
            f"{places['architecture']} = {config.architecture} is code, which medplus run does not "
            "take; medplus finetune and medplus extract do"
        )
    _look_up(config.architecture, resolve, places["architecture"])


def _look_up(name: str, find: Callable[[str], T], place: str) -> T:
    try:
        return find(name)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None


def _extract(
    config: ReferenceConfig, store: str | Path, weights: str, progress: Progress
) -> EmbeddingStore:
    from medplus.embeddings.extract import extract_all

    spec = ExtractSpec(
        config.dataset, config.img_size, config.architecture, weights, "pad", precision="fp32"
    )
    [extraction] = extract_all(
        [spec],
        batch_size=config.batch_size_eval,
        device=config.device,
        data_root=config.data_path,
        store=store,
        progress=progress,
    )
    return extraction.store

"""One run as the paper's reference code is asked for it: its keys, and the paper's recipe.

``docs/coming-from-the-reference.md`` says what differs from Doerrich et al.'s code, and why.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medplus.errors import UsageError
from medplus.progress import Progress, silent
from medplus.spec import ExtractSpec
from medplus.vocabulary import PAPER_K, PAPER_SEEDS

if TYPE_CHECKING:
    from medplus.run.record import RunRecord
    from medplus.training.watch import Watch

TrainingProcedure = Literal["endToEnd", "linearProbing", "kNN"]


def run_reference(
    dataset: str,
    architecture: str,
    training_procedure: TrainingProcedure,
    *,
    img_size: int | None = None,
    data_path: str | Path = "data",
    output_path: str | Path = "runs",
    epochs: int = 100,
    learning_rate: float = 1e-4,
    batch_size: int = 64,
    batch_size_eval: int | None = None,
    device: str = "auto",
    k: int = PAPER_K,
    seed: int = PAPER_SEEDS[0],
    store: str | Path = "embeddings",
    weights: str = "pretrained",
    overwrite: bool = False,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> RunRecord:
    """Train and evaluate one run with the paper's recipe; a run that exists is not done again.

    Parameters
    ----------
    dataset : str
        A MedMNIST flag, whose size must be named, or the path of an npz file.
    architecture : str
        One of the paper's ten, or any timm name.
    training_procedure : {"endToEnd", "linearProbing", "kNN"}
    data_path, output_path : str or Path
        Folder of the datasets' npz files, and root of the runs.
    batch_size_eval : int, optional
        Images per forward of the extraction; automatic if not given.
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
    from medplus.backbones import sources as backbones
    from medplus.datasets import sources as datasets

    backbones.resolve(architecture)
    if datasets.resolve(dataset).source == "medmnist" and img_size is None:
        raise UsageError(f"{dataset} has four sizes; say which with --img_size, or in the file")
    place: dict[str, Any] = {"device": device, "runs": output_path, "overwrite": overwrite}
    training: dict[str, Any] = {
        "recipe": "paper", "epochs": epochs, "lr": learning_rate, "batch_size": batch_size,
    }  # fmt: skip
    if training_procedure == "endToEnd":
        from medplus.training import finetune

        [record] = finetune(
            dataset, img_size, architecture, seed, fit="pad", weights=weights,
            data_root=data_path, watch=watch, **training, **place,
        )  # fmt: skip
        return record
    from medplus.embeddings.extract import extract_all

    [extraction] = extract_all(
        [ExtractSpec(dataset, img_size, architecture, weights, "pad", precision="fp32")],
        batch_size=batch_size_eval, device=device, data_root=data_path, store=store,
        progress=progress,
    )  # fmt: skip
    if training_procedure == "kNN":
        from medplus.heads.knn import knn

        [record] = knn(extraction.store, k, **place)
    else:
        from medplus.heads.probe import probe

        [record] = probe(extraction.store, seed, progress=progress, **training, **place)
    return record

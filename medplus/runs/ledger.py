"""The ledger of runs on disk: a run exists whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from medplus import atomic
from medplus.errors import RunError
from medplus.naming import safe_name
from medplus.runs.record import RECORD_SCHEMA, RunRecord

RECORD_FILE = "record.json"
PREDICTIONS_FILE = "predictions.npz"
HEAD_FILE = "head.safetensors"
PARTIAL = ".partial"
"""What the name of a run's folder ends in while the run is under way."""

EVALUATIONS = "evaluations"
"""The folder within a run that holds what it scored later, on these or other data."""

_DIGEST_LENGTH = 8
_REMEDY = (
    "free space or choose another folder with --runs, then run the same command again: finished "
    "runs are kept"
)


def run_folder(
    root: Path, protocol: str, dataset: str, size: int, backbone: str, run_id: str
) -> Path:
    """Return the folder of a run: ``<root>/<protocol>/<dataset>/<size>/<backbone>/<run_id>``."""
    return root / protocol / safe_name(dataset) / str(size) / safe_name(backbone) / run_id


def evaluation_folder(run: Path, dataset: str, size: int, digest: str) -> Path:
    """Return the folder of a run's evaluation on a dataset, named by the start of its digest."""
    return run / EVALUATIONS / f"{safe_name(dataset)}-{size}-{digest[:_DIGEST_LENGTH]}"


def find_run(folder: Path) -> RunRecord | None:
    """Return the record of a finished run, or None if it has not been run.

    Raises
    ------
    RunError
        If there is a record that cannot be read.
    """
    return read_record(folder) if (folder / RECORD_FILE).exists() else None


def save_run(
    record: RunRecord,
    predictions: Mapping[str, np.ndarray],
    head: Mapping[str, np.ndarray] | None = None,
    *,
    overwrite: bool = False,
    remedy: str = _REMEDY,
) -> None:
    """Write a run's folder under a temporary name, then rename it.

    Parameters
    ----------
    record : RunRecord
        Its `path` says where.
    predictions : mapping of str to ndarray
        ``{val,test}_score`` float32 (n, n_classes), ``{val,test}_true`` (n, n_labels),
        ``{val,test}_index`` int64 (n,).
    head : mapping of str to ndarray, optional
        Tensors of a trained head, saved as safetensors.
    overwrite : bool
        Replace an existing run; otherwise an existing one is kept.
    remedy : str
        What to do if the folder cannot be written, for the message.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    folder = Path(record.path)
    try:
        with _explained(folder, remedy), atomic.new_folder(folder) as temporary:
            if head is not None:
                from safetensors.numpy import save

                # Not by `save_file`, whose errors do not say that a disk is full.
                (temporary / HEAD_FILE).write_bytes(save(dict(head)))
            _write_results(temporary, record, predictions)
            if overwrite and folder.exists():
                atomic.remove_folder(folder)  # only now: a failure above costs nothing
    except FileExistsError:
        return  # another process finished the same run; its result is as good


def finish_run(partial: Path, record: RunRecord, predictions: Mapping[str, np.ndarray]) -> None:
    """Turn the folder of a run under way into that of a finished run.

    Parameters
    ----------
    partial : Path
        Holds what the run has written so far; its writer's lock must be held.
    record, predictions
        As for `save_run`; an existing run is replaced.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    folder = Path(record.path)
    with _explained(folder):
        _write_results(partial, record, predictions)
        for file in partial.iterdir():
            atomic.sync(file)
        if folder.exists():
            atomic.remove_folder(folder)
        partial.rename(folder)
        atomic.sync_folder(folder.parent)


def _write_results(folder: Path, record: RunRecord, predictions: Mapping[str, np.ndarray]) -> None:
    """Write predictions and record into a folder; the record last, since it says that all is."""
    np.savez(folder / PREDICTIONS_FILE, allow_pickle=False, **predictions)
    stored = record.model_copy(update={"selected": None})
    atomic.write_json(folder / RECORD_FILE, stored.to_dict())


@contextmanager
def _explained(folder: Path, remedy: str = _REMEDY) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise RunError(
            f"the run {folder} cannot be written: {error.strerror or error}; {remedy}"
        ) from error


def read_record(folder: Path) -> RunRecord:
    """Read and check the record of one run.

    Raises
    ------
    RunError
        If it is missing, damaged or of another schema.
    """
    path = folder / RECORD_FILE
    remedy = f"delete {folder} and run the command again"
    try:
        document = json.loads(path.read_bytes())
        schema = document["schema_version"]
    except FileNotFoundError:
        raise RunError(f"there is no run at {folder}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path} is damaged; {remedy}") from None
    if schema != RECORD_SCHEMA:
        raise RunError(f"{path} has schema {schema}, this medplus reads {RECORD_SCHEMA}; {remedy}")
    try:
        record = RunRecord.model_validate(document)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RunError(f"{path} is damaged ('{place}' is invalid); {remedy}") from None
    return record.model_copy(update={"path": str(folder)})  # the folder may have been moved


def read_predictions(folder: Path) -> dict[str, np.ndarray]:
    """Read the predictions of one run.

    Raises
    ------
    RunError
        If they are missing or damaged.
    """
    path = folder / PREDICTIONS_FILE
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged npz fails in many ways
        raise RunError(f"{path} is missing or damaged ({type(error).__name__})") from error


def list_runs(root: Path) -> Iterator[Path]:
    """Yield the folders of all finished runs under a root, sorted; evaluations are no runs."""
    for path in sorted(root.glob(f"*/*/*/*/*/{RECORD_FILE}")):
        folder = path.parent
        unfinished = folder.name.startswith(".") or folder.name.endswith(PARTIAL)
        if not unfinished and folder.parent.name != EVALUATIONS:
            yield folder

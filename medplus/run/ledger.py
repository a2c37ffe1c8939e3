"""The ledger of runs on disk: a run exists whole or not at all."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import xxhash
from pydantic import ValidationError

from medplus import atomic, lock
from medplus.errors import MedplusError, RunError, UsageError, writing
from medplus.jsonfile import parse_json
from medplus.naming import safe_name
from medplus.run.record import RECORD_SCHEMA, RunRecord
from medplus.seal import SEAL, seal, unseal

if TYPE_CHECKING:
    import torch

RECORD_FILE = "record.json"
PREDICTIONS_FILE = "predictions.npz"
HEAD_FILE = "head.safetensors"
PARTIAL = ".partial"
"""What the name of a run's folder ends in while the run is under way."""

EVALUATIONS = "evaluations"
"""The folder within a run that holds what it scored later, on these or other data."""

_DIGEST_LENGTH = 8
_FILES = "files"
"""The key of the checksums of a run's other files; a zip's own miss damage to its directory."""

_CLAIM_TIMEOUT_S = 3600.0
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


def check_is_run(folder: Path) -> None:
    """Refuse a folder of runs that is named for one of them; names one.

    Raises
    ------
    UsageError
    """
    if (folder / RECORD_FILE).exists() or not folder.is_dir():
        return
    within = next((path.parent for path in sorted(folder.rglob(RECORD_FILE))
                   if EVALUATIONS not in path.parts), None)  # fmt: skip
    if within is not None:
        raise UsageError(f"{folder} is a folder of runs; name one of them, such as {within}")


@contextmanager
def claim_runs(folders: Iterable[Path]) -> Iterator[None]:
    """Hold runs for the duration of the block, and remove what killed writers of them left.

    It waits for others who make one of them; look again then what is left to do.

    Parameters
    ----------
    folders : iterable of Path
        The runs' folders, which need not exist.

    Raises
    ------
    LockHeldError
        If another process has held one of them for an hour.
    MedplusError
        If a folder cannot be written.
    """
    # In one order, or two processes that want the same runs would wait for one another.
    claimed = sorted(set(folders))
    new = {parent for folder in claimed for parent in folder.parents if not parent.exists()}
    with ExitStack() as claims:
        for parent in sorted(new):
            claims.callback(_remove_if_empty, parent)  # the innermost first
        for folder in claimed:
            _claim(folder, claims)
        yield


def _claim(folder: Path, claims: ExitStack) -> None:
    with _explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        claims.enter_context(hold_run(folder, _CLAIM_TIMEOUT_S))
    except MedplusError:
        if folder.parent.exists():
            raise
        _claim(folder, claims)  # another process has just removed the folder that it left empty


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def hold_run(folder: Path, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold one run, whose parent folder exists, and remove what killed writers of it left."""
    with lock.hold(_lock_file(folder), f"the run {folder}", timeout_s):
        atomic.remove_leftovers(folder)
        yield


def tidy_run(folder: Path) -> None:
    """Remove what the writer of a finished run left if it was killed right after it finished."""
    if _lock_file(folder).exists():
        with suppress(MedplusError), hold_run(folder):
            pass


def tidy_runs(root: Path) -> None:
    """Remove what killed writers left of the runs under a root; what is held stays."""
    for path in root.glob("[!.]*/*/*/*/.*.lock"):
        tidy_run(path.with_name(path.name.removeprefix(".").removesuffix(".lock")))


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def save_run(
    record: RunRecord,
    predictions: Mapping[str, np.ndarray],
    head: Mapping[str, np.ndarray] = MappingProxyType({}),
    remedy: str = _REMEDY,
) -> None:
    """Write a run's folder under a temporary name, then rename it; the run must be claimed.

    Whatever lies there gives way, but only then: a failure costs nothing.

    Parameters
    ----------
    record : RunRecord
        Its `path` says where.
    predictions : mapping of str to ndarray
        ``{val,test}_score`` float32 (n, n_classes), ``{val,test}_true`` (n, n_labels),
        ``{val,test}_index`` int64 (n,).
    head : mapping of str to ndarray
        Tensors of a trained head, saved as safetensors; of none there is no file.
    remedy : str
        What to do if the folder cannot be written, for the message.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    folder = Path(record.path)
    with _explained(folder, remedy):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic.temporary_folder(folder) as temporary:
            if head:
                _write_head(temporary / HEAD_FILE, head)
            _write_results(temporary, record, predictions)
            _take_name(temporary, folder)


def _write_head(path: Path, head: Mapping[str, np.ndarray]) -> None:
    import torch

    from medplus.tensorfile import write_tensors

    write_tensors(path, {name: torch.from_numpy(values) for name, values in head.items()}, {})


def finish_run(
    partial: Path, record: RunRecord, predictions: Mapping[str, np.ndarray], drop: str | None = None
) -> None:
    """Turn the folder of a run under way into that of a finished run.

    Parameters
    ----------
    partial : Path
        Holds what the run has written so far; its writer's lock must be held.
    record, predictions
        As for `save_run`; an existing run is replaced.
    drop : str, optional
        A file that a finished run does not keep.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    with _explained(Path(record.path)):
        _write_results(partial, record, predictions)
        _take_name(partial, Path(record.path), drop)


def adopt_run(partial: Path, folder: Path, drop: str | None = None) -> RunRecord | None:
    """Finish a run whose writer was killed between writing its record and giving it its name.

    Parameters
    ----------
    partial, drop
        As for `finish_run`.
    folder : Path
        Where the finished run lies.

    Returns
    -------
    RunRecord or None
        None if there is no such run: it has to be trained to its end.

    Raises
    ------
    RunError
        If the folder cannot be written.
    """
    try:
        read_record(partial)
    except RunError:
        return None
    with _explained(folder):
        _take_name(partial, folder, drop)
    return read_record(folder)


def _take_name(partial: Path, folder: Path, drop: str | None = None) -> None:
    if drop is not None:
        (partial / drop).unlink(missing_ok=True)
    for file in partial.iterdir():
        atomic.sync(file)
    if folder.exists():
        atomic.remove_folder(folder)
    partial.rename(folder)
    atomic.sync_folder(folder.parent)


def _write_results(folder: Path, record: RunRecord, predictions: Mapping[str, np.ndarray]) -> None:
    """Write predictions and record into a folder; the record last, since it says that all is."""
    path = folder / PREDICTIONS_FILE
    np.savez(path, allow_pickle=False, **predictions)
    stored = record.model_copy(update={"selected": None}).to_dict()
    files = {
        name: _checksum((folder / name).read_bytes())
        for name in (PREDICTIONS_FILE, HEAD_FILE)
        if (folder / name).exists()
    }
    atomic.write_json(folder / RECORD_FILE, seal({**stored, _FILES: files}))


def _checksum(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)


def _explained(folder: Path, remedy: str = _REMEDY) -> AbstractContextManager[None]:
    return writing(f"the run {folder}", remedy)


def read_record(folder: Path, sealed: bool = True) -> RunRecord:
    """Read and check the record of one run.

    Parameters
    ----------
    sealed : bool
        Whether its seal must be intact; a plan of thousands of runs needs none of their numbers.

    Raises
    ------
    RunError
        If it is missing, damaged or of another schema.
    """
    return _read_record(folder, sealed)[0]


def _read_record(folder: Path, sealed: bool = True) -> tuple[RunRecord, Mapping[str, str]]:
    """Return a run's record, and the checksums of its other files."""
    path = folder / RECORD_FILE
    remedy = f"delete {folder} and run the command again"
    try:
        document = parse_json(path.read_bytes())
        schema = document["schema_version"]
    except FileNotFoundError:
        raise RunError(f"there is no run at {folder}") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path} is damaged; {remedy}") from None
    if schema != RECORD_SCHEMA:
        raise RunError(f"{path} has schema {schema}, this medplus reads {RECORD_SCHEMA}; {remedy}")
    content, intact = unseal(document) if sealed else (document, True)
    content.pop(SEAL, None)
    files = content.pop(_FILES, {})
    content["path"] = str(folder)  # it may have been moved
    try:
        record = RunRecord.model_validate(content)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RunError(f"{path} is damaged ('{place}' is invalid); {remedy}") from None
    if not intact:
        raise RunError(f"{path} is damaged (it is not what was written); {remedy}")
    return record, files


def read_predictions(folder: Path) -> dict[str, np.ndarray]:
    """Read the predictions of one run.

    Raises
    ------
    RunError
        If they are missing or damaged.
    """
    path = folder / PREDICTIONS_FILE
    try:
        content = _read_vouched(path)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            _refuse_bombs(archive.zip)
            return {name: archive[name] for name in archive.files}
    except RunError:
        raise
    except Exception as error:  # a damaged npz fails in many ways
        raise RunError(f"{path} is missing or damaged ({type(error).__name__})") from error


def _read_vouched(path: Path) -> bytes:
    """Return the bytes of a run's file, if they are those that its record vouches for."""
    noted = _read_record(path.parent)[1].get(path.name)
    content = path.read_bytes()
    if noted != _checksum(content):
        raise ValueError("it is not what was written")
    return content


def _refuse_bombs(archive: zipfile.ZipFile) -> None:
    """Refuse what would become more than the file: predictions are stored, not compressed."""
    for member in archive.infolist():
        if member.compress_type != zipfile.ZIP_STORED or not member.filename.endswith(".npy"):
            raise ValueError(f"medplus writes no member such as {member.filename}")


def read_head(folder: Path) -> dict[str, torch.Tensor]:
    """Read the trained head of a probe.

    Raises
    ------
    RunError
        If it is missing or damaged.
    """
    from medplus.tensorfile import DamagedFileError, read_tensors

    path = folder / HEAD_FILE
    try:
        _read_vouched(path)
        return read_tensors(path)[0]
    except (DamagedFileError, OSError, ValueError) as error:
        what = "is missing" if not path.exists() else "is damaged"
        raise RunError(f"{path} {what}; run medplus probe again with --overwrite") from error


def read_runs(root: Path) -> tuple[list[RunRecord], list[tuple[Path, str]]]:
    """Return the records of all finished runs under a root, and what cannot be read, with why."""
    records, damaged = [], []
    for folder in list_runs(root):
        try:
            records.append(read_record(folder))
        except RunError as error:
            damaged.append((folder, str(error)))
    return records, damaged


def list_runs(root: Path) -> Iterator[Path]:
    """Yield the folders of all finished runs under a root, sorted; evaluations are no runs."""
    for path in sorted(root.glob(f"*/*/*/*/*/{RECORD_FILE}")):
        folder = path.parent
        unfinished = folder.name.startswith(".") or folder.name.endswith(PARTIAL)
        if not unfinished and folder.parent.name != EVALUATIONS:
            yield folder

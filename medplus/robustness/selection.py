"""Which runs are meant, and whether they can be scored on corrupted images at all."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from medplus.errors import RunError, UsageError
from medplus.heads.stored import leaves_out
from medplus.naming import counted
from medplus.progress import SAID
from medplus.run.best import select_best
from medplus.run.ledger import EVALUATIONS, PARTIAL, RECORD_FILE, find_run, read_record
from medplus.run.record import RunRecord

log = logging.getLogger(__name__)


def select_runs(paths: Sequence[str | Path], every: bool = False) -> list[RunRecord]:
    """Return the records of runs, each of which can be scored on corrupted images.

    Parameters
    ----------
    paths : sequence of path
        Folders of runs, or folders that hold some; of the latter the best by val of each dataset,
        size, backbone, store and seed, and none that cannot be scored, which is said.
    every : bool
        Take every run of a folder of runs.

    Raises
    ------
    UsageError
        If a path holds no run, or the run that it is cannot be scored.
    """
    found: dict[str, RunRecord] = {}
    for path in map(Path, paths):
        record = find_run(path) if path.is_dir() else None
        if record is None:
            within = _within(path, every)
        elif (reason := cannot(record)) is not None:
            raise UsageError(f"{path} cannot be scored on corrupted images: {reason}")
        else:
            within = [record]
        found.update({one.path: one for one in within})
    return list(found.values())


def _within(path: Path, every: bool) -> list[RunRecord]:
    records = []
    for file in sorted(path.rglob(RECORD_FILE)):
        folder = file.parent
        named = [part for part in folder.relative_to(path).parts if part.startswith(".")]
        if not named and not folder.name.endswith(PARTIAL) and folder.parent.name != EVALUATIONS:
            try:
                records.append(read_record(folder))
            except RunError as error:
                log.warning("left out: %s", error)
    usable = [record for record in records if cannot(record) is None]
    if not usable:
        what = "holds no run" if path.is_dir() else "does not exist"
        if records:
            what = f"holds no run that can be scored on corrupted images ({cannot(records[0])})"
        raise UsageError(f"{path} {what}; name the folder of a run of knn, probe or finetune")
    chosen = [r for r in select_best(usable) if every or r.selected]
    log.log(
        SAID, "%s: %s, of which %d %s scored%s", path, counted(len(records), "run"), len(chosen),
        "is" if len(chosen) == 1 else "are", "" if every else " (the best by val)",
    )  # fmt: skip
    return chosen


def cannot(record: RunRecord) -> str | None:
    """Return why a run cannot be scored on corrupted images, or None."""
    if record.spec.is_imported:
        return f"{record.backbone} was imported without its images"
    if record.folds is not None:
        return "it is cross-validated, so that no single head is behind its predictions"
    if record.protocol == "knn" and leaves_out(record):
        return "it is kNN on some rows of a store only, which its record does not name"
    return None

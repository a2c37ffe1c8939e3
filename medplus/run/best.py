"""Which of several runs is the best by its val scores."""

from __future__ import annotations

from typing import Any

from medplus.run.record import RunRecord


def select_best(records: list[RunRecord]) -> list[RunRecord]:
    """Mark, per dataset, size, backbone, store and seed, the run with the best val accuracy.

    Ties go to the higher val AUC, then to the earlier run. Test scores take no part.
    """
    best: dict[tuple[Any, ...], int] = {}

    def merit(record: RunRecord) -> tuple[float, float]:
        val = record.metrics["val"]
        return val["acc"], val["auc"] if val.get("auc") is not None else -1.0

    for position, record in enumerate(records):
        rival = best.get(record.group)
        if rival is None or merit(record) > merit(records[rival]):
            best[record.group] = position
    chosen = set(best.values())
    return [r.model_copy(update={"selected": i in chosen}) for i, r in enumerate(records)]

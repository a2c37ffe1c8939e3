"""A run to be: its identity before anything is computed, and its record once that is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medplus.jsonfile import digest_of
from medplus.naming import utc_now
from medplus.run.ledger import claim_runs, find_run, run_folder, tidy_run
from medplus.run.record import Protocol, Provenance, RunRecord, environment
from medplus.vocabulary import Split

_ID_DIGITS = 8


@dataclass(frozen=True)
class RunPlan:
    """One run to be.

    Attributes
    ----------
    provenance : Provenance
        Its data and its backbone.
    run_id : str
        The readable name that ends in the start of the hash of `config`.
    folder : Path
        Where the run lies or will lie.
    config : dict
        All that determines the result.
    fields : dict
        The record's fields that are known beforehand: k, seed, lr, ….
    """

    provenance: Provenance
    protocol: Protocol
    run_id: str
    folder: Path
    config: dict[str, Any]
    fields: dict[str, Any]

    @property
    def identity(self) -> str:
        """The hash of the configuration."""
        return digest_of(self.config)

    def record(
        self,
        metrics: dict[Split, dict[str, Any]],
        seconds: float,
        cost: dict[str, Any],
        **found: Any,
    ) -> RunRecord:
        """Return the record of this run, now that it has been done.

        Parameters
        ----------
        metrics, seconds, cost
            As `RunRecord` has them.
        **found
            Further fields that were not known beforehand, such as `epochs_run`.
        """
        return RunRecord(
            run_id=self.run_id,
            path=str(self.folder),
            protocol=self.protocol,
            metrics={split: {**of, **self._baseline(split)} for split, of in metrics.items()},
            seconds=seconds,
            cost=cost,
            config=self.config,
            environment=environment(),
            created=utc_now(),
            **dict(self.provenance),
            **self.fields,
            **found,
        )

    def _baseline(self, split: Split) -> dict[str, float]:
        known = self.provenance.baseline_acc
        return {"baseline_acc": known[split]} if split in known else {}


def plan_run(
    provenance: Provenance,
    protocol: Protocol,
    name: str,
    config: Mapping[str, Any],
    fields: dict[str, Any],
    runs: str | Path,
) -> RunPlan:
    """Return the plan of a run; `name` is the readable part of its id."""
    full = {"protocol": protocol, **config}
    run_id = f"{name}-{digest_of(full)[:_ID_DIGITS]}"
    of = provenance
    folder = run_folder(Path(runs), protocol, of.dataset, of.size, of.backbone, run_id)
    return RunPlan(provenance, protocol, run_id, folder, full, fields)


@contextmanager
def claim_missing(plans: Sequence[RunPlan], overwrite: bool) -> Iterator[list[RunRecord | None]]:
    """Hold the runs that are still to be made, and give the records of the others.

    So processes that plan the same runs make each of them once.

    Parameters
    ----------
    overwrite : bool
        Make all of them.
    """

    def look(plan: RunPlan) -> RunRecord | None:
        return None if overwrite else find_run(plan.folder)

    found = [look(plan) for plan in plans]
    missing = [plan for plan, record in zip(plans, found, strict=True) if record is None]
    for plan, record in zip(plans, found, strict=True):
        if record is not None:
            tidy_run(plan.folder)
    with claim_runs(plan.folder for plan in missing):
        # Another process may have made some of them while we waited for it.
        yield [record or look(plan) for plan, record in zip(plans, found, strict=True)]

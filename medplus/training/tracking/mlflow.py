"""MLflow: a server if ``MLFLOW_TRACKING_URI`` names one, else files under the root of the runs."""

from __future__ import annotations

import logging
import os
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.rank_zero import rank_zero_only

from medplus.errors import RunError, first_line
from medplus.training.tracking.logger import RunLogger
from medplus.training.tracking.run import TrackedRun, finite, flat

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

_TAG = "medplus.tracker_id"
_STATUS = {"success": "FINISHED", "aborted": "KILLED"}
_PARAMETERS_AT_ONCE, _LONGEST_PARAMETER = 100, 500  # as MLflow's servers allow


class MlflowTracker(RunLogger):
    """Tells MLflow of one run, through MLflow's own client.

    Parameters
    ----------
    run : TrackedRun
    """

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self._client: MlflowClient | None = None
        self._id = ""
        self._told: dict[str, int] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client; the first use finds or starts MLflow's run.

        Raises
        ------
        RunError
            If MLflow cannot be reached or refuses the run.
        """
        if self._client is None:
            self._client = self._open()
        return self._client

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Add hyperparameters; MLflow lets none be changed, so known ones are left as they are."""
        client = self.experiment
        try:
            _add_parameters(client, self._id, params)
        except Exception as error:
            log.warning("hyperparameters did not reach MLflow: %s", first_line(error))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | None], step: int | None = None) -> None:
        """Add the metrics of one step, unless MLflow was told of it before a resumption.

        A server that fails in the middle of a training costs a warning, not the training.
        """
        from mlflow.entities import Metric

        client, now, at = self.experiment, int(1000 * time.time()), step or 0
        new = [
            Metric(name, value, now, at)
            for name, value in finite(metrics).items()
            if at > self._told.get(name, -1)
        ]
        try:
            client.log_batch(self._id, metrics=new)
        except Exception as error:
            log.warning("the metrics of step %d did not reach MLflow: %s", at, first_line(error))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close MLflow's run as finished, failed, or killed."""
        if self._client is None:
            return
        try:
            self._client.set_terminated(self._id, _STATUS.get(status, "FAILED"))
        except Exception as error:
            log.warning("MLflow's run could not be closed: %s", first_line(error))

    def _open(self) -> MlflowClient:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or _local_store(self._run.root)
        # Those who train on medical data expect nothing to be sent that they did not ask for.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        try:
            client = MlflowClient(uri)
            self._id = self._find(client) or self._start(client)
        except Exception as error:  # of MLflow, its database, or the way to its server
            raise RunError(
                f"MLflow at {uri} cannot be used: {first_line(error).rstrip('.')}; check "
                "MLFLOW_TRACKING_URI, or leave --track away"
            ) from error
        return client

    def _find(self, client: MlflowClient) -> str:
        """Return the id of MLflow's run that goes on, or an empty string."""
        experiment = _experiment_id(client, self.name)
        query = f"tags.`{_TAG}` = '{self._run.identity()}'"
        found = client.search_runs([experiment], query, max_results=1)
        if not found:
            return ""
        before = found[0].info.run_id
        client.update_run(before, status="RUNNING")
        for metric in found[0].data.metrics:
            history = client.get_metric_history(before, metric)
            self._told[metric] = max(value.step for value in history)
        return str(before)

    def _start(self, client: MlflowClient) -> str:
        experiment, tags = _experiment_id(client, self.name), {_TAG: self._run.identity()}
        new = client.create_run(experiment, tags=tags, run_name=self.version).info.run_id
        _add_parameters(client, new, self._run.config)
        return str(new)


def _local_store(root: Path) -> str:
    """Return the address of a store of plain files, which needs no database and no server."""
    # MLflow develops its file store no further and asks whoever uses it to say so.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return (root / "mlruns").as_uri()


def _experiment_id(client: MlflowClient, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(client.create_experiment(name))
        except Exception:  # another process may have been faster
            known = client.get_experiment_by_name(name)
            if known is None:
                raise
    return str(known.experiment_id)


def _add_parameters(
    client: MlflowClient, run_id: str, config: Mapping[str, Any] | Namespace
) -> None:
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    new = [
        Param(name, str(value)[:_LONGEST_PARAMETER])
        for name, value in flat(config).items()
        if name not in known
    ]
    for first in range(0, len(new), _PARAMETERS_AT_ONCE):
        client.log_batch(run_id, params=new[first : first + _PARAMETERS_AT_ONCE])

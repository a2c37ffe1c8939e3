"""MLflow: a server if ``MLFLOW_TRACKING_URI`` names one, else files under the root of the runs."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from medplus.errors import RunError, first_line
from medplus.training.tracking.tracker import Status, Tracker

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

log = logging.getLogger(__name__)

_TAG = "medplus.tracker_id"
_STATUS = {"success": "FINISHED", "aborted": "KILLED", "failed": "FAILED"}
_PARAMETERS_AT_ONCE, _LONGEST_PARAMETER = 100, 500  # as MLflow's servers allow


class MlflowTracker(Tracker):
    """Tells MLflow through its own client.

    A server that fails in the middle of a training costs a warning, not the training.
    """

    _client: MlflowClient
    _id: str
    _told: int

    def start(self) -> None:  # noqa: D102
        uri = os.environ.get("MLFLOW_TRACKING_URI") or self._local_store()
        # Those who train on medical data expect nothing to be sent that they did not ask for.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient(uri)
            self._find_or_create()
        except Exception as error:  # of MLflow, its database, or the way to its server
            raise RunError(
                f"MLflow at {uri} cannot be used: {first_line(error).rstrip('.')}; check "
                "MLFLOW_TRACKING_URI, or leave --track away"
            ) from error

    def _log(self, metrics: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        if step <= self._told:  # before a resumption
            return
        now = int(1000 * time.time())
        try:
            self._client.log_batch(
                self._id,
                metrics=[Metric(name, value, now, step) for name, value in metrics.items()],
            )
        except Exception as error:
            log.warning("the metrics of step %d did not reach MLflow: %s", step, first_line(error))

    def finish(self, status: Status) -> None:  # noqa: D102
        try:
            self._client.set_terminated(self._id, _STATUS[status])
        except Exception as error:
            log.warning("MLflow's run could not be closed: %s", first_line(error))

    def _local_store(self) -> str:
        """Return the address of a store of plain files, which needs no database and no server."""
        # MLflow develops its file store no further and asks whoever uses it to say so.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        return (self.root / "mlruns").as_uri()

    def _find_or_create(self) -> None:
        """Go on with MLflow's run of this folder, or begin one."""
        client, identity, experiment = self._client, self.identity(), self._experiment()
        found = client.search_runs([experiment], f"tags.`{_TAG}` = '{identity}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            client.update_run(self._id, status="RUNNING")
            histories = [client.get_metric_history(self._id, m) for m in found[0].data.metrics]
            self._told = max((value.step for history in histories for value in history), default=-1)
            return
        self._told = -1
        new = client.create_run(experiment, tags={_TAG: identity}, run_name=self.run_id)
        self._id = new.info.run_id
        self._add_parameters()

    def _experiment(self) -> str:
        known = self._client.get_experiment_by_name(self.group)
        if known is None:
            try:
                return str(self._client.create_experiment(self.group))
            except Exception:  # another process may have been faster
                known = self._client.get_experiment_by_name(self.group)
                if known is None:
                    raise
        return str(known.experiment_id)

    def _add_parameters(self) -> None:
        from mlflow.entities import Param

        shown = [
            Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in self.parameters.items()
        ]
        for first in range(0, len(shown), _PARAMETERS_AT_ONCE):
            self._client.log_batch(self._id, params=shown[first : first + _PARAMETERS_AT_ONCE])


tracker = MlflowTracker

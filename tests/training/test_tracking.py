"""Trackers: what they were told is read back with their own readers, also after a resumption."""

from __future__ import annotations

import logging
import math
import shutil
import struct
import sys
import time
from contextlib import nullcontext

import pytest

from medplus.errors import RunError, UsageError
from medplus.run.ledger import run_folder
from medplus.training.tracking import TRACKERS, open_tracker
from medplus.training.tracking.tracker import flat

CONFIG = {
    "seed": 1,
    "recipe": {"lr": 1e-4, "flip": "none", "deterministic": True, "warm": None, "k": [1, 5]},
}
FLAT = {
    "seed": 1,
    "recipe.lr": 1e-4,
    "recipe.flip": "none",
    "recipe.deterministic": True,
    "recipe.warm": "null",
    "recipe.k": "[1, 5]",
}


SETTINGS = {
    "MLFLOW": ("TRACKING_URI", "ALLOW_FILE_STORE", "DISABLE_TELEMETRY"),
    "WANDB": ("API_KEY", "MODE", "PROJECT", "RUN_GROUP", "DIR"),
}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """No server, no login and no setting of whoever runs the tests; nothing of theirs changes."""
    for package, names in SETTINGS.items():
        for name in names:
            monkeypatch.setenv(f"{package}_{name}", "")  # so that it is restored in any case
            monkeypatch.delenv(f"{package}_{name}")
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))


@pytest.fixture
def runs(tmp_path):
    """A root of runs whose name a careless reader would change."""
    return tmp_path / "my $HOME runs"


@pytest.fixture
def folder(runs):
    folder = run_folder(runs, "finetune", "toy", 28, "resnet18", "paper-seed1-0123abcd.partial")
    folder.mkdir(parents=True)
    return folder


def opened(name, folder, config=CONFIG):
    return open_tracker(name, folder, "paper-seed1-0123abcd", "toy-28", config)


def tell(name, folder, told, ends=None, config=CONFIG):
    """Tell a tracker of metrics by step; `ends` is raised then."""
    with pytest.raises(type(ends)) if ends else nullcontext(), opened(name, folder, config) as it:
        for step, metrics in told.items():
            it.log(metrics, step)
        if ends:
            raise ends


EPOCHS = {1: {"val/loss": 0.5, "val/auc": None}, 2: {"val/loss": 0.25, "val/auc": math.nan}}


def losses(*epochs):
    return {epoch: {"val/loss": 1 / epoch} for epoch in epochs}


# --- all of them --------------------------------------------------------------------------------


def test_an_unknown_tracker_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="unknown tracker 'wandbb'; did you mean 'wandb'"):
        tell("wandbb", None, {})


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_named_with_the_command_that_installs_it(name, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError) as caught:
        tell(name, folder, {})
    assert str(caught.value) == (
        f"--track {name} needs the package {name}; install it with: pip install {name}"
    )


def test_a_configuration_is_flattened():
    assert flat(CONFIG) == FLAT
    assert flat({}) == {}


# --- TensorBoard --------------------------------------------------------------------------------


def events(folder):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(folder / "tensorboard"))
    return accumulator.Reload()


def scalars(folder, name):
    return [(event.step, pytest.approx(event.value)) for event in events(folder).Scalars(name)]


def test_tensorboard_holds_metrics_and_hyperparameters(folder):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    tell("tensorboard", folder, EPOCHS)
    read = events(folder)
    assert read.Tags()["scalars"] == ["val/loss"]
    assert scalars(folder, "val/loss") == [(1, 0.5), (2, 0.25)]
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    stored = HParamsPluginData.FromString(content).session_start_info.hparams
    kinds = {name: value.WhichOneof("kind") for name, value in stored.items()}
    assert {name: getattr(stored[name], kind) for name, kind in kinds.items()} == FLAT


def test_what_tensorboard_was_told_is_on_the_disk_at_once(folder, tmp_path):
    with opened("tensorboard", folder) as tracker:
        for step in range(5):
            tracker.log({f"m{i}": i for i in range(100)}, step)
            shutil.copytree(folder, tmp_path / f"killed{step}")
    for step in range(5):
        assert scalars(tmp_path / f"killed{step}", "m99")[-1] == (step, 99)


def test_tensorboard_draws_epochs_that_happen_again_once(folder):
    tell("tensorboard", folder, losses(1, 2, 3), RunError("killed"))
    tell("tensorboard", folder, losses(2, 3, 4))
    assert scalars(folder, "val/loss") == [(epoch, 1 / epoch) for epoch in (1, 2, 3, 4)]


# --- MLflow -------------------------------------------------------------------------------------


def mlflow_runs(uri, experiment="toy-28"):
    client = pytest.importorskip("mlflow.tracking").MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, found


def history(client, run, metric):
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric)]


def test_mlflow_keeps_files_beside_the_runs(folder, runs):
    tell("mlflow", folder, EPOCHS)
    client, [run] = mlflow_runs((runs / "mlruns").as_uri())
    assert run.info.run_name == "paper-seed1-0123abcd"
    assert run.data.params == {name: str(value) for name, value in FLAT.items()}
    assert set(run.data.metrics) == {"val/loss"}
    assert history(client, run, "val/loss") == [(1, 0.5), (2, 0.25)]


@pytest.mark.parametrize(
    ("ends", "shown"),
    [(None, "FINISHED"), (RunError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_mlflow_is_told_how_the_run_ended(folder, runs, ends, shown):
    tell("mlflow", folder, EPOCHS, ends)
    _, [run] = mlflow_runs((runs / "mlruns").as_uri())
    assert run.info.status == shown


def test_mlflow_goes_on_in_the_same_run_and_hears_of_no_epoch_twice(folder, runs):
    tell("mlflow", folder, losses(1, 2, 3), KeyboardInterrupt())
    tell("mlflow", folder, losses(2, 3, 4), config={**CONFIG, "seed": 2, "new": 3})
    client, [run] = mlflow_runs((runs / "mlruns").as_uri())
    assert history(client, run, "val/loss") == [(epoch, 1 / epoch) for epoch in (1, 2, 3, 4)]
    assert run.data.params["seed"] == "1"


def test_a_run_that_is_started_afresh_is_another_run_of_mlflow(folder, runs):
    for _ in range(2):
        tell("mlflow", folder, losses(1))
        shutil.rmtree(folder)
    _, found = mlflow_runs((runs / "mlruns").as_uri())
    assert len(found) == 2


def test_mlflow_takes_many_and_long_hyperparameters(folder, runs):
    tell("mlflow", folder, {}, config={"long": "x" * 9000, **{f"p{i}": i for i in range(250)}})
    _, [run] = mlflow_runs((runs / "mlruns").as_uri())
    assert len(run.data.params) == 251
    assert run.data.params["p249"] == "249"


def test_mlflow_that_cannot_be_used_is_an_error_that_names_the_address(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://host")
    with pytest.raises(RunError, match=r"MLflow at nonsense://host cannot be used: .*MLFLOW_TRACK"):
        tell("mlflow", folder, {})


def test_mlflow_that_fails_in_the_middle_costs_a_warning_only(folder, caplog, monkeypatch):
    client = pytest.importorskip("mlflow.tracking").MlflowClient

    def fail(*args, **kwargs):
        raise OSError("gone")

    with caplog.at_level(logging.WARNING, "medplus"), opened("mlflow", folder) as tracker:
        monkeypatch.setattr(client, "log_batch", fail)
        tracker.log({"val/loss": 0.25}, 2)
    assert "the metrics of step 2 did not reach MLflow: gone" in caplog.text


# --- Weights & Biases ---------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch):
    """The client, offline and quiet; it reads its environment once per session, so end that."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb.teardown()
    yield wandb
    wandb.teardown()


def wandb_records(path):
    """Read a `.wandb` file: records in LevelDB's log format, each a protocol buffer."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, pieces = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left_of_block = 32768 - position % 32768
        if left_of_block < 7:
            position += left_of_block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        pieces += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield Record.FromString(pieces)
            pieces = b""


def wandb_parts(wandb, root):
    """Return what each offline part in a folder holds: run, configuration, and metrics by step."""
    wandb.teardown()  # the client's background process writes the last of it
    parts = []
    for path in sorted((root / "wandb").glob("offline-run-*/*.wandb")):
        records = list(wandb_records(path))
        [run] = (record.run for record in records if record.WhichOneof("record_type") == "run")
        config = {item.key: item.value_json for item in run.config.update}
        steps = [record.history for record in records if record.HasField("history")]
        metrics = {
            step.step.num: {
                ".".join(item.nested_key) or item.key: float(item.value_json)
                for item in step.item
                if not (item.key or item.nested_key[0]).startswith("_")
            }
            for step in steps
        }
        parts.append((run, config, metrics))
    return parts


def test_wandb_keeps_what_it_is_told_offline(wandb, folder, runs):
    tell("wandb", folder, EPOCHS)
    [(run, config, metrics)] = wandb_parts(wandb, runs)
    assert (run.project, run.run_group, run.display_name) == (
        "medplus",
        "toy-28",
        "paper-seed1-0123abcd",
    )
    assert (config["seed"], config["recipe.flip"]) == ("1", '"none"')
    assert metrics == {1: {"val/loss": 0.5}, 2: {"val/loss": 0.25}}


def test_wandb_goes_on_in_the_same_run(wandb, folder, runs, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    for first in (1, 3):
        tell("wandb", folder, losses(first, first + 1), KeyboardInterrupt())
        time.sleep(1)  # the client names its folders by the second
    (one, _, before), (two, _, after) = wandb_parts(wandb, runs)
    assert one.run_id == two.run_id
    assert one.project == two.project == "mine"
    assert (list(before), list(after)) == ([1, 2], [3, 4])


def test_wandb_without_a_login_is_an_error_and_asks_nobody(wandb, folder, monkeypatch):
    asked = []

    class Terminal:
        def isatty(self):
            return True

        def __getattr__(self, name):
            asked.append(name)
            raise AttributeError(name)

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_SILENT", "false")
    monkeypatch.setenv("TERM", "xterm")
    wandb.teardown()
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(RunError, match=r"wandb cannot start: .*wandb login.*WANDB_MODE=offline"):
        tell("wandb", folder, {})
    assert asked == []
    assert sys.stdin is terminal

"""The best network and the last state belong together, at whatever moment the process dies."""

from __future__ import annotations

import errno
import os

import pytest
import torch
from torch import nn

from medplus import atomic
from medplus.backbones.finetuned import NETWORK_FILE, read_network
from medplus.config import FinetuneRecipe
from medplus.errors import RunError
from medplus.training import folder as module
from medplus.training.checkpoint import TrainingState
from medplus.training.folder import CURVE_FILE, HISTORY_FILE, STATE_FILE, RunFolder
from medplus.training.history import EpochRow
from medplus.training.network import Network
from medplus.training.optimisation import make_average
from medplus.training.progress import TrainingProgress
from tests.records import read_history

FILES = {NETWORK_FILE, STATE_FILE, HISTORY_FILE, CURVE_FILE}


@pytest.fixture(autouse=True)
def quick_picture(monkeypatch):
    """Write a file of one line in place of a drawing."""
    monkeypatch.setattr(
        module,
        "draw_learning_curve",
        lambda path, rows, title: atomic.write_bytes(path, f"{title} {len(rows)}".encode()),
    )


@pytest.fixture
def make(learnable, tiny_backbone, new_folder_of):
    """A training on a folder: all weights of the network are the number of the epoch."""

    def make(path, identity="run", average=False):
        folder = new_folder_of(path, learnable(), tiny_backbone(), identity)
        return Training(folder, average)

    return make


@pytest.fixture
def path(tmp_path):
    return tmp_path / "paper-seed0.partial"


def row(epoch, best):
    return EpochRow(epoch, 1e-4, 0.5, 1 / epoch, 0.5, None, 100.0, 1.0, best)


class Training:
    """What a `RunFolder` keeps: numbers that say which epoch they are of."""

    def __init__(self, folder: RunFolder, average: bool) -> None:
        self.folder, self.network = folder, Network(nn.Identity(), nn.Linear(2, 3))
        self.average = make_average(self.network, FinetuneRecipe(ema=0.5)) if average else None
        self.state = TrainingState(
            self.network,
            torch.optim.SGD(self.network.parameters(), 0.1),
            torch.Generator().manual_seed(0),
            self.average.module if self.average else None,
        )
        self.progress = TrainingProgress()

    @torch.no_grad()
    def epoch(self, best: bool) -> None:
        """Train an epoch that is the best so far, or not."""
        done = self.progress
        done.epoch += 1
        fill(self.network, done.epoch)
        if self.average is not None:
            fill(self.average, -done.epoch)
        if best:
            done.best_epoch, done.best_loss = done.epoch, 1 / done.epoch
            judged = self.average.module if self.average is not None else self.network
            self.folder.keep_best(judged, done.epoch, done.best_loss)
        done.history.append(row(done.epoch, best))

    def save(self) -> None:
        self.folder.save(self.state, self.progress)

    def restore(self) -> TrainingProgress | None:
        progress = self.folder.restore(self.state)
        self.progress = progress or TrainingProgress()
        return progress

    @property
    def trained(self) -> float:
        """The epoch that the network's weights are of."""
        return only(self.network.state_dict())

    @property
    def best(self) -> float:
        """The epoch that the best network's weights are of."""
        return only(self.folder.best())


def fill(module, value):
    for parameter in module.parameters():
        parameter.fill_(value)


def only(state):
    (value,) = {float(v) for tensor in state.values() for v in tensor.flatten()}
    return value


def assert_matches(training, progress):
    """What is restored is of one moment: network, best network, numbers, and no other files."""
    assert training.trained == progress.epoch == len(progress.history)
    if progress.best_epoch:
        description, state = read_network(training.folder.path)
        sign = 1 if training.average is None else -1
        assert only(state) == training.best == sign * progress.best_epoch
        assert description.epoch == progress.best_epoch
        assert description.val_loss == progress.best_loss == 1 / progress.best_epoch
    assert [r.epoch for r in progress.history if r.best][-1:] == [progress.best_epoch]


def names(path):
    return {file.name for file in path.iterdir()}


# --- whole writes -----------------------------------------------------------------------------


def test_nothing_saved_restores_nothing(make, path):
    training = make(path)
    before = {key: value.clone() for key, value in training.network.state_dict().items()}
    assert training.restore() is None
    assert all(torch.equal(before[k], v) for k, v in training.network.state_dict().items())


@pytest.mark.parametrize("average", [False, True])
def test_what_is_saved_is_restored(make, path, average):
    training = make(path, average=average)
    for best in (True, True, False):
        training.epoch(best)
    training.save()
    assert names(path) == FILES
    restored = make(path, average=average)
    progress = restored.restore()
    assert progress == training.progress
    assert restored.trained == 3
    assert restored.best == (-2 if average else 2)
    if average:
        assert only(restored.average.module.state_dict()) == -3
    assert read_history(path / HISTORY_FILE) == training.progress.history


def test_best_network_in_memory_is_a_copy(make, path):
    training = make(path)
    training.epoch(True)
    training.epoch(False)
    assert training.best == 1
    assert names(path) == set()  # nothing is written before it is time
    training.save()
    assert training.best == 1


def test_best_network_stays_when_no_epoch_is_better(make, path):
    training = make(path)
    training.epoch(True)
    training.save()
    written = (path / NETWORK_FILE).stat().st_mtime_ns
    for _ in range(3):
        training.epoch(False)
        training.save()
    assert (path / NETWORK_FILE).stat().st_mtime_ns == written  # not even written again
    assert training.best == 1


def test_state_within_the_first_epoch_has_no_best_network(make, path):
    training = make(path)
    training.progress.step = 3
    training.save()
    assert names(path) == {STATE_FILE}
    assert make(path).restore() == training.progress


def test_network_file_says_which_epoch_it_is_of(make, path):
    training = make(path)
    training.epoch(True)
    training.save()
    description, _ = read_network(path)
    assert (description.epoch, description.val_loss) == (1, 1.0)
    assert (description.dataset, description.backbone) == ("toy", "tiny")
    restored = make(path)
    restored.restore()
    restored.epoch(True)
    restored.save()
    assert read_network(path)[0] == description.model_copy(update={"epoch": 2, "val_loss": 0.5})


def test_it_is_time_to_save_after_a_while(make, path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    training = make(path)
    now[0] += 30
    assert not training.folder.is_due
    now[0] += 1
    assert training.folder.is_due
    training.save()
    assert not training.folder.is_due


@pytest.mark.parametrize("identity", ["run", "other"])
def test_foreign_or_damaged_states_are_refused(make, path, identity):
    training = make(path)
    training.epoch(True)
    training.save()
    if identity == "run":
        content = (path / STATE_FILE).read_bytes()
        (path / STATE_FILE).write_bytes(content[:-1])
    with pytest.raises(RunError, match="--no-resume"):
        make(path, identity).restore()
    assert names(path) == FILES


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_lost_best_network_is_told_before_training_goes_on(make, path, damage):
    training = make(path)
    training.epoch(True)
    training.save()
    file = path / NETWORK_FILE
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"network\.safetensors.* use --no-resume") as told:
        make(path).restore()
    assert str(path) in str(told.value)


FULL = OSError(errno.ENOSPC, "No space left on device")


def run_full(deed, patch, after=0):
    """Do something on a disk that takes only so many more writes."""
    real, writes = os.write, []

    def write(descriptor, data):
        writes.append(len(data))
        if len(writes) > after:
            raise FULL
        return real(descriptor, data)

    with patch.context() as disk:
        disk.setattr(os, "write", write)
        with pytest.raises(RunError, match=r"No space left on device.*free space") as told:
            deed()
    return str(told.value)


@pytest.mark.parametrize("after", [0, 3, 6, 9])
def test_a_full_disk_is_told_and_costs_nothing(make, path, monkeypatch, after):
    training = make(path)
    training.epoch(True)
    training.save()
    training.epoch(True)
    assert str(path) in run_full(training.save, monkeypatch, after)
    restored = make(path)
    assert_matches(restored, restored.restore())
    assert training.best == 2
    training.save()  # space has been freed
    restored = make(path)
    assert restored.restore() == training.progress
    assert names(path) == FILES


# --- the end of a training that went wrong ----------------------------------------------------


def test_only_the_best_network_is_kept_of_a_training_that_failed(make, path):
    training = make(path)
    training.epoch(True)
    training.save()
    training.epoch(True)
    training.epoch(False)
    training.folder.keep_only_best()
    assert names(path) == FILES - {STATE_FILE}
    assert only(read_network(path)[1]) == read_network(path)[0].epoch == 2
    assert make(path).restore() is None


def test_a_best_network_that_is_written_already_is_kept(make, path):
    for resumed in (False, True):
        training = make(path)
        if resumed:
            training.restore()
        else:
            training.epoch(True)
            training.save()
        training.folder.keep_only_best()
        assert only(read_network(path)[1]) == 1
        assert not (path / STATE_FILE).exists()

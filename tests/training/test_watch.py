"""What a person sees of a training: one aligned line per epoch, and a bar on a terminal."""

from __future__ import annotations

import io
import math
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from medplus import progress
from medplus.training.history import EpochRow
from medplus.training.watch import OnConsole, Watch


class Clock:
    """A clock that the test advances."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    time = Clock()
    monkeypatch.setattr(progress, "time", time)
    return time


def row(epoch, best=False, **changes):
    values = {
        "lr": 1e-4,
        "train_loss": 0.51234,
        "val_loss": 0.6,
        "val_acc": 0.87189,
        "val_auc": 0.9,
        "images_per_second": 1234.4,
        "seconds": 2.0,
    }
    return EpochRow(epoch=epoch, best=best, **(values | changes))


def observed(terminal=False, width=80):
    """Return a watch and the stream that it prints to."""
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=terminal, width=width, markup=False, emoji=False, height=25
    )
    return OnConsole(lambda: console), stream


def lines(stream):
    return stream.getvalue().splitlines()


def plain(stream):
    """Return what was printed to a terminal, without its control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n")


# --- everywhere ---------------------------------------------------------------------------------


def test_silent_says_nothing(capsys):
    silent = Watch()
    silent.begin("toy", 2, 100)
    silent.images(100)
    silent.epoch(row(1))
    silent.end()
    assert capsys.readouterr() == ("", "")


def test_it_prints_to_stderr_and_can_be_sent_to_a_process_before_it_begins(capsys):
    sent = pickle.loads(pickle.dumps(OnConsole()))  # noqa: S301 - our own bytes
    sent.begin("toy [red] :smile:", 2, 100)
    sent.epoch(row(1))
    sent.end()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("toy [red] :smile:\n")
    assert len(err.splitlines()) == 3


# --- away from a terminal -----------------------------------------------------------------------


def test_the_head_comes_once_and_then_a_line_per_epoch(time):
    watcher, stream = observed()
    watcher.begin("breastmnist 28 px · resnet18 · seed 1", 50, 100)
    for epoch in (1, 2, 3):
        time.now += 5
        watcher.images(100)
        watcher.epoch(row(epoch))
    watcher.end()
    description, head, *table = lines(stream)
    assert description == "breastmnist 28 px · resnet18 · seed 1"
    titles = "epoch train loss val loss ACC % AUC % images/s left, at most best"
    assert " ".join(head.split()) == titles
    assert [line.split()[0] for line in table] == ["1/50", "2/50", "3/50"]


def test_a_line_tells_the_epoch_in_columns_under_their_titles(time):
    watcher, stream = observed()
    watcher.begin("toy", 10, 100)
    watcher.images(100)
    watcher.epoch(row(1, best=True, seconds=20))
    watcher.epoch(row(2, train_loss=12345.6, val_loss=math.nan, val_auc=None))
    _, head, first, second = lines(stream)
    assert first.split() == ["1/10", "0.5123", "0.6000", "87.19", "90.00", "1234", "3", "min", "*"]
    assert second.split()[1:5] == ["1.2e+04", "nan", "87.19", "-"]
    for title, cell in (("train loss", "0.5123"), ("AUC %", "90.00"), ("left, at most", "3 min")):
        assert head.index(title) + len(title) == first.index(cell) + len(cell)


@given(
    epochs=st.integers(1, 9999),
    loss=st.floats(0, 1e300) | st.just(math.nan) | st.just(math.inf),
    rate=st.floats(0, 1e7),
    seconds=st.floats(0, 1e6),
)
def test_the_table_fits_80_columns(epochs, loss, rate, seconds):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "time", Clock())
        watcher, stream = observed()
        watcher.begin("toy", epochs, 10)
        watcher.images(10)
        values = {"train_loss": loss, "val_loss": loss, "images_per_second": rate}
        values["seconds"] = seconds
        watcher.epoch(row(1, best=True, val_acc=1.0, val_auc=1.0, **values))
    _, head, *between, line = lines(stream)
    assert len(head) == len(line) <= 80
    assert all(len(told) <= 80 for told in between)


def test_a_training_that_goes_on_says_where_and_tells_what_is_left_by_its_epochs_here(time):
    watcher, stream = observed()
    watcher.begin("toy", 10, 100, 2, 60)
    watcher.images(40)
    watcher.epoch(row(3, seconds=30))
    watcher.epoch(row(4, seconds=50))
    _, note, _, *table = lines(stream)
    assert note == "going on in epoch 3, after 60 of its 100 images"
    assert [line.split()[0] for line in table] == ["3/10", "4/10"]
    assert [line.split()[6:8] for line in table] == [["4", "min"], ["4", "min"]]  # 210 s, 240 s


def test_a_long_epoch_is_told_of_every_half_minute(time):
    watcher, stream = observed()
    watcher.begin("toy", 3, 100)
    for _ in range(10):
        time.now += 10
        watcher.images(10)
    assert lines(stream)[2:] == [
        "epoch 1/3: 30/100, 1 img/s, 70 s left",
        "epoch 1/3: 60/100, 1 img/s, 40 s left",
        "epoch 1/3: 90/100, 1 img/s, 10 s left",
    ]


def test_a_description_is_printed_as_it_is_and_in_one_line(time):
    watcher, stream = observed()
    watcher.begin("my [red] data " * 20, 2, 100)
    assert lines(stream)[0] == "my [red] data " * 20


# --- on a terminal ------------------------------------------------------------------------------


def test_a_terminal_shows_a_bar_and_keeps_the_lines(time):
    watcher, stream = observed(terminal=True)
    watcher.begin("my [red] data", 5, 100)
    time.now += 10
    watcher.images(50)
    time.now += 10
    watcher.images(50)
    watcher.epoch(row(1, best=True))
    watcher.end()
    text = plain(stream)
    assert text.index("my [red] data") < text.index("train loss") < text.index("1/5  ")
    assert "epoch 2/5" in text


def test_only_the_best_epochs_are_bold(time):
    watcher, stream = observed(terminal=True)
    watcher.begin("toy", 2, 100)
    watcher.epoch(row(1, best=True))
    watcher.epoch(row(2))
    watcher.end()
    assert re.search(r"\x1b\[1m +1/2 ", stream.getvalue())
    assert not re.search(r"\x1b\[1m +2/2 ", stream.getvalue())

"""The history of a training: a table that reads back exactly, a picture of what it says."""

from __future__ import annotations

import csv
import math
import warnings
from dataclasses import asdict, fields, replace

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from medplus.training.history import EpochRow, draw_learning_curve, write_history
from tests.records import read_history

ROW = EpochRow(
    epoch=1,
    lr=1e-4,
    train_loss=0.1 + 0.2,
    val_loss=0.7,
    val_acc=0.5,
    val_auc=0.75,
    images_per_second=1234.5,
    seconds=2.5,
    best=True,
)


def history(n):
    """A training whose val loss is lowest in its middle."""
    middle = (n + 1) // 2
    return [
        replace(
            ROW,
            epoch=epoch,
            train_loss=1 / epoch,
            val_loss=0.5 + abs(epoch - middle) / n,
            val_acc=0.5 + 0.4 * epoch / n,
            val_auc=0.6 + 0.4 * epoch / n,
            best=epoch <= middle,
        )
        for epoch in range(1, n + 1)
    ]


# --- the table ----------------------------------------------------------------------------------

any_float = st.floats(allow_nan=True, allow_infinity=True)
any_row = st.builds(
    EpochRow,
    epoch=st.integers(1, 10**6),
    lr=any_float,
    train_loss=any_float,
    val_loss=any_float,
    val_acc=any_float,
    val_auc=st.none() | any_float,
    images_per_second=any_float,
    seconds=any_float,
    best=st.booleans(),
)


@given(st.lists(any_row, max_size=4))
def test_what_is_written_is_read_back_exactly(new_folder, rows):
    path = new_folder() / "history.csv"
    write_history(path, rows)
    assert repr(read_history(path)) == repr(rows)  # by repr, since NaN is not equal to itself


def test_the_file_is_plain_csv_with_the_fields_as_columns(tmp_path):
    write_history(tmp_path / "h.csv", [ROW, replace(ROW, epoch=2, val_auc=None, best=False)])
    with (tmp_path / "h.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == [field.name for field in fields(EpochRow)]
    assert {name: str(value).lower() for name, value in asdict(ROW).items()} == first
    assert (second["val_auc"], second["best"]) == ("", "false")


# --- the picture --------------------------------------------------------------------------------


@pytest.fixture
def figure_of(tmp_path, monkeypatch):
    """Return a function that gives the figure whose picture is written."""

    def draw(rows, title="toy"):
        figures, save = [], Figure.savefig

        def spy(figure, *args, **kwargs):
            figures.append(figure)
            save(figure, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Figure, "savefig", spy)
            draw_learning_curve(tmp_path / "curve.png", rows, title)
        return figures[0]

    return draw


def curves(axes):
    """Return the values of a panel's curves by their labels."""
    handles, labels = axes.get_legend_handles_labels()
    drawn = zip(handles, labels, strict=True)
    return {label: list(line.get_ydata()) for line, label in drawn if "best" not in label}


@pytest.mark.parametrize("n", [1, 3, 60])
def test_the_picture_is_a_png_of_the_same_size_for_any_number_of_epochs(tmp_path, n):
    draw_learning_curve(tmp_path / "curve.png", history(n), "breastmnist 28 px")
    with Image.open(tmp_path / "curve.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1152, 496))
        assert len(set(picture.convert("RGB").tobytes())) > 50


def test_the_curves_hold_the_values(figure_of):
    rows = history(5)
    losses, scores = (curves(axes) for axes in figure_of(rows).axes)
    assert losses == {
        "train": [row.train_loss for row in rows],
        "val": [row.val_loss for row in rows],
    }
    assert scores == {
        "ACC": [100 * row.val_acc for row in rows],
        "AUC": [100 * row.val_auc for row in rows],
    }


@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_the_ticks_are_whole_epochs(figure_of, n):
    for axes in figure_of(history(n)).axes:
        low, high = axes.get_xlim()
        shown = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert shown
        assert all(tick == int(tick) and 1 <= tick <= n for tick in shown)


def test_the_last_best_epoch_is_marked_in_both_panels(figure_of):
    for axes in figure_of(history(9)).axes:
        assert axes.lines[-1].get_label() == "best: 5"
        assert axes.lines[-1].get_xdata()[0] == 5


def test_an_undefined_auc_is_said_to_be_so(figure_of):
    rows = [replace(row, val_auc=None) for row in history(3)]
    assert list(curves(figure_of(rows).axes[1])) == ["ACC", "AUC (undefined)"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308])
def test_values_that_cannot_be_drawn_leave_a_gap(figure_of, value):
    rows = history(4)
    rows[1] = replace(rows[1], train_loss=value)
    figure = figure_of(rows)
    drawn = curves(figure.axes[0])["train"]
    assert np.isnan(drawn).tolist() == [False, True, False, False]
    assert figure.axes[0].get_ylim()[1] < 2


def test_a_training_of_nothing_but_nan_is_drawn(figure_of):
    rows = [replace(ROW, train_loss=math.nan, val_loss=math.nan, val_acc=math.nan, val_auc=None)]
    assert set(curves(figure_of(rows).axes[0])) == {"train (undefined)", "val (undefined)"}


@pytest.mark.parametrize(
    "title", ["my $data$_x", r"$\frac{$", "a_b^c", "数据 \x1b[1m", "x" * 500, ""]
)
def test_any_title_is_shown_as_it_is_and_fits(figure_of, title):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figure_of(history(2), title)
    shown = figure.get_suptitle()
    assert title.endswith(shown.removeprefix("…").replace("\n", ""))


def test_the_readers_own_settings_neither_matter_nor_change(tmp_path):
    draw_learning_curve(tmp_path / "plain.png", history(3), "toy")
    with matplotlib.rc_context({"text.usetex": True, "figure.facecolor": "black"}):
        draw_learning_curve(tmp_path / "own.png", history(3), "toy")
        assert matplotlib.rcParams["figure.facecolor"] == "black"
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "plain.png").read_bytes()

"""The figures: what is drawn is what the frames say, for any grid."""

from __future__ import annotations

import subprocess
import sys
import warnings
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from medplus.analysis.drawing.heatmap import DARK, LIGHT, ink_on
from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of, setting_label
from medplus.analysis.drawing.style import INK, PAPER, short_names, signs
from medplus.analysis.format import p_value, percent
from medplus.analysis.friedman import friedman
from medplus.analysis.results.baseline import load_baseline
from medplus.analysis.transfer import default_transfers
from medplus.reporting.figures import render, write_figures
from tests.analysis.benchmarks import (
    HOSTILE,
    document_of,
    drawn,
    hostile_grid,
    part,
    renamed,
    tiny_grid,
)
from tests.reporting.page import sample

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def paper():
    return document_of(load_baseline())


@pytest.fixture(scope="module")
def drawn_paper(paper):
    """Return the paper's figures; tests look at them and change nothing."""
    return drawn(paper)


@pytest.fixture(scope="module")
def tiny():
    return document_of(tiny_grid(load_baseline()))


@pytest.fixture(scope="module")
def single():
    one = {"dataset": ("octmnist",), "backbone": ("vgg16",), "size": (28,), "protocol": ("knn",)}
    return document_of(part(load_baseline(), **one))


@pytest.fixture(scope="module")
def hostile():
    return document_of(hostile_grid(load_baseline()))


def texts(thing) -> list[str]:
    return [text.get_text() for text in thing.findobj(Text) if text.get_text()]


def lines(axes) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }


def blocks(axes, n_columns: int, n_blocks: int = 1) -> list[list[list[str]]]:
    """Return the texts of cells by block, row and column."""
    width = n_columns + 0.25
    found = {}
    for text in axes.texts:
        x, y = text.get_position()
        if y > 0 and text.get_ha() == "center":  # titles stand above, names of columns below
            found[int(x // width), int(y), int(x % width)] = text.get_text()
    rows = range(len(row_names(axes)))
    return [
        [[found.get((b, row, c), "") for c in range(n_columns)] for row in rows]
        for b in range(n_blocks)
    ]


def row_names(axes) -> list[str]:
    return [t.get_text() for t in axes.texts if t.get_ha() == "right" and t.get_position()[1] > 0]


# --- numbers ----------------------------------------------------------------------------------


def test_overview_draws_the_averages(paper, drawn_paper):
    figure = drawn_paper["fig1_overview"]
    averages = paper.benchmark.averages.query("dataset == 'average'")
    assert len(figure.axes) == 3
    for axes, protocol in zip(figure.axes, ("finetune", "probe", "knn"), strict=True):
        assert axes.get_title(loc="left") == f"{PROTOCOL_LABELS[protocol]}, 12 datasets"
        found = lines(axes)
        assert len(found) == 10
        for name, (_, values) in found.items():
            of_it = averages["backbone"].map(label_of) == name
            rows = averages[(averages["protocol"] == protocol) & of_it]
            assert values == list(rows.sort_values("size")["acc_mean"])


def test_missing_average_is_a_gap():
    cells = part(load_baseline(), backbone=("vgg16", "alexnet"), protocol=("knn",))
    gone = (cells["backbone"] == "vgg16") & (cells["size"] == 64) & (cells["dataset"] == "octmnist")
    figure = drawn(document_of(cells[~gone].reset_index(drop=True)))["fig1_overview"]
    values = lines(figure.axes[0])["VGG16"][1]
    assert [np.isnan(value) for value in values] == [False, True, False, False]


def test_ranking_writes_every_count(paper, drawn_paper):
    figure = drawn_paper["fig2_ranking"]
    sizes = (28, 64, 128, 224)
    lines = [[("all", "all"), *((name, "all") for name in ("finetune", "probe", "knn"))]]
    lines += [[(name, size) for size in sizes] for name in ("finetune", "probe", "knn")]
    for axes, settings in zip(figure.axes, lines, strict=True):
        drawn = zip(blocks(axes, 5, 4), axes.collections, settings, strict=True)
        for written, mesh, (protocol, size) in drawn:
            ranking = paper.tables["ranking"].frame
            rows = ranking[(ranking["protocol"] == protocol) & (ranking["size"] == size)]
            counts = rows["count"].to_numpy().reshape(10, 5)
            assert written == [[str(count) if count else "" for count in row] for row in counts]
            np.testing.assert_allclose(mesh.get_array(), counts / rows["n_settings"].iloc[0])


def test_ranking_of_very_many_shows_the_most_counted_and_says_so(paper):
    parts = [load_baseline()]
    parts += [
        renamed(parts[0], {name: f"{name}@{n}" for name in set(parts[0]["backbone"])}).assign(
            acc_mean=lambda frame, n=n: frame["acc_mean"] - 3 * n
        )
        for n in (1, 2)
    ]
    cells = part(pd.concat(parts), protocol=("knn",), size=(28,))
    figure = drawn(document_of(cells))["fig2_ranking"]
    assert any("10 more backbones" in text for text in texts(figure))
    (counts,) = blocks(figure.axes[0], 5)
    assert len(counts) == 20
    # No count is lost: twelve datasets, five ranks.
    assert sum(int(text or 0) for row in counts for text in row) == 60


def test_gains_write_improved_of_datasets(paper, drawn_paper):
    (axes,) = drawn_paper["fig3_gains"].axes
    groups = paper.tables["resolution_gains"].frame.groupby("protocol", sort=False)
    for written, (_, rows) in zip(blocks(axes, 3, 3), groups, strict=True):
        expected = [f"{row.improved}/{row.n_datasets}" for row in rows.itertuples()]
        assert [text for row in written for text in row] == expected


def test_gain_that_is_missing_is_told_apart_from_none():
    cells = part(load_baseline(), protocol=("knn",), backbone=("vgg16", "alexnet"))
    lacking = cells[~((cells["backbone"] == "vgg16") & (cells["size"] == 64))]
    figure = drawn(document_of(lacking.reset_index(drop=True)))["fig3_gains"]
    assert blocks(figure.axes[0], 3)[0][0][:2] == ["–", "–"]


def test_pairwise_writes_p_and_marks_significance(paper, drawn_paper):
    axes = drawn_paper["fig5_pairwise"].axes[0]
    cells, columns = axes.texts[:45], axes.texts[-9:]
    assert len(axes.patches) == 45
    pairs = paper.tables["pairwise"].frame.itertuples()
    for row, text, patch in zip(pairs, cells, axes.patches, strict=True):
        assert text.get_text() == p_value(row.p_value).removeprefix("0")
        assert (text.get_fontweight() == "bold") == row.significant
        red, _, blue = patch.get_facecolor()[:3]
        assert (blue > red) == (row.favoured == row.backbone_b)  # the row's backbone is blue
        column, line = (int(place) for place in text.get_position())
        assert row_names(axes)[line] == label_of(row.backbone_b)
        assert columns[column].get_text() == label_of(row.backbone_a)


def test_cost_draws_every_setting_and_the_front():
    cells = part(load_baseline(), protocol=("probe", "knn"), size=(28, 224))
    rng = np.random.default_rng(0)
    analysis = document_of(cells.assign(device_seconds=rng.uniform(1, 1000, len(cells))))
    axes, costs = drawn(analysis)["fig6_cost"].axes[0], analysis.tables["costs"].frame
    found = lines(axes)
    for row in costs.itertuples():
        name = f"{label_of(row.backbone)}, {setting_label(row.protocol, row.size)}"
        assert found[name] == (
            [row.device_seconds],
            [row.acc],
        )
    front = costs[costs["front"]].sort_values("device_seconds")
    assert found["front"] == (list(front["device_seconds"]), list(front["acc"]))
    assert axes.get_xscale() == "log"


def test_critical_difference_places_ranks_and_bars(paper, drawn_paper):
    axes = drawn_paper["fig7_critical_difference"].axes[0]
    drawn, result = lines(axes), friedman(paper.benchmark.means)
    places = np.array([drawn[label_of(name)][0][0] for name in result.mean_ranks.index])
    slope, start = np.polyfit(result.mean_ranks.to_numpy(), places, 1)
    np.testing.assert_allclose(places, start + slope * result.mean_ranks, atol=1e-9)
    low, high = drawn["critical difference"][0]
    assert (high - low) / slope == pytest.approx(result.critical_difference)
    bars = [values for name, values in drawn.items() if name.startswith("clique")]
    assert len(bars) == len(result.cliques)
    for (xs, _), clique in zip(bars, result.cliques, strict=True):
        ends = sorted(drawn[label_of(name)][0][0] for name in clique)
        assert xs[0] < ends[0] < ends[-1] < xs[1]


def test_transfer_draws_mean_ranks_and_says_how_sure(paper, drawn_paper):
    figure = drawn_paper["fig8_transfer"]
    for axes, one in zip(figure.axes, default_transfers(paper.benchmark.compared), strict=True):
        means = one.points.groupby("backbone")[["cheap_rank", "target_rank"]].mean()
        found = lines(axes)
        for backbone, row in means.iterrows():
            assert found[label_of(backbone)] == ([row["cheap_rank"]], [row["target_rank"]])
        (crowd,) = axes.collections
        assert len(crowd.get_offsets()) == len(
            one.points[["cheap_rank", "target_rank"]].drop_duplicates()
        )
        said = " ".join(texts(figure))
        for number in (one.rho, one.low, one.high, one.regret):
            assert percent(number) in said


def test_datasets_draw_every_cell_in_the_order_of_names_and_sizes(paper, drawn_paper):
    figure = drawn_paper["fig9_datasets"]
    for axes, protocol in zip(figure.axes, ("finetune", "probe", "knn"), strict=True):
        drawn = {name: ys for name, (_, ys) in lines(axes).items() if name[0] != "_"}
        assert len(drawn) == 10
        for name, values in drawn.items():
            rows = paper.benchmark.cells[paper.benchmark.cells["protocol"] == protocol]
            rows = rows[rows["backbone"].map(label_of) == name].sort_values(["dataset", "size"])
            by_dataset = np.reshape(values, (12, 5))
            np.testing.assert_array_equal(by_dataset[:, :4].ravel(), rows["acc_mean"])
            assert np.isnan(by_dataset[:, 4]).all()  # no line leads from one dataset to the next


def test_boxes_are_tukeys(paper, drawn_paper):
    cells = paper.benchmark.cells[paper.benchmark.cells["protocol"] == "finetune"]
    boxes = [patch for patch in drawn_paper["fig4_boxes"].axes[0].patches if patch.get_width()]
    quartiles = cells.groupby(["backbone", "size"])["acc_mean"].quantile([0.25, 0.75]).unstack()
    drawn = sorted((box.get_x(), box.get_x() + box.get_width()) for box in boxes)
    np.testing.assert_allclose(drawn, sorted(quartiles.itertuples(index=False, name=None)))


def test_intervals_are_drawn_with_their_means(paper, drawn_paper):
    frame = paper.tables["intervals"].frame[paper.tables["intervals"].frame["over"] == "datasets"]
    for axes, protocol in zip(
        drawn_paper["fig10_intervals"].axes, ("finetune", "probe", "knn"), strict=True
    ):
        rows = frame[frame["protocol"] == protocol]
        bars = [one for one in axes.collections if len(one.get_segments()) == len(rows)]
        ends = [(s[0][0], s[1][0]) for one in bars for s in one.get_segments()]
        assert sorted(ends) == sorted(rows[["low", "high"]].itertuples(index=False, name=None))
        assert sorted(x[0] for x, _ in lines(axes).values()) == sorted(rows["mean"])


def test_what_fails_the_tolerance_is_hollow():
    figure = drawn(sample.of_runs())["fig11_against"]
    points = [line for line in figure.axes[0].lines if line.get_marker() != "None"]
    frame = sample.of_runs().tables["against"].frame
    assert [point.get_ydata()[0] for point in points] == list(frame["difference"])
    hollow = [to_hex(point.get_markerfacecolor()) == PAPER.lower() for point in points]
    assert hollow == [not passed for passed in frame["passed"]]


# --- any grid ---------------------------------------------------------------------------------


_DYING = """
import os, signal, sys
from pathlib import Path
from matplotlib.figure import Figure as Drawing
from medplus.analysis.section import Figure
from medplus.reporting.figures import write_figures
here = os.getpid()
def draw():
    if os.getpid() != here:
        {end}
    return Drawing()
figures = [Figure(f"figure{{n}}", "", draw) for n in range(6)]
written = write_figures(figures, Path(sys.argv[1]))
print(all(path.is_file() for path in written), len(written), "torch" in sys.modules)
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "raise MemoryError"])
def test_what_a_second_process_cannot_draw_the_first_one_does(end, tmp_path):
    command = [sys.executable, "-c", _DYING.format(end=end), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["True", "18", "False"]


def test_figures_are_written_in_three_formats(tiny, tmp_path):
    written = {path.name for path in write_figures(tiny.figures, tmp_path / "figures")}
    made = [figure.name for figure in tiny.figures]
    expected = {f"{name}.{kind}" for name in made for kind in ("png", "svg", "pdf")}
    assert written == expected == {path.name for path in (tmp_path / "figures").iterdir()}
    for name in written:
        start = (tmp_path / "figures" / name).read_bytes()[:8]
        assert start.startswith((b"\x89PNG", b"<?xml", b"%PDF"))


@pytest.mark.parametrize(
    ("which", "lacking"),
    [
        ("paper", {6, 11}),  # has no costs
        ("tiny", {2, 3, 4, 5, 7, 8, 10, 11}),  # one size, two backbones, two datasets
        ("single", set(range(1, 12))),
    ],
)
def test_every_figure_that_there_are_data_for(request, which, lacking):
    made = {figure.name for figure in request.getfixturevalue(which).figures}
    assert set(range(1, 12)) - {int(name[3:].split("_")[0]) for name in made} == lacking


def test_nothing_is_cut_off_and_no_text_is_tiny(drawn_paper, tiny, hostile):
    for figure in [one for of in (drawn_paper, drawn(tiny), drawn(hostile)) for one in of.values()]:
        box, sheet = figure.get_tightbbox(figure.canvas.get_renderer()), figure.bbox_inches
        assert sheet.x0 <= box.x0 < box.x1 <= sheet.x1
        assert sheet.y0 <= box.y0 < box.y1 <= sheet.y1
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 6


# --- names ------------------------------------------------------------------------------------


def test_hostile_names_are_shown_as_they_are(hostile):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, figure in drawn(hostile).items():
            assert set(HOSTILE) <= set(texts(figure)), name
            dollars = [text for text in figure.findobj(Text) if "$" in text.get_text()]
            assert not any(text.get_parse_math() for text in dollars)  # they are no mathematics


def test_hostile_names_are_no_elements_of_an_svg(hostile):
    figures = drawn(hostile)
    for name in ("fig1_overview", "fig3_gains"):
        svg = render(figures[name], "svg")
        assert not list(ElementTree.fromstring(svg).iter(f"{SVG}script"))


def test_long_names_keep_both_ends_and_stay_apart():
    names = ["x" * 40 + "a", "x" * 40 + "b", "x" * 20 + "y" * 20 + "a" * 20, "short", "a\nb"]
    names += ["q" * 20 + str(n) + "q" * 20 for n in range(3)]
    shown = short_names(names)
    assert shown["short"] == "short"
    assert shown["a\nb"] == "a b"
    assert shown["x" * 40 + "a"] == "x" * 13 + "…" + "x" * 13 + "a"
    assert len(set(shown.values())) == len(names)


# --- style ------------------------------------------------------------------------------------


def test_forty_backbones_all_look_different():
    names = [*load_baseline()["backbone"].unique(), *(f"new{n}" for n in range(30))]
    drawn = signs(names)
    assert len({(sign.colour, sign.marker) for sign in drawn.values()}) == 40


@pytest.mark.parametrize(
    ("ground", "ink"),
    [
        ((0, 0.4, 0.8, 0.1), INK),  # the page's own ink is readable whatever its ground
        ((0, 0.1, 0.3, 1), LIGHT),
        ((0.9, 0.6, 0, 1), DARK),
    ],
)
def test_ink_is_readable_on_its_ground(ground, ink):
    assert ink_on(ground) == ink


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_same_numbers_give_the_same_bytes(tiny, kind):
    first, second = (render(drawn(tiny)["fig6_cost"], kind) for _ in range(2))
    assert first == second
    assert b"CreationDate" not in first
    assert b"<dc:date>" not in first


def test_settings_of_the_reader_do_not_matter_and_are_kept(tiny):
    plain = render(drawn(tiny)["fig1_overview"], "svg")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": None}):
        assert render(drawn(tiny)["fig1_overview"], "svg") == plain
        assert matplotlib.rcParams["font.size"] == 30

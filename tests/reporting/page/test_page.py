import base64
import hashlib
import json
import re
from itertools import pairwise

import numpy as np
import pytest

from medplus.reporting.baseline import DOI
from medplus.reporting.cells import KEYS, PROTOCOLS, order_backbones
from medplus.reporting.format import percent
from medplus.reporting.page import PageLinks, chart_parts, render_page
from medplus.reporting.page.inline import safe_json
from medplus.reporting.page.links import href
from medplus.reporting.palette import label_of
from tests.reporting.page import sample
from tests.reporting.page.document import Document, seen
from tests.reporting.page.sample import ATTACK

MIB = 2**20


@pytest.fixture(scope="module")
def paper():
    return sample.paper()


@pytest.fixture(scope="module")
def html(paper):
    return render_page(paper, PageLinks())


@pytest.fixture(scope="module")
def document(html):
    return Document(html)


@pytest.fixture(scope="module")
def runs():
    return Document(render_page(sample.of_runs(), PageLinks()))


def number(text):
    return float(text.replace("−", "-").replace(",", ""))


def printed(mean, std):
    return percent(mean) if np.isnan(std) else f"{percent(mean)} ± {percent(std)}"


# ---- Numbers ----


@pytest.mark.parametrize("dataset", ["average", "bloodmnist", "tissuemnist"])
def test_benchmark_tables_hold_every_cell(document, paper, dataset):
    cells = paper.benchmark[paper.benchmark["dataset"] == dataset].set_index(KEYS[1:])
    title = "Average over datasets" if dataset == "average" else dataset
    rows = document.table(f"{title}: ACC")
    assert len(rows) == 10
    for name, row in zip(order_backbones(paper.cells["backbone"]), rows, strict=True):
        settings = [(p, name, s) for p in PROTOCOLS for s in (28, 64, 128, 224)]
        wanted = [printed(*cells.loc[key, ["acc_mean", "acc_std"]]) for key in settings]
        assert row == [label_of(name), *wanted]


def test_leaderboard_holds_all_cells_and_averages(document, paper):
    board = document.data("board-data")
    assert len(board["rows"]) == len(paper.benchmark) == 1560
    found = {
        (
            board["datasets"][row["at"][0]], board["protocols"][row["at"][1]]["name"],
            board["backbones"][row["at"][2]]["name"], row["size"],
        ): row
        for row in board["rows"]
    }  # fmt: skip
    for cell in paper.benchmark.to_dict("records"):
        row = found[tuple(cell[key] for key in KEYS)]
        assert row["acc"] == pytest.approx(cell["acc_mean"], abs=1e-6)
        assert row["text"]["acc"] == printed(cell["acc_mean"], cell["acc_std"])
        assert (row["auc"] is None) == np.isnan(cell["auc_mean"])
        assert row["seeds"] == cell["n_seeds"]


def test_without_scripts_the_leaderboard_shows_the_averages_best_first(document, paper):
    rows = [seen(r) for r in next(document.by_id("board").all("tbody")).all("tr")]
    averages = paper.benchmark[paper.benchmark["dataset"] == "average"]
    assert len(rows) == len(averages) == 120
    best = averages.loc[averages["acc_mean"].idxmax()]
    assert label_of(best["backbone"]) in rows[0]
    assert printed(best["acc_mean"], best["acc_std"]) in rows[0]


def test_best_is_strong_and_second_underlined(document, paper):
    averages = paper.benchmark[paper.benchmark["dataset"] == "average"]
    (table,) = [
        t for t in document.root.all("table")
        if next(t.all("caption")).text().startswith("Average over")
    ]  # fmt: skip
    marked = {tag: sorted(seen(e) for e in table.all(tag)) for tag in ("strong", "u")}
    wanted = {"strong": [], "u": []}
    for _, block in averages.groupby(["protocol", "size"]):
        for place, tag in enumerate(("strong", "u")):
            values = sorted({percent(acc) for acc in block["acc_mean"]}, reverse=True)
            for row in block.itertuples():
                if percent(row.acc_mean) == values[place]:
                    wanted[tag].append(printed(row.acc_mean, row.acc_std))
    assert marked == {tag: sorted(texts) for tag, texts in wanted.items()}


def test_pairwise_table_equals_the_frame(document, paper):
    rows = document.table("p value of every pair")
    assert len(rows) == len(paper.pairwise) == 45
    for row, test in zip(rows, paper.pairwise.itertuples(), strict=True):
        assert row[:2] == [label_of(test.backbone_a), label_of(test.backbone_b)]
        assert number(row[2]) == pytest.approx(test.p_value, rel=5e-3)
        assert row[4] == ("yes" if test.significant else "no")
        assert row[5] == label_of(test.favoured)


def test_pairwise_chart_is_antisymmetric_and_flags_what_is_significant(document, paper):
    (variant,) = document.data("chart-data")["chart-pairwise"]["variants"]
    trace = variant["data"][0]
    z = np.array(trace["z"], dtype=float)
    np.testing.assert_allclose(z, -z.T)
    assert sum("●" in text for row in trace["text"] for text in row) == 2 * int(
        paper.pairwise["significant"].sum()
    )


def test_percentiles_ranking_and_gains_equal_the_frames(document, paper):
    rows = document.table("Percentiles")
    for row, wanted in zip(rows, paper.percentiles.itertuples(), strict=True):
        assert row[1:] == [percent(wanted.p25), percent(wanted.p50), percent(wanted.p75)]
    counts = document.table("Counts of ranks")
    assert [int(x) for row in counts for x in row[3:8]] == paper.ranking["count"].tolist()
    gains = document.table("Datasets that gain")
    total = sum(int(text.split(" of ")[0]) for row in gains for text in row[1:])
    assert total == paper.gains["improved"].sum()


def test_a_missing_cell_is_a_dash_and_a_gap(runs):
    (row,) = [row for row in runs.table("breastmnist: ACC") if row[0] == "ResNet-18"]
    assert row[2] == row[4] == "–"
    variants = runs.data("chart-data")["chart-overview"]["variants"]
    gaps = [t["y"] for t in variants[1]["data"] if t["name"] == "ResNet-18"]
    assert [values[1] for values in gaps] == [None, None]


def test_the_three_uncertainties_stand_in_three_tables(runs):
    section = runs.by_id("intervals")
    captions = [next(t.all("caption")).text() for t in section.all("table")]
    assert [c.split(":")[0] for c in captions] == [
        "Over seeds", "Over datasets", "Over test images",
    ]  # fmt: skip
    assert [len(runs.table(c)) for c in captions] == [17, 10, 34]


# ---- What a reader must know ----


def test_every_finding_note_condition_and_skipped_record_is_told():
    analysis = sample.of_runs()
    document = Document(render_page(analysis, PageLinks()))
    text = document.root.text()
    told = [
        *analysis.findings, *(note.text for note in analysis.notes), *analysis.conditions.values(),
        *(part for pair in analysis.skipped for part in pair), *analysis.unlike["reason"],
        *(run.rpartition("/")[2] for run in analysis.unlike.loc[0, "runs"]), analysis.source,
    ]  # fmt: skip
    assert [words for words in told if words not in text] == []
    assert analysis.notes[0].text in document.by_id("pairwise").text()


def test_runs_are_traced_and_linked_where_links_are_known():
    run = "runs/word/breastmnist-probe-0"
    links = PageLinks(runs={run: "../runs/word/breastmnist-probe-0"})
    board = Document(render_page(sample.of_runs(), links)).data("board-data")
    found = [item for row in board["rows"] for item in row.get("runs", ())]
    assert [run, "../runs/word/breastmnist-probe-0"] in found
    assert ["runs/word/breastmnist-probe-1", None] in found
    assert len(found) == 34 * 3


def test_files_are_linked_only_where_they_are():
    analysis = sample.of_runs()
    files = {"pairwise": {"csv": "t/p.csv"}, "fig1_overview": {"svg": "figures/o.svg"}}
    links = PageLinks(files)
    document = Document(render_page(analysis, links))
    assert "pairwise.csv" in document.by_id("pairwise").text()
    assert "fig1_overview.svg" in document.by_id("benchmark").text()
    alone = Document(render_page(analysis, PageLinks()))
    targets = {a.attrs["href"] for a in alone.root.all("a")}
    assert all(target.startswith("#") for target in targets)


def test_small_tables_render():
    one = sample.of_runs().cells.iloc[:1]
    document = Document(render_page(sample.analyse(one), PageLinks()))
    assert "too few" in document.by_id("findings").text()
    none = one.assign(auc_mean=np.nan, acc_low=np.nan, acc_high=np.nan, device_seconds=np.nan)
    document = Document(render_page(sample.analyse(none), PageLinks()))
    assert document.data("board-data")["columns"] == [
        "backbone", "dataset", "protocol", "size", "acc", "seeds",
    ]  # fmt: skip
    assert "No cost is known" in document.by_id("costs").text()


# ---- Safety ----


@pytest.fixture(scope="module")
def attacked():
    analysis = sample.attacked()
    run = analysis.cells["runs"].iloc[0][0]
    links = PageLinks({ATTACK: {ATTACK: ATTACK}}, runs={run: "javascript:x"})
    return Document(render_page(analysis, links))


def test_names_never_become_elements(attacked, document):
    scripts = [e.attrs for e in attacked.root.all("script")]
    assert scripts == [e.attrs for e in document.root.all("script")]
    assert not list(attacked.root.all("img"))
    assert not any(key.startswith("on") for e in attacked.root.all() for key in e.attrs), (
        "an event handler"
    )


SECTIONS = [
    "findings", "against", "newcomers", "benchmark", "percentiles", "pairwise", "comparisons",
    "friedman", "gains", "ranking", "intervals", "paired", "costs", "transfers", "unlike",
    "datasets", "basis",
]  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_names_are_shown_as_they_are(attacked, section):
    assert ATTACK in attacked.by_id(section).text()


def test_embedded_data_cannot_end_its_element(attacked):
    for name in ("board-data", "chart-data"):
        text = attacked.by_id(name).text()
        assert not re.search("[<>&\u2028\u2029]", text)
        assert "hacked" in text
    assert json.loads(safe_json([ATTACK, "\u2029"])) == [ATTACK, "\u2029"]


def test_links_lead_to_files_only(attacked):
    targets = [a.attrs["href"] for a in attacked.root.all("a")]
    targets += [
        i[1] for r in attacked.data("board-data")["rows"] for i in r.get("runs", []) if i[1]
    ]
    assert "javascript%3Ax" in targets
    assert all(re.fullmatch(r"#[\w-]+|[\w./%~-]+", target) for target in targets)
    assert href("..\\runs\\a b") == "../runs/a%20b"


def test_charts_show_names_as_text(attacked):
    charts = attacked.data("chart-data")

    def strings(value):
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | dict):
            for item in value.values() if isinstance(value, dict) else value:
                yield from strings(item)

    assert any("&lt;script" in text for text in strings(charts))
    assert not any(re.search("<(script|img)", text) for text in strings(charts))


def test_only_our_scripts_may_run(document):
    (policy,) = [
        m.attrs["content"] for m in document.root.all("meta")
        if m.attrs.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data: blob:"
    scripts = [
        e.text() for e in document.root.all("script")
        if e.attrs.get("type") in (None, "text/plain")
    ]  # fmt: skip
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert sorted(rules["script-src"].split()) == sorted(f"'sha256-{d}'" for d in digests)


def test_the_page_is_one_file_with_one_plotly(html, document):
    assert len(html.encode()) < 8 * MIB
    assert html.count("plotly.js v") == 1
    source = document.by_id("plotly-source").text()
    rest = html.replace(source, "")
    urls = set(re.findall(r"https?:[^\s\"'`<]+", rest))
    assert urls == {f"https://doi.org/{DOI}", "https://doi.org/${board.doi}"}
    assert not re.search(r"url\(|@import|\bsrc=", rest)
    assert not list(document.root.all("link", "iframe", "object", "embed"))


# ---- For everyone ----


@pytest.mark.parametrize("page", ["document", "runs"])
def test_structure_is_readable_without_eyes(request, page):
    document = request.getfixturevalue(page)
    assert next(document.root.all("html")).attrs["lang"] == "en"
    levels = [int(e.tag[1]) for e in document.root.all("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    for control in document.root.all("select", "input"):
        assert control.within("label")
    for table in document.root.all("table"):
        assert next(table.all("caption")).text()
        assert all("scope" in head.attrs for head in table.all("th"))
    ids = [e.attrs["id"] for e in document.root.all() if "id" in e.attrs]
    assert len(ids) == len(set(ids))
    anchors = {a.attrs["href"][1:] for a in document.root.all("a") if a.attrs["href"][0] == "#"}
    assert anchors <= set(ids)


def test_every_chart_has_words_and_a_table(runs):
    charts = runs.data("chart-data")
    assert len(charts) == 9
    for name in charts:
        chart = runs.by_id(name)
        assert chart.attrs["aria-label"]
        section = chart
        while section.tag != "section":
            section = section.parent
        assert list(section.all("table")), name


def test_long_names_are_shortened_beside_axes_unless_they_then_coincide():
    long = [f"vit_base_patch16_{middle}_laion2b_ft_in12k" for middle in ("clip_224", "clip_384")]
    labels = chart_parts.axis_labels([*long, "vit_huge_patch14_clip_quickgelu_224_metaclip"])
    assert list(labels.values()) == [*long, "vit_huge_patch…24_metaclip"]

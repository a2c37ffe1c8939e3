import base64
import hashlib
import json
import re
from itertools import pairwise, product

import numpy as np
import pytest

from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.drawing.style import FAINT, GREY, INK, MISSING, PAPER
from medplus.analysis.format import p_value, percent
from medplus.analysis.results.baseline import DOI
from medplus.analysis.results.cells import KEYS, PROTOCOLS, order_backbones
from medplus.reporting.page import PageLinks
from medplus.reporting.page.inline import safe_json
from medplus.reporting.page.links import href
from tests.analysis.benchmarks import document_of
from tests.reporting.page import sample
from tests.reporting.page.document import Document, seen
from tests.reporting.page.sample import ATTACK, render

MIB = 2**20


@pytest.fixture(scope="module")
def paper():
    return sample.paper()


@pytest.fixture(scope="module")
def html(paper):
    return render(paper, PageLinks())


@pytest.fixture(scope="module")
def document(html):
    return Document(html)


@pytest.fixture(scope="module")
def runs():
    return Document(render(sample.of_runs(), PageLinks()))


def number(text):
    return float(text.replace("−", "-").replace(",", ""))


def printed(mean, std):
    return percent(mean) if np.isnan(std) else f"{percent(mean)} ± {percent(std)}"


# ---- Numbers ----


@pytest.mark.parametrize("dataset", ["average", "bloodmnist", "tissuemnist"])
def test_benchmark_tables_hold_every_cell(document, paper, dataset):
    cells = paper.benchmark.averages[paper.benchmark.averages["dataset"] == dataset].set_index(
        KEYS[1:]
    )
    rows = document.table("average over 12 datasets: ACC" if dataset == "average" else dataset)
    names = [
        (p, name) for p in PROTOCOLS for name in order_backbones(paper.benchmark.cells["backbone"])
    ]
    for (protocol, name), row in zip(names, rows, strict=True):
        of_it = [cells.loc[protocol, name, size] for size in (28, 64, 128, 224)]
        acc = [printed(cell["acc_mean"], cell["acc_std"]) for cell in of_it]
        auc = [printed(cell["auc_mean"], cell["auc_std"]) or "–" for cell in of_it]
        assert row == [PROTOCOL_LABELS[protocol], label_of(name), *acc, *auc]


def test_leaderboard_holds_all_cells_and_averages(document, paper):
    board = document.data("board-data")
    assert len(board["rows"]) == len(paper.benchmark.averages) == 1560
    found = {
        (
            board["datasets"][row["at"][0]], board["protocols"][row["at"][1]]["name"],
            board["backbones"][row["at"][2]]["name"], row["size"],
        ): row
        for row in board["rows"]
    }  # fmt: skip
    for cell in paper.benchmark.averages.to_dict("records"):
        row = found[tuple(cell[key] for key in KEYS)]
        assert row["acc"] == pytest.approx(cell["acc_mean"], abs=1e-6)
        assert row["text"]["acc"] == printed(cell["acc_mean"], cell["acc_std"])
        assert (row["auc"] is None) == np.isnan(cell["auc_mean"])
        assert row["seeds"] == cell["n_seeds"]


def test_without_scripts_the_leaderboard_shows_the_averages_best_first(document, paper):
    rows = [seen(r) for r in next(document.by_id("board").all("tbody")).all("tr")]
    averages = paper.benchmark.averages[paper.benchmark.averages["dataset"] == "average"]
    assert len(rows) == len(averages) == 120
    best = averages.loc[averages["acc_mean"].idxmax()]
    assert label_of(best["backbone"]) in rows[0]
    assert printed(best["acc_mean"], best["acc_std"]) in rows[0]


def test_best_is_strong_and_second_underlined(document, paper):
    averages = paper.benchmark.averages[paper.benchmark.averages["dataset"] == "average"]
    (table,) = [
        t for t in document.root.all("table")
        if next(t.all("caption")).text().startswith("average over")
    ]  # fmt: skip
    marked = {tag: sorted(seen(e) for e in table.all(tag)) for tag in ("strong", "u")}
    wanted = {"strong": [], "u": []}
    for _, block in averages.groupby(["protocol", "size"]):
        for score in ("acc", "auc"):
            values = sorted({percent(one) for one in block[f"{score}_mean"]} - {""}, reverse=True)
            for (place, tag), row in product(enumerate(("strong", "u")), block.to_dict("records")):
                if values and percent(row[f"{score}_mean"]) == values[place]:
                    wanted[tag].append(printed(row[f"{score}_mean"], row[f"{score}_std"]))
    assert marked == {tag: sorted(texts) for tag, texts in wanted.items()}


def test_pairwise_table_equals_the_frame(document, paper):
    rows = document.table("Two-sided Wilcoxon")
    assert len(rows) == len(paper.tables["pairwise"].frame) == 45
    for row, test in zip(rows, paper.tables["pairwise"].frame.itertuples(), strict=True):
        assert row[:2] == [label_of(test.backbone_a), label_of(test.backbone_b)]
        assert row[5] == label_of(test.favoured)
        assert row[6] == p_value(test.p_value)
        assert row[7] == ("yes" if test.significant else "no")


def test_percentiles_ranking_and_gains_equal_the_frames(document, paper):
    rows = document.table("Percentiles")
    for row, wanted in zip(rows, paper.tables["percentiles"].frame.itertuples(), strict=True):
        assert row[1:] == [percent(wanted.p25), percent(wanted.p50), percent(wanted.p75)]
    captions = ["all protocols", *(PROTOCOL_LABELS[name] for name in PROTOCOLS)]
    counts = [
        row
        for of in captions
        for row in document.table(f"How often each backbone takes each rank by mean ACC: {of}")
    ]
    assert [int(x) for row in counts for x in row[2:]] == paper.tables["ranking"].frame[
        "count"
    ].tolist()
    gains = document.table("Datasets on which the larger image size")
    total = sum(int(text.split("/")[0]) for row in gains for text in row[2:])
    assert total == paper.tables["resolution_gains"].frame["improved"].sum()


def test_a_missing_cell_is_a_dash(runs):
    rows = [row for row in runs.table("breastmnist: ACC") if row[1] == "ResNet-18"]
    assert [row[3] for row in rows] == ["–", "–"]


def test_the_three_uncertainties_stand_in_three_tables(runs):
    section = runs.by_id("intervals")
    captions = [next(t.all("caption")).text() for t in section.all("table")]
    assert [c.split(":")[0] for c in captions] == [
        "Over seeds", "Over datasets", "Over test samples",
    ]  # fmt: skip
    assert [len(runs.table(c)) for c in captions] == [47, 14, 94]


# ---- What a reader must know ----


def test_every_finding_note_condition_and_skipped_record_is_told():
    analysis = sample.of_runs()
    document = Document(render(analysis, PageLinks()))
    text = document.root.text()
    benchmark = analysis.benchmark
    told = [
        *analysis.findings, *(note for _, note in analysis.notes), *benchmark.conditions.values(),
        *(part for pair in benchmark.skipped for part in pair), *benchmark.unlike["reason"],
        *(run.rpartition("/")[2] for run in benchmark.unlike.loc[0, "runs"]), benchmark.source,
    ]  # fmt: skip
    assert [words for words in told if words not in text] == []
    assert dict(analysis.notes)["pairwise"] in document.by_id("pairwise").text()


def test_runs_are_traced_and_linked_where_links_are_known():
    run = "runs/word/breastmnist-probe-0"
    links = PageLinks(runs={run: "../runs/word/breastmnist-probe-0"})
    board = Document(render(sample.of_runs(), links)).data("board-data")
    found = [item for row in board["rows"] for item in row.get("runs", ())]
    assert [run, "../runs/word/breastmnist-probe-0"] in found
    assert ["runs/word/breastmnist-probe-1", None] in found
    assert len(found) == 94 * 3


def test_files_are_linked_only_where_they_are():
    analysis = sample.of_runs()
    files = {"pairwise": {"csv": "t/p.csv"}, "fig1_overview": {"svg": "figures/o.svg"}}
    links = PageLinks(files)
    document = Document(render(analysis, links))
    assert "pairwise.csv" in document.by_id("pairwise").text()
    assert "fig1_overview.svg" in document.by_id("accuracy").text()
    alone = Document(render(analysis, PageLinks()))
    targets = {a.attrs["href"] for a in alone.root.all("a")}
    assert all(target.startswith("#") for target in targets)


def test_small_tables_render():
    one = sample.of_runs().benchmark.cells.iloc[:1]
    none = one.assign(auc_mean=np.nan, acc_low=np.nan, acc_high=np.nan, device_seconds=np.nan)
    document = Document(render(document_of(none), PageLinks()))
    assert document.data("board-data")["columns"] == [
        "backbone", "dataset", "protocol", "size", "acc", "seeds",
    ]  # fmt: skip
    assert not list(document.root.all("figure"))


def test_pictures_stand_in_the_page_with_their_words(runs):
    (image,) = runs.by_id("gallery").all("img")
    assert image.attrs["src"] == "data:image/png;base64," + base64.b64encode(b"png").decode()
    assert image.attrs["alt"] == "A word"
    assert "a line word" in runs.by_id("gallery").text()


# ---- Safety ----


@pytest.fixture(scope="module")
def attacked():
    analysis = sample.attacked()
    run = analysis.benchmark.cells["runs"].iloc[0][0]
    links = PageLinks({ATTACK: {ATTACK: ATTACK}}, runs={run: "javascript:x"})
    return Document(render(analysis, links))


def test_names_never_become_elements(attacked, document):
    scripts = [e.attrs for e in attacked.root.all("script")]
    assert scripts == [e.attrs for e in document.root.all("script")]
    assert all(e.attrs["src"].startswith("data:image/png;") for e in attacked.root.all("img"))
    assert not any(key.startswith("on") for e in attacked.root.all() for key in e.attrs), (
        "an event handler"
    )


SECTIONS = [
    "findings", "against", "newcomers", "accuracy", "spread", "pairwise", "friedman", "gains",
    "ranking", "intervals", "paired", "costs", "transfers", "unlike", "datasets", "gallery",
    "basis",
]  # fmt: skip


@pytest.mark.parametrize("section", SECTIONS)
def test_names_are_shown_as_they_are(attacked, section):
    assert ATTACK in attacked.by_id(section).text()


def test_embedded_data_cannot_end_its_element(attacked):
    text = attacked.by_id("board-data").text()
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


def test_only_our_scripts_may_run(document):
    (policy,) = [
        m.attrs["content"] for m in document.root.all("meta")
        if m.attrs.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    scripts = [e.text() for e in document.root.all("script") if "type" not in e.attrs]
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert sorted(rules["script-src"].split()) == sorted(f"'sha256-{d}'" for d in digests)


def test_the_page_is_one_small_file(html, document):
    assert len(html.encode()) < 4 * MIB
    urls = set(re.findall(r"https?:[^\s\"'`<]+", html))
    assert urls == {f"https://doi.org/{DOI}", "https://doi.org/${board.doi}"}
    assert not re.search(r"url\((?!#)|@import|\bsrc=", html)
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


@pytest.mark.parametrize("page", ["document", "runs", "attacked"])
def test_every_figure_has_words_and_a_table_and_refers_to_itself(request, page):
    document = request.getfixturevalue(page)
    figures = list(document.root.all("figure"))
    assert len(figures) == (9 if page == "document" else 11)
    for figure in figures:
        (svg,) = figure.all("svg")
        assert svg.attrs["aria-label"]
        section = figure
        while section.tag != "section":
            section = section.parent
        ids = {e.attrs["id"] for e in svg.all() if "id" in e.attrs}
        values = [str(value) for e in svg.all() for value in e.attrs.values()]
        used = {hit for value in values for hit in re.findall(r"^url\(#(.+)\)$|^#(\S+)$", value)}
        assert {a or b for a, b in used} <= ids


def test_figures_take_the_colours_and_the_font_of_the_page(document):
    styles = {e.attrs["style"] for e in document.root.all() if "style" in e.attrs}
    assert any("var(--text)" in style for style in styles)
    fixed = (INK, GREY, FAINT, MISSING, PAPER)
    assert not [style for style in styles if any(one.lower() in style for one in fixed)]
    assert not [style for style in styles if "font-family" in style]


def test_marks_tell_what_they_are(document, paper):
    tips = [e.text() for e in document.by_id("fig1_overview").all("title")]
    assert tips == 3 * list(map(label_of, order_backbones(paper.benchmark.cells["backbone"])))

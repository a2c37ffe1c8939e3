"""The page as people use it, in headless Chromium."""

import csv
import io
from urllib.parse import quote

import pytest

from medplus.analysis.drawing.palette import PROTOCOL_LABELS, label_of
from medplus.analysis.format import percent
from medplus.reporting.page import PageLinks
from tests.reporting.page import sample
from tests.reporting.page.sample import render

pytestmark = pytest.mark.browser
RUN = "runs/word/breastmnist-probe-0"


@pytest.fixture(scope="module")
def analysis():
    return sample.paper()


@pytest.fixture(scope="module")
def files(tmp_path_factory, analysis):
    folder = tmp_path_factory.mktemp("page")
    (folder / "run").mkdir()
    (folder / "run" / "record.json").write_text("{}")
    run_links = PageLinks(runs={RUN: "run/record.json"})
    pages = {
        "paper": render(analysis, PageLinks()),
        "runs": render(sample.of_runs(), run_links),
        "attacked": render(sample.attacked(), PageLinks()),
    }
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8", newline="")
    return folder


@pytest.fixture
def visit(visit, files):
    return lambda name, *words, **context: visit(files / f"{name}.html", *words, **context)


def column(page, key):
    """Return what the shown rows have in a column."""
    return page.evaluate(
        """key => {
          const heads = [...document.querySelectorAll('#board thead th')];
          const at = heads.findIndex(head => head.dataset.key === key);
          return [...document.querySelectorAll('#board tbody tr:not(.origin)')].map(
            row => [...row.cells[at].childNodes].filter(node => node.className !== 'unseen')
              .map(node => node.textContent).join(''));
        }""",
        key,
    )


def test_figures_are_readable_in_light_and_dark_and_on_paper(visit):
    text = "getComputedStyle(document.querySelector('#fig1_overview text')).fill"
    drawn = {}
    for scheme in ("light", "dark"):
        with visit("paper", color_scheme=scheme) as page:
            assert page.locator("figure svg").count() == 9
            drawn[scheme] = page.evaluate(text)
            assert drawn[scheme] == page.evaluate("getComputedStyle(document.body).color")
            page.emulate_media(media="print")
            drawn[f"{scheme} print"] = page.evaluate(text)
    assert drawn["light"] != drawn["dark"]
    assert drawn["dark print"] == drawn["light print"] == drawn["light"]


def test_figures_of_runs_scroll_within_their_box_on_a_phone(visit):
    with visit("runs", width=360) as page:
        needs_no_sideways_scrolling(page)
        assert page.locator("figure svg").count() == 11
        for figure in page.locator("figure").all():
            box, drawing = figure.bounding_box(), figure.locator("svg").bounding_box()
            assert box["width"] <= 360
            assert drawing["width"] >= 600  # or its text would be too small to read


def test_sorts_by_click_missing_last(visit, analysis):
    averages = analysis.benchmark.averages.query("dataset == 'average'")
    with visit("paper") as page:
        wanted = averages.sort_values("acc_mean", ascending=False)["acc_mean"]
        shown = [text.split(" ± ")[0] for text in column(page, "acc")]
        assert shown == [percent(value) for value in wanted]
        head = page.locator("#board th[data-key=auc]")
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert page.locator("#board th[aria-sort]").count() == 1
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        shown = [text.split(" ± ")[0] for text in column(page, "auc")]
        wanted = averages.sort_values("auc_mean")["auc_mean"]
        assert shown == [percent(value) or "–" for value in wanted]
        assert shown[-1] == "–"


def test_sorting_all_rows_feels_instant(visit, capsys):
    with visit("paper", "#dataset=") as page:
        assert "1,560 of 1,560 rows found" in page.locator("#shown").text_content()
        took = page.evaluate(
            """() => {
              const button = document.querySelector('#board th[data-key=size] button');
              const started = performance.now();
              button.click();
              document.body.offsetHeight;
              return performance.now() - started;
            }"""
        )
        assert len(column(page, "size")) < 1560
        page.locator("#board").evaluate("table => table.parentElement.scrollTo(0, 1e6)")
        page.wait_for_function("() => document.querySelectorAll('#board tbody tr').length > 200")
        page.get_by_role("button", name="Show all rows").click()
        assert page.locator("#shown").text_content() == "1,560 of 1,560 rows shown"
        sizes = [int(text) for text in column(page, "size")]
    with capsys.disabled():
        print(f"\nsorting 1,560 rows: {took:.0f} ms")
    assert len(sizes) == 1560
    assert sizes == sorted(sizes, reverse=True)
    assert took < 500


def test_sorts_by_keyboard_and_skips_to_the_content(visit):
    with visit("paper") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.locator("#board th[data-key=backbone] button").focus()
        page.keyboard.press("Enter")
        names = list(dict.fromkeys(column(page, "backbone")))
        assert names[0] == "VGG16"
        assert names[-1] == "SAM ViT-B/16"
        page.keyboard.press("Space")
        assert column(page, "backbone")[0] == "SAM ViT-B/16"


def test_filters_say_how_many_and_stand_in_the_address(visit, analysis):
    with visit("paper") as page:
        page.get_by_label("Dataset").first.select_option("bloodmnist")
        page.get_by_label("Protocol").first.select_option("knn")
        page.get_by_label("Search").fill("DINO 224")
        chosen = analysis.benchmark.cells.query(
            "dataset == 'bloodmnist' and protocol == 'knn' and backbone.str.contains('dino')"
        )  # 224 is in the name too, so that all four sizes remain
        assert page.locator("#shown").text_content() == f"{len(chosen)} of 1,560 rows shown"
        assert set(column(page, "protocol")) == {PROTOCOL_LABELS["knn"]}
        assert set(column(page, "backbone")) == {label_of("vit_base_patch16_224.dino")}
        page.reload(wait_until="domcontentloaded")
        page.wait_for_selector("html[data-ready]")
        assert page.locator("#shown").text_content() == f"{len(chosen)} of 1,560 rows shown"
        assert page.get_by_label("Search").input_value() == "DINO 224"
        page.get_by_role("button", name="Reset", exact=True).click()
        assert page.locator("#shown").text_content() == "120 of 1,560 rows shown"
        assert page.url.endswith("#leaderboard")


def test_a_foreign_address_does_no_harm(visit):
    with visit("runs", "#dataset=nothing&sort=evil") as page:
        assert page.locator("#shown").text_content() == "14 of 108 rows shown"
        for fragment in ("#sort=-__proto__", "#q=" + quote("<img src=x>"), "#=&=%"):
            page.evaluate("fragment => { location.hash = fragment; }", fragment)
            assert page.locator("#shown").text_content().endswith("of 108 rows shown")


def test_a_row_tells_its_source(visit, analysis):
    with visit("paper", "#dataset=bloodmnist&backbone=vgg16&size=28&protocol=probe") as page:
        opener = page.locator("#board .opener")
        opener.click()
        assert opener.get_attribute("aria-expanded") == "true"
        told = page.locator("#board .origin").text_content()
        assert "the paper's table of bloodmnist: linear probing, vgg16, 28 px" in told
        assert page.locator("#board .origin a").get_attribute("href").startswith("https://doi.org/")
        page.locator("#board tbody tr td").first.click()  # anywhere in the row does it
        assert page.locator("#board .origin").count() == 0
        page.get_by_label("Dataset").first.select_option("average")
        page.locator("#board .opener").click()
        cells = analysis.benchmark.cells.query(
            "backbone == 'vgg16' and size == 28 and protocol == 'probe'"
        )
        parts = page.locator("#board .origin li").all_text_contents()
        assert [text.split(":")[0] for text in parts] == sorted(cells["dataset"])


def test_a_run_is_linked(visit, files, browser):
    fragment = "#dataset=breastmnist&backbone=resnet18&protocol=probe"
    with visit("runs", fragment) as page:
        page.locator("#board .opener").first.click()
        assert "95 % interval over seeds" in page.locator("#board .origin").text_content()
        assert "Theirs is" in page.locator("#board .origin").text_content()
        assert page.locator("#board .origin li").count() == 3
        target = page.locator("#board .origin a").evaluate("a => a.href")
    other = browser.new_page()
    other.goto(target)
    assert other.url == (files / "run" / "record.json").as_uri()
    other.close()


def test_contents_lead_to_sections(visit):
    with visit("paper") as page:
        page.locator(".contents").get_by_role("link", name="Pairwise tests").click()
        page.wait_for_function(
            "() => Math.abs(document.querySelector('#pairwise').getBoundingClientRect().top) < 100"
        )


def test_shown_rows_are_downloaded(visit):
    with visit("paper", "#dataset=breastmnist&size=64&protocol=probe&sort=auc") as page:
        with page.expect_download() as download:
            page.locator("#download").click()
        text = download.value.path().read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO(text)))
        shown = [text.split(" ± ")[0] for text in column(page, "auc")]
    assert [row["auc_mean"] for row in rows] == shown
    assert {row["protocol"] for row in rows} == {"probe"}
    assert rows[0]["acc_low"] == ""


def test_dark_is_the_systems_choice_or_yours_and_is_remembered(visit):
    ground = "getComputedStyle(document.body).backgroundColor"
    with visit("paper", color_scheme="dark") as page:
        dark = page.evaluate(ground)
        button = page.locator("#theme")
        assert button.text_content() == "Light theme"
        button.click()
        light = page.evaluate(ground)
        assert light != dark
        page.reload(wait_until="domcontentloaded")
        page.wait_for_selector("html[data-ready]")
        assert page.evaluate(ground) == light


def needs_no_sideways_scrolling(page):
    page.evaluate("for (const d of document.querySelectorAll('details')) d.open = true")
    page.locator("#board .opener").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_phone_shows_names_beside_scores(visit):
    with visit("paper", width=360) as page:
        needs_no_sideways_scrolling(page)
        heads = page.locator("#board thead th").all_text_contents()
        assert heads[:2] == ["Backbone", "ACC (%)"]


def test_names_do_not_run(visit):
    with visit("attacked", "#dataset=", width=360) as page:
        page.evaluate("document.querySelectorAll('#board .opener').forEach(one => one.click())")
        assert page.locator("#board .origin").count() == 108
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        tips = page.locator("#fig11_against title").all_text_contents()
        assert any("<script>window.hacked=1</script>" in text for text in tips)
        assert page.evaluate("window.hacked") is None
        assert page.locator("img[src=x]").count() == 0


def test_what_slips_through_is_stopped_by_the_policy(browser, files):
    page = browser.new_page()
    page.goto((files / "paper.html").as_uri())
    page.evaluate(
        """() => {
          const box = document.createElement('div');
          box.innerHTML = '<img src="data:," onerror="window.hacked=1">';
          document.body.append(box);
          const script = document.createElement('script');
          script.textContent = 'window.hacked=2';
          document.body.append(script);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    failed = page.evaluate("fetch('https://example.org/').then(() => false, () => true)")
    assert failed
    page.close()


def test_reads_without_scripts(browser, files):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((files / "paper.html").as_uri())
    assert page.locator("#board tbody tr").count() == 120
    assert not page.locator("#filters").is_visible()
    context.close()

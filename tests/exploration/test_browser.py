"""The map as people use it, in headless Chromium."""

import csv
import io
from functools import partial

import numpy as np
import pytest

from medplus.embeddings.extract import extract
from medplus.exploration.explore import explore
from medplus.heads.knn import knn
from tests.exploration.toys import column, data_of, toy, unpacked

pytestmark = pytest.mark.browser
EVIL = '=a"b,c</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def made(write_npz, new_folder):
    folder = new_folder()
    store = extract(str(toy(write_npz, folder)), backbone="pixels", store=folder / "embeddings")
    knn(store, k=[1], runs=folder / "runs")
    found = explore(store, out=folder / "page", runs=[folder / "runs"], kind="pca")
    html, name = found.path.read_text(encoding="utf-8"), '"val/4"'
    assert html.count(name) == 1
    escaped = EVIL.replace('"', '\\"').replace("<", "\\u003c").replace(">", "\\u003e")
    found.path.write_text(html.replace(name, f'"{escaped}"'), encoding="utf-8")
    return found.path, data_of(found.path)


@pytest.fixture
def visit(visit, made):
    return partial(visit, made[0], height=900)


def where(page, row):
    """Return where an image lies on the screen."""
    x, y = page.evaluate(f"medplusMap.at({row})")
    box = page.locator("#map").bounding_box()
    return box["x"] + x, box["y"] + y


def all_places(page, n):
    """Return where all images lie on the map, shape (n, 2)."""
    return np.array(page.evaluate(f"[...Array({n}).keys()].map(medplusMap.at)"))


def loneliest(page, n):
    """Return the image that lies farthest from any other on the map."""
    places = all_places(page, n)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(n)
    return int(apart.min(1).argmax())


def test_a_click_shows_name_neighbours_and_predictions(visit, made):
    data = made[1]
    with visit() as page:
        row = loneliest(page, len(data["names"]))
        page.mouse.click(*where(page, row))
        detail = page.locator("#detail")
        assert detail.locator("h2").text_content() == data["names"][row]
        near = unpacked(data["neighbours"]).reshape(-1, data["k"])[row]
        shown = [button.get_attribute("title") for button in detail.locator(".near button").all()]
        assert shown == [data["names"][i] for i in near]
        detail.locator(".near button").first.click()
        assert detail.locator("h2").text_content() == data["names"][near[0]]
        # Every run's word on an image of val, and none on one of train.
        page.fill("[name=q]", data["names"][34])
        page.press("[name=q]", "Enter")
        guess = data["words"][unpacked(data["runs"][0]["predicted"])[34] - 1]
        assert guess in detail.locator("tbody td").first.text_content()
        page.fill("[name=q]", "train/7")
        page.press("[name=q]", "Enter")
        assert detail.locator("tbody td").first.text_content() == "not scored"


def test_colours_are_those_of_the_categories_in_light_and_dark(visit, made):
    classes = column(made[1], "class")
    pixel = """([x, y]) => {
      const ink = document.querySelector('#points').getContext('2d');
      return [...ink.getImageData(x, y, 1, 1).data].slice(0, 3);
    }"""
    for scheme in ("light", "dark"):
        with visit(color_scheme=scheme) as page:
            row = loneliest(page, len(classes))
            for key in ("class", "split"):
                page.select_option("[name=colour]", key)
                page.wait_for_timeout(60)
                name = column(made[1], key)[row]
                dot = page.locator(".legend button", has_text=name).first.locator(".dot")
                colour = dot.evaluate("one => getComputedStyle(one).backgroundColor")
                drawn = page.evaluate(pixel, page.evaluate(f"medplusMap.at({row}).map(Math.round)"))
                assert colour == f"rgb({drawn[0]}, {drawn[1]}, {drawn[2]})"


def test_a_legend_shows_one_category_alone_and_all_again(visit, made):
    data = made[1]
    count = (column(data, "split") == "test").sum()
    with visit() as page:
        page.select_option("[name=colour]", "split")
        page.locator(".legend button", has_text="test").click()
        assert (
            page.locator("#status").text_content()
            == f"{count} of {len(data['names'])} images shown"
        )
        page.click("#choose")
        assert page.locator("#chosen h2").text_content() == f"{count} images chosen"
        page.locator(".legend button", has_text="Show all").click()
        assert page.locator("#status").text_content() == f"{len(data['names'])} images"


def test_a_lasso_downloads_the_names_that_lie_in_it(visit, made):
    data = made[1]
    n = len(data["names"])
    with visit() as page:
        places = np.array([where(page, row) for row in range(n)])
        middle = np.median(places[:, 0])
        top, bottom = places[:, 1].min() - 8, places[:, 1].max() + 8
        page.click("#lasso")
        page.mouse.move(middle, top)
        page.mouse.down()
        right = places[:, 0].max() + 8
        for x, y in ((right, top), (right, bottom), (middle, bottom)):
            page.mouse.move(x, y, steps=3)
        page.mouse.up()
        with page.expect_download() as download:
            page.click("text=Download CSV")
        text = download.value.path().read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    inside = np.flatnonzero(places[:, 0] > middle)
    assert [row["name"] for row in rows] == [data["names"][i] for i in inside]
    assert [row["class"] for row in rows] == column(data, "class")[inside].tolist()
    assert [row["split"] for row in rows] == column(data, "split")[inside].tolist()


def test_keys_alone_are_enough(visit, made):
    data = made[1]
    with visit() as page:
        page.keyboard.press("/")
        page.keyboard.type("ONERROR")  # of whatever case
        page.keyboard.press("Enter")
        title = page.locator("#detail h2")
        assert title.text_content() == EVIL == data["names"][34]
        page.keyboard.press("Escape")
        assert page.locator("[name=q]").input_value() == ""
        places = all_places(page, len(data["names"]))
        for key, axis, sign in (("ArrowLeft", 0, -1), ("ArrowRight", 0, 1), ("ArrowUp", 1, -1)):
            before = data["names"].index(title.text_content())
            page.keyboard.press(key)
            after = data["names"].index(title.text_content())
            lies = (places[:, axis] - places[before, axis]) * sign > 0
            assert (places[after, axis] - places[before, axis]) * sign > 0 or not lies.any()
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("l")
        assert page.locator("#lasso").get_attribute("aria-pressed") == "true"
        page.keyboard.press("Escape")
        assert page.locator("#lasso").get_attribute("aria-pressed") == "false"
        page.keyboard.press("Escape")
        assert title.count() == 0


def test_it_fits_a_phone_and_is_panned_by_touch_and_wheel(visit, made):
    with visit(width=400, height=800, has_touch=True, device_scale_factor=2) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        box = page.locator("#map").bounding_box()
        assert box["width"] > 350
        before = page.evaluate("medplusMap.at(0)")
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 140, box["y"] + 90, steps=4)
        page.mouse.up()
        moved = np.subtract(page.evaluate("medplusMap.at(0)"), before)
        np.testing.assert_allclose(moved, [40, -10], atol=1)
        scale = page.evaluate("medplusMap.view.scale")
        page.mouse.wheel(0, -100)
        page.wait_for_function(f"medplusMap.view.scale > {scale}")
        page.click("#fit")
        row = loneliest(page, len(made[1]["names"]))
        page.touchscreen.tap(*where(page, row))
        assert page.locator("#detail h2").text_content() == made[1]["names"][row]


def test_controls_have_names(visit):
    with visit() as page:
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, select, input')].filter(one => "
            "!one.hidden && !(one.ariaLabel || one.textContent.trim() && one.localName === 'button'"
            " || one.labels?.length)).length"
        )
        assert unnamed == 0

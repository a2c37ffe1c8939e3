"""Pages as people use them: fixtures of headless Chromium, which conftest gives to every test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, or a skip where there is none."""
    driver = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    with driver.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        except driver.Error as error:
            pytest.skip(f"Chromium does not start: {error}")
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., AbstractContextManager[Any]]]:
    """Open pages; at the end demand that nothing was complained of and nothing requested."""
    complaints = []

    @contextmanager
    def opened(
        path: Path, fragment: str = "", width: int = 1280, height: int = 800, **context: Any
    ) -> Iterator[Any]:
        made = browser.new_context(viewport={"width": width, "height": height}, **context)
        page, own = made.new_page(), path.as_uri()

        def asked(request: Any) -> None:
            if not request.url.startswith((own, "data:", "blob:")):
                complaints.append(f"asked for {request.url}")

        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)
        page.goto(own + fragment, wait_until="domcontentloaded")
        page.wait_for_selector("html[data-ready]")
        yield page
        made.close()

    yield opened
    assert complaints == []

"""The examples of docs/python.md run as they stand."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest


def test_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[1] / "docs/python.md"
    results = doctest.testfile(
        str(page),
        module_relative=False,
        optionflags=doctest.ELLIPSIS,
        parser=Ellipsed(),
    )
    assert results.attempted > 30
    assert results.failed == 0


class Ellipsed(doctest.DocTestParser):
    """Reads … as the three dots of doctest."""

    def parse(self, string, name="<string>"):
        return super().parse(string.replace("…", "..."), name)


@pytest.mark.parametrize(
    "name",
    ["sklearn", "sklearn.knn", "sklearn.linear", "sklearn.embedding", "embeddings.bycontent"],
)
def test_examples_of_docstrings_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(f"medplus.{name}"))
    assert results.attempted > 0
    assert results.failed == 0

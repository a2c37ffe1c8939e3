"""The examples of docs/python.md and of the docstrings run as they stand."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import medplus
from medplus.datasets.phantom import write_phantom


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


SLOW = {"audit", "compare", "package", "report"}
PUBLIC = [name for name in medplus.__all__ if name not in {"MedplusError", "__version__"}]


@pytest.fixture(scope="module")
def folder_with_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_phantom("breastmnist", 28, folder / "data", samples=200)
    return folder


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.extensive) if n in SLOW else n for n in PUBLIC],
)
def test_every_public_name_has_an_example_that_runs(
    name: str, folder_with_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder whose data/ has BreastMNIST; none needs that another ran before."""
    monkeypatch.chdir(folder_with_data)
    found = getattr(medplus, name)
    scope = vars(importlib.import_module(found.__module__))
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder(recurse=False).find(found, name, globs=dict(scope)):
        runner.run(test)
    assert runner.tries > 0
    assert runner.failures == 0
